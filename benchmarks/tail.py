"""A batch with one server at a tenth of its speed: `python -m benchmarks.tail [--pages 240]` (about 3 minutes).

The ideal for the speeds as they are: every slot of both servers works until the end, so pages / (sum over servers of
slots / seconds a page), rounded up to whole pages a slot. Late pages are asked a second time elsewhere; how many is
shown beside it.
"""

from __future__ import annotations

import argparse

from benchmarks import papers, pipeline
from benchmarks.measure import Goal, report
from ocr_pipeline_tests.simulator import Fleet

GOAL = 1.3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=240)
    parser.add_argument("--seconds-per-page", type=float, default=2.0)
    arguments = parser.parse_args()
    rows: list[tuple[object, ...]] = []
    goals: list[Goal] = []
    figures = {}
    for slow in pipeline.SLOTS:
        taken, hedged = measured(arguments.pages, arguments.seconds_per_page, slow)
        seconds = {name: arguments.seconds_per_page * (10 if name == slow else 1) for name in pipeline.SLOTS}
        ideal = ideal_end(arguments.pages, {name: (pipeline.SLOTS[name], seconds[name]) for name in seconds})
        case = f"{slow} ({pipeline.SLOTS[slow]} slots) at a tenth of its speed"
        goal = Goal(f"tail, {case}, over the ideal", taken / ideal, GOAL, note=f"{hedged} pages asked twice")
        rows.append((case, taken, ideal, goal.figure, hedged, goal.asked, goal.verdict))
        goals.append(goal)
        figures[slow] = {"seconds": taken, "ideal": ideal, "asked_twice": hedged}
    columns = ("case", "s", "ideal s", "ratio", "pages asked twice", "goal", "")
    report("tail", f"Tail, {arguments.pages} pages", columns, rows, goals=goals, **figures)


def ideal_end(pages: int, servers: dict[str, tuple[int, float]]) -> float:
    """The earliest second by which the servers, each with so many slots of so many seconds a page, can be done."""
    ends = sorted(
        seconds * wave for slots, seconds in servers.values() for wave in range(1, pages + 1) for _ in range(slots)
    )
    return ends[pages - 1]


def measured(pages: int, seconds: float, slow: str) -> tuple[float, int]:
    servers = Fleet(
        **{
            name: {
                "profile": profile,
                "max_num_seqs": pipeline.SLOTS[name],
                "seconds_per_page": seconds,
                "speed": 0.1 if name == slow else 1.0,
            }
            for name, profile in (("rtx4090", "rtx-4090"), ("spark", "dgx-spark"))
        }
    )
    found = [papers.digital(12, f"backlog-{number}") for number in range(pages // 12)]
    with pipeline.scratch() as folder, servers:
        pipeline.ingest(folder, found, pipeline.backends_toml(servers))
        tallies = servers.stats()
    first, last = pipeline.span(list(tallies.values()))
    asked: dict[str, int] = {}
    for tally in tallies.values():
        for sha, page in tally.pages.items():
            asked[sha] = asked.get(sha, 0) + page.asked
    return last - first, sum(times > 1 for times in asked.values())


if __name__ == "__main__":
    main()
