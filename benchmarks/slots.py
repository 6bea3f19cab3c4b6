"""How busy the servers' slots are: `python -m benchmarks.slots [--seconds-per-page 0.8] [--dilate 1]`.

A backlog of batches through the command (4 and 16 slots): busy slot time over slots times the span from the first
request to the last answer. Then one document of 300 pages alone, against the larger of two times that no client can
beat: drawing the pages (measured in the same run with nothing else going on) and pages x seconds / slots.
A client of 40 lines (`bare_client.py`) does the same work in the same run.

25 pages a second keep two whole cores busy with drawing. Where the machine gives less, the slots are idle for want of
images whoever draws them: `--dilate 5` makes the servers as much slower, so that the cores are enough.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import papers, pipeline
from benchmarks.measure import ROOT, report, run, verdict
from ocr_pipeline_tests.simulator import Fleet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds-per-page", type=float, default=0.8)
    parser.add_argument("--dilate", type=float, default=1.0)
    parser.add_argument("--documents", type=int, default=48, help="of 12 pages, in batches of 8")
    parser.add_argument("--pages", type=int, default=300, help="of the one long document")
    parser.add_argument("--only", choices=("backlog", "alone"))
    arguments = parser.parse_args()
    seconds = arguments.seconds_per_page * arguments.dilate
    rows: list[tuple[object, ...]] = []
    figures: dict[str, object] = {"seconds_per_page": seconds, "slots": pipeline.SLOTS}
    if arguments.only != "alone":
        share, each = backlog(arguments.documents, seconds)
        rows.append(("backlog: busy share of all 20 slots", share, ">= 0.95", "met" if share >= 0.95 else "NOT MET"))
        rows += [(f"  {name}", value, "", "") for name, value in each.items()]
        figures["backlog"] = {"busy": share, **each}
    if arguments.only != "backlog":
        alone = one_document(arguments.pages, seconds)
        floor = max(alone["drawing"], alone["ideal_ocr"])
        rows += [
            ("one document: drawing alone, s", alone["drawing"], "", ""),
            ("one document: ideal OCR, s", alone["ideal_ocr"], "", ""),
            ("one document: ours, over the larger", alone["ours"] / floor, 1.15, verdict(alone["ours"] / floor, 1.15)),
            ("one document: bare client, over the larger", alone["bare"] / floor, "", ""),
        ]
        figures["alone"] = alone
    report("slots", f"Slots busy, {seconds:g} s a page", ("what", "figure", "goal", ""), rows, **figures)


def backlog(documents: int, seconds: float) -> tuple[float, dict[str, float]]:
    found = [papers.digital(12, f"backlog-{number}") for number in range(documents)]
    with pipeline.scratch() as folder, pipeline.fleet(seconds) as servers:
        pipeline.ingest(folder, found, pipeline.backends_toml(servers), OCR_BATCH_DOCUMENTS="8")
        tallies = servers.stats()
    first, last = pipeline.span(list(tallies.values()))
    each = {name: tally.busy_slot_seconds / (tally.slots * (last - first)) for name, tally in tallies.items()}
    return pipeline.busy(list(tallies.values())), each


def one_document(pages: int, seconds: float) -> dict[str, float]:
    paper = papers.digital(pages, "alone")
    bare = [sys.executable, "-m", "benchmarks.bare_client", str(paper)]
    with pipeline.scratch() as folder:
        drawing = run(bare, {"PYTHONPATH": str(ROOT)}, folder).wall
        with pipeline.fleet(seconds) as servers:
            urls = [f"{servers[name].url}={slots}" for name, slots in pipeline.SLOTS.items()]
            run([*bare, *urls], {"PYTHONPATH": str(ROOT)}, folder)
            bare_seconds = _span(servers)
        with pipeline.fleet(seconds) as servers:
            pipeline.ingest(Path(folder), [paper], pipeline.backends_toml(servers))
            ours = _span(servers)
        again = run(bare, {"PYTHONPATH": str(ROOT)}, folder).wall
    return {
        "drawing": (drawing + again) / 2,
        "ideal_ocr": pages * seconds / sum(pipeline.SLOTS.values()),
        "ours": ours,
        "bare": bare_seconds,
    }


def _span(servers: Fleet) -> float:
    first, last = pipeline.span(list(servers.stats().values()))
    return last - first


if __name__ == "__main__":
    main()
