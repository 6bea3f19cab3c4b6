"""What a batch costs beyond its work, and a backfill of small ones: `python -m benchmarks.batch_cost [--batches 100]`.

The work is one page whose text layer is taken, so it costs nearly nothing. Fixed cost: CPU seconds of a process that
takes one such batch through the command; then of a loaded process for each further one (the command with 1 and with
many batches: the difference, divided). Events: rows of Dagster's event log a run, for 1 and for 200 documents.
"""

from __future__ import annotations

import argparse
import sqlite3
from pathlib import Path

from benchmarks import papers, pipeline
from benchmarks.measure import Spent, report, verdict

FREE = {"OCR_CPU_ENGINE": "text_layer"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=100)
    arguments = parser.parse_args()
    one, events_of_one = measured(1, 1)
    _, events_of_many = measured(200, 200)
    many, _ = measured(arguments.batches, 1)
    further = (many.cpu - one.cpu) / (arguments.batches - 1)
    wall = (many.wall - one.wall) / (arguments.batches - 1)
    report(
        "batch_cost",
        "A batch beyond its work",
        ("what", "figure", "goal", ""),
        [
            ("a batch in a new process, CPU s", one.cpu, 5, verdict(one.cpu, 5)),
            ("each further batch in a loaded process, CPU s", further, 1.5, verdict(further, 1.5)),
            (
                f"backfill of {arguments.batches} batches by the command, CPU s a batch",
                many.cpu / arguments.batches,
                "",
                "",
            ),
            (f"backfill of {arguments.batches} batches by the command, s a batch", wall, "", ""),
            ("events of a batch of 1 document", events_of_one, 60, verdict(events_of_one, 60)),
            ("events of a batch of 200 documents", events_of_many, 60, verdict(events_of_many, 60)),
        ],
        one=one,
        many=many,
        batches=arguments.batches,
    )


def measured(documents: int, documents_a_batch: int) -> tuple[Spent, int]:
    """The run, and the most events that one run of Dagster wrote."""
    found = [papers.digital(1, f"batch-{number}") for number in range(documents)]
    with pipeline.scratch() as folder:
        spent = pipeline.ingest(folder, found, None, OCR_BATCH_DOCUMENTS=str(documents_a_batch), **FREE)
        return spent, max(_events(folder / "data" / "dagster"))


def _events(home: Path) -> list[int]:
    counts = []
    for file in home.rglob("*.db"):
        with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if "event_logs" in tables:
                counts += [n for (n,) in connection.execute("SELECT count(*) FROM event_logs GROUP BY run_id")]
    return counts


if __name__ == "__main__":
    main()
