"""How busy the servers' slots are: `python -m benchmarks.slots` (about 3 minutes).

A backlog of batches through the command (4 and 16 slots, 0.8 s a page, as the goal says): busy slot time over slots
times the span from the first request to the last answer. A slot is also busy with a page that is asked a second time,
so the share that gave answers (each page once) stands beside it. Then one document of 300 pages alone, first request to
last answer, against the larger of two times that no client can beat: drawing the pages (clocked inside a process that
does nothing else) and pages x seconds / slots. A client of 40 lines (`bare_client.py`) does the same in the same run.

25 pages a second keep two whole cores busy with drawing. `--dilate 5` adds the same with servers five times slower,
where a machine's cores are enough whatever they are; those figures are extra, and not the goal's condition.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping

from benchmarks import papers, pipeline
from benchmarks.measure import COLUMNS, ROOT, Goal, report, run
from ocr_pipeline_tests.simulator import Fleet, Tally

SECONDS = 0.8  # a page, as the goal says
EXTRA = "not the goal's condition"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dilate", type=float, help="the same once more with servers so many times slower")
    parser.add_argument("--documents", type=int, default=48, help="of 12 pages, in batches of 8")
    parser.add_argument("--pages", type=int, default=300, help="of the one long document")
    parser.add_argument("--only", choices=("backlog", "alone"))
    arguments = parser.parse_args()
    rows: list[tuple[object, ...]] = []
    goals: list[Goal] = []
    figures: dict[str, object] = {"slots": pipeline.SLOTS, "seconds_per_page": SECONDS}
    for dilate in (1.0, arguments.dilate) if arguments.dilate else (1.0,):
        seconds, extra = SECONDS * dilate, dilate != 1
        label = f"{seconds:g} s a page: " if extra else ""
        if arguments.only != "alone":
            found = backlog(arguments.documents, seconds)
            goal = Goal("slots busy, backlog of batches, share of 4 + 16 slots", found["busy"], 0.95, least=True)
            rows += _shown(goal, label, extra)
            rows += [(f"  {label}{name}", value, "", "") for name, value in found.items() if name != "busy"]
            figures[f"backlog{'_dilated' if extra else ''}"] = found
            goals += [] if extra else [goal]
        if arguments.only != "backlog":
            alone = one_document(arguments.pages, seconds)
            floor = max(alone["drawing"], alone["ideal_ocr"])
            what = f"one document of {arguments.pages} pages alone, over the larger of drawing and ideal OCR"
            goal = Goal(what, alone["ours"] / floor, 1.15)
            rows += _shown(goal, label, extra)
            rows += [(f"  {label}{name.replace('_', ' ')}, s", value, "", "") for name, value in alone.items()]
            rows.append((f"  {label}bare client, over the larger", alone["bare_client"] / floor, "", ""))
            figures[f"alone{'_dilated' if extra else ''}"] = alone
            goals += [] if extra else [goal]
    report("slots", f"Slots busy, {SECONDS:g} s a page", COLUMNS, rows, goals=goals, **figures)


def _shown(goal: Goal, label: str, extra: bool) -> list[tuple[object, ...]]:
    return [(label + goal.what, goal.figure, EXTRA, "")] if extra else [goal.row()]


def backlog(documents: int, seconds: float) -> dict[str, float]:
    papers_of_it = [papers.digital(12, f"backlog-{number}") for number in range(documents)]
    with pipeline.scratch() as folder, pipeline.fleet(seconds) as servers:
        pipeline.ingest(folder, papers_of_it, pipeline.backends_toml(servers), OCR_BATCH_DOCUMENTS="8")
        tallies = servers.stats()
    return shares(tallies, 12 * documents, seconds)


def shares(tallies: Mapping[str, Tally], pages: int, seconds: float) -> dict[str, float]:
    """Busy share of all slots and of each server's, the share that gave each page its one answer, and duplicates."""
    first, last = pipeline.span(list(tallies.values()))
    slots = sum(tally.slots for tally in tallies.values())
    requests = sum(tally.requests for tally in tallies.values())
    return {
        "busy": pipeline.busy(list(tallies.values())),
        **{f"busy, {name}": t.busy_slot_seconds / (t.slots * (last - first)) for name, t in tallies.items()},
        "answered pages x seconds / (slots x span)": pages * seconds / (slots * (last - first)),
        "pages": pages,
        "requests beyond one a page": requests - pages,
        "span, s": last - first,
    }


def one_document(pages: int, seconds: float) -> dict[str, float]:
    paper = papers.digital(pages, "alone")
    with pipeline.scratch() as folder:
        bare = [sys.executable, "-m", "benchmarks.bare_client", str(paper)]
        environment = {"PYTHONPATH": str(ROOT)}
        before = float(run(bare, environment, folder).out.split()[-1])
        with pipeline.fleet(seconds) as servers:
            urls = [f"{servers[name].url}={slots}" for name, slots in pipeline.SLOTS.items()]
            run([*bare, *urls], environment, folder)
            theirs = _span(servers)
        with pipeline.fleet(seconds) as servers:
            pipeline.ingest(folder, [paper], pipeline.backends_toml(servers))
            ours = _span(servers)
        after = float(run(bare, environment, folder).out.split()[-1])
    return {
        "drawing": (before + after) / 2,
        "ideal_ocr": pages * seconds / sum(pipeline.SLOTS.values()),
        "ours": ours,
        "bare_client": theirs,
    }


def _span(servers: Fleet) -> float:
    first, last = pipeline.span(list(servers.stats().values()))
    return last - first


if __name__ == "__main__":
    main()
