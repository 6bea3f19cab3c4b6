"""CPU seconds a page of everything the client does: `python -m benchmarks.client_cost [--pages-up-to 100] [--profile]`.

Runs `ocr-pipeline ingest` on the mix of `papers.py` against two simulated servers, and once more on one one-page
document. The goal leaves Dagster's start out. A whole run of one page is more than that (the first render worker, one
page's drawing), so two figures are told: what a further page costs (the difference of the runs), and all in, every CPU
second of the process spread over its pages; the truth for the goal lies between. About 2 minutes.
CPU seconds are those of the command, its render workers and poppler; the servers are not its children.
With `--profile` py-spy writes where the time goes to benchmarks/results/ (it slows the run; no figure is kept).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks import papers, pipeline
from benchmarks.measure import COLUMNS, RESULTS, Goal, report

GOAL = 0.08


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages-up-to", type=int, default=100, help="leave out longer documents")
    parser.add_argument("--seconds-per-page", type=float, default=0.2)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument(
        "--without-poppler", action="store_true", help="PDFium alone draws, as where poppler is missing"
    )
    arguments = parser.parse_args()
    documents = papers.mix([size for size in papers.SIZES if size <= arguments.pages_up_to])
    pages = sum(map(papers.page_count, documents))
    environment = {"PATH": str(Path(sys.executable).parent)} if arguments.without_poppler else {}
    with pipeline.fleet(arguments.seconds_per_page) as servers:
        toml = pipeline.backends_toml(servers)
        if arguments.profile:
            with pipeline.scratch() as folder:
                profile(folder, documents, toml)
            return
        with pipeline.scratch() as folder:
            fixed = pipeline.ingest(folder, [papers.digital(1, "fixed")], toml, **environment)
        with pipeline.scratch() as folder:
            whole = pipeline.ingest(folder, documents, toml, **environment)
        by_kind = {}
        for kind in ("digital", "scanned"):
            with pipeline.scratch() as folder:
                one = papers.digital(60, "kind") if kind == "digital" else papers.scanned(60, "kind")
                by_kind[kind] = (pipeline.ingest(folder, [one], toml, **environment).cpu - fixed.cpu) / 59
    a_page = (whole.cpu - fixed.cpu) / (pages - 1)
    note = (
        f"{pages} pages, {'PDFium alone' if arguments.without_poppler else 'poppler'}; all in {whole.cpu / pages:.3f}"
    )
    goal = Goal("client cost, CPU s a page (a run of one page taken off)", a_page, GOAL, note=note)
    report(
        "client_cost_without_poppler" if arguments.without_poppler else "client_cost",
        f"Client cost, {pages} pages in {len(documents)} documents, CPU s",
        COLUMNS,
        [
            goal.row(),
            ("a page, all in: Python's and Dagster's start spread over the pages", whole.cpu / pages, "", ""),
            ("a born-digital page (one document of 60)", by_kind["digital"], "", ""),
            ("a scanned page (one document of 60)", by_kind["scanned"], "", ""),
            ("fixed: a run with one page", fixed.cpu, "", ""),
        ],
        goals=[] if arguments.without_poppler else [goal],
        pages=pages,
        documents=len(documents),
        cpu_seconds_a_page=a_page,
        cpu_seconds_a_page_all_in=whole.cpu / pages,
        fixed_cpu_seconds=fixed.cpu,
        whole=whole,
        by_kind=by_kind,
    )


def profile(folder: Path, documents: list[Path], toml: str) -> None:
    """A flame graph's folded stacks of the main process and the workers, GIL or not, and the heaviest functions."""
    (folder / "backends.toml").write_text(toml)
    RESULTS.mkdir(exist_ok=True)
    folded = RESULTS / "client_cost.folded"
    spy = Path(sys.executable).parent / "py-spy"
    command = [str(spy), "record", "--subprocesses", "-r", "50", "-f", "raw", "-o", str(folded), "--"]
    command += [sys.executable, "-m", "ocr_pipeline", "ingest", *map(str, documents), "--json"]
    environment = {"OCR_DATA": str(folder / "data"), "OCR_BACKENDS": str(folder / "backends.toml")}
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    print(json.dumps({"exit": done.returncode}), done.stderr[-500:])
    total, own, within = 0, {}, {}
    for line in folded.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        total += int(count)
        own[frames[-1]] = own.get(frames[-1], 0) + int(count)
        for frame in set(frames):
            within[frame] = within.get(frame, 0) + int(count)
    for title, found in (("own time", own), ("with callees", within)):
        print(f"\n{title} (of {total} samples)")
        for frame, count in sorted(found.items(), key=lambda item: -item[1])[:45]:
            print(f"  {count / total:6.1%} {frame}")


if __name__ == "__main__":
    main()
