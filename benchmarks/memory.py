"""Peak memory of a long PDF against a short one: `python -m benchmarks.memory [--pages 3000]`.

Both go through the command, all hops, against two simulated servers, whose answers have regions and as much text as a
full page. Measured are the main process, and beside it the render workers with poppler; the servers are not among them.
"""

from __future__ import annotations

import argparse

from benchmarks import papers, pipeline
from benchmarks.measure import Goal, Spent, report

MB = 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=3000)
    arguments = parser.parse_args()
    short, long = measured(30), measured(arguments.pages)
    # of a short document the workers are the larger part, of a long one the process: each is held against its own
    growth = max(long.rss - short.rss, long.together - short.together) / MB
    peak = long.together / MB
    report(
        "memory",
        "Peak memory, MB",
        ("what", "30 pages", f"{arguments.pages} pages", "goal", ""),
        [
            ("main process", short.rss / MB, long.rss / MB, "", ""),
            ("render workers and poppler", short.children_rss / MB, long.children_rss / MB, "", ""),
            ("both at one moment", short.together / MB, peak, "<= 600", "met" if peak <= 600 else "NOT MET"),
            ("growth, of the process or of both", "", growth, "<= 100", "met" if growth <= 100 else "NOT MET"),
            ("CPU s a page", short.cpu / 30, long.cpu / arguments.pages, "", ""),
        ],
        goals=[
            Goal(f"memory of {arguments.pages:,} pages beyond that of 30 pages, MB", growth, 100),
            Goal(f"memory of the whole run, {arguments.pages:,} pages, MB", peak, 600),
        ],
        short=short,
        long=long,
    )


def measured(pages: int) -> Spent:
    with pipeline.fleet(0.05) as servers, pipeline.scratch() as folder:
        return pipeline.ingest(
            folder,
            [papers.digital(pages, "memory")],
            pipeline.backends_toml(servers),
            timeout=1500,
            sample_seconds=0.01,
        )


if __name__ == "__main__":
    main()
