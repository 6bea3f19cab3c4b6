"""docling, olmOCR, zerox and this pipeline on the same PDFs and the same server: `python -m benchmarks.peers.compare`.

One simulated server of 20 slots, 0.2 s a page, behind a door that counts bytes. Each peer runs in an environment of
its own under `--environments` (outside the repository; `--prepare` makes them from the registry: several GB), as its
documentation sets it up, with as many requests at once as the server has slots. CPU seconds and memory are those of
the client and its children; starting up (imports) is shown apart, by a run on one page, since it is paid once. The
goal is held against the nearest peer of the same run, and names those that were measured: a peer whose environment is
missing is left out. About 15 minutes with all three.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import papers, pipeline
from benchmarks.measure import ROOT, Goal, Spent, report, run
from benchmarks.peers.door import Door
from ocr_pipeline_tests.simulator import SimulatedServer

SLOTS = 20
SECONDS = 0.2
MODEL = "deepseek-ai/DeepSeek-OCR"
PACKAGES = {
    "docling": ("torch==2.13.0", "docling==2.143.0"),
    "olmocr": ("olmocr==0.4.27",),
    "zerox": ("py-zerox==0.0.7",),
}
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}

Client = Callable[[Path, Sequence[Path], str], Spent]


@dataclass(frozen=True, slots=True)
class Measured:
    spent: Spent
    answered: int
    requests: int
    megabytes: float
    busy: float | None
    span: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path.home() / ".cache" / "ocr_pipeline_benchmarks" / "peers"
    parser.add_argument("--environments", type=Path, default=default)
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("--pages-up-to", type=int, default=20)
    parser.add_argument("--only", choices=("ours", *PACKAGES), action="append")
    arguments = parser.parse_args()
    if arguments.prepare:
        prepare(arguments.environments, arguments.only or list(PACKAGES))
        return
    documents = papers.mix([size for size in papers.SIZES if size <= arguments.pages_up_to])
    pages = sum(map(papers.page_count, documents))
    clients: dict[str, Client] = {"ours": ours, **peers(arguments.environments)}
    rows: list[tuple[object, ...]] = []
    figures: dict[str, object] = {"pages": pages}
    a_page_of: dict[str, float] = {}
    for name, client in clients.items():
        if arguments.only and name not in arguments.only:
            continue
        try:
            start = measured(client, [papers.digital(1, "peers-start")], name)
            whole = measured(client, documents, name)
        except (RuntimeError, FileNotFoundError) as error:  # the second: its environment was not made (`--prepare`)
            rows.append((name, f"failed: {error}"[:200], "", "", "", "", "", ""))
            figures[name] = str(error)
            continue
        a_page = (whole.spent.cpu - start.spent.cpu) / (pages - 1)
        a_page_of[name] = a_page
        rows.append(
            (
                name,
                a_page,
                a_page / a_page_of["ours"] if "ours" in a_page_of else "",
                start.spent.cpu,
                whole.busy if whole.busy is not None else "",
                whole.span,
                whole.megabytes * 1000 / pages,
                (whole.spent.rss + whole.spent.children_rss) / 1e6,
                f"{whole.answered} of {pages}",
            )
        )
        figures[name] = {
            "cpu_seconds_a_page": a_page,
            "start": start.spent,
            "whole": whole.spent,
            "answered": whole.answered,
            "requests": whole.requests,
            "busy": whole.busy,
            "span": whole.span,
            "megabytes": whole.megabytes,
        }
    columns = ("client", "CPU s a page", "x ours", "start, CPU s", "slots busy", "first to last, s", "kB sent a page")
    columns += ("peak MB", "pages answered")
    title = f"The same {pages} pages, one server of {SLOTS} slots"
    report("peers", title, columns, rows, goals=goals(a_page_of, pages), **figures)


def goals(a_page_of: Mapping[str, float], pages: int) -> list[Goal]:
    """How many times our CPU seconds a page the nearest peer of this run takes; not met where none was measured."""
    what = "client cost below every peer measured, times"
    theirs = {name: value for name, value in a_page_of.items() if name != "ours"}
    if not theirs or "ours" not in a_page_of:
        note = "no peer was measured: make their environments with --prepare"
        return [Goal(what, math.nan, 2.5, least=True, note=note)]
    nearest = min(theirs, key=lambda name: theirs[name])
    note = f"{pages} pages; nearest: {nearest}; measured: {', '.join(theirs)}"
    times = theirs[nearest] / a_page_of["ours"]
    return [Goal(what, times, 2.5, least=True, note=note)]


def measured(client: Client, documents: Sequence[Path], name: str) -> Measured:
    with (
        SimulatedServer(profile="dgx-spark", max_num_seqs=SLOTS, seconds_per_page=SECONDS) as server,
        Door(server.ready().url, front_matter=name == "olmocr") as door,
        pipeline.scratch() as folder,
    ):
        spent = client(folder, documents, door.url)
        tally = server.stats()
    if spent.code != 0:
        raise RuntimeError(f"exit {spent.code}: {spent.err[-300:]}")
    if tally.first_request_at is None or tally.last_answer_at is None:
        raise RuntimeError(f"asked nothing: {spent.err[-300:]}")
    span = tally.last_answer_at - tally.first_request_at
    return Measured(spent, tally.answered, door.requests, door.bytes / 1e6, tally.busy_share, span)


def ours(folder: Path, documents: Sequence[Path], url: str) -> Spent:
    toml = (
        f'[[backend]]\nname = "spark"\nurl = "{url}"\ngpu = "dgx-spark"\nmodel = "{MODEL}"\nmax_in_flight = {SLOTS}\n'
    )
    # the peers draw at 144 dpi (docling) and 1288 pixels (olmOCR); ours at the 150 of the usual pair of machines
    return pipeline.ingest(folder, documents, toml + "dpi = 150\n")


def peers(environments: Path) -> dict[str, Client]:
    def docling(folder: Path, documents: Sequence[Path], url: str) -> Spent:
        (folder / "out").mkdir()
        script = str(ROOT / "benchmarks" / "peers" / "docling_client.py")
        command = [str(environments / "docling/bin/python"), script, url, str(SLOTS), str(folder / "out")]
        return run([*command, *map(str, documents)], OFFLINE, folder)

    def olmocr(folder: Path, documents: Sequence[Path], url: str) -> Spent:
        command = [str(environments / "olmocr/bin/python"), "-m", "olmocr.pipeline", str(folder / "workspace")]
        command += ["--server", f"{url}/v1", "--model", MODEL, "--workers", str(SLOTS), "--markdown"]
        return run([*command, "--pdfs", *map(str, documents)], OFFLINE, folder)

    def zerox(folder: Path, documents: Sequence[Path], url: str) -> Spent:
        (folder / "out").mkdir()
        script = str(ROOT / "benchmarks" / "peers" / "zerox_client.py")
        command = [str(environments / "zerox/bin/python"), script, url, str(SLOTS), str(folder / "out")]
        return run([*command, *map(str, documents)], OFFLINE, folder)

    return {"docling": docling, "olmocr": olmocr, "zerox": zerox}


def prepare(environments: Path, names: Sequence[str]) -> None:
    environments.mkdir(parents=True, exist_ok=True)
    for name, packages in PACKAGES.items():
        if name not in names:
            continue
        subprocess.run([sys.executable, "-m", "venv", str(environments / name)], check=True)
        for package in packages:
            subprocess.run([str(environments / name / "bin/pip"), "install", "-q", package], check=True)


if __name__ == "__main__":
    main()
