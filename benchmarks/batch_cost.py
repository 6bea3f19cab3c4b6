"""What a batch costs beyond its work: `python -m benchmarks.batch_cost [--batches 12]` (about 2 minutes).

The work is one page whose text layer is taken, so it costs nearly nothing. Fixed cost: CPU seconds of a process that
takes one such batch through the command; then of a loaded process for each further one (the command with 1 and with
many batches: the difference, divided). Events: rows of Dagster's event log a run, for 1 and for 200 documents.
pandas is only in the development environment, and pyarrow imports it where it is: a run with pandas out of reach is
what a user's environment costs. Backfills are measured by `benchmarks.backfill`.
"""

from __future__ import annotations

import argparse
import sqlite3
from pathlib import Path

from benchmarks import papers, pipeline
from benchmarks.measure import COLUMNS, ROOT, Goal, Spent, report

FREE = {"OCR_CPU_ENGINE": "text_layer"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=12)
    arguments = parser.parse_args()
    one, events_of_one = measured(1, 1)
    plain, _ = measured(1, 1, pandas=False)
    _, events_of_many = measured(200, 200)
    many, _ = measured(arguments.batches, 1)
    goals = [
        Goal("fixed cost of a batch in a new process, CPU s", one.cpu, 5),
        Goal("each further batch in a loaded process, CPU s", (many.cpu - one.cpu) / (arguments.batches - 1), 1.5),
        Goal("events of a batch of 1 document", events_of_one, 60),
        Goal("events of a batch of 200 documents", events_of_many, 60),
        Goal("events, 200 documents less 1 document", abs(events_of_many - events_of_one), 0),
    ]
    rows = [goal.row() for goal in goals]
    rows.insert(1, ("the same without pandas, as a user's environment is", plain.cpu, "", ""))
    report(
        "batch_cost",
        "A batch beyond its work",
        COLUMNS,
        rows,
        goals=goals,
        one=one,
        without_pandas=plain,
        many=many,
        batches=arguments.batches,
    )


def measured(documents: int, documents_a_batch: int, *, pandas: bool = True) -> tuple[Spent, int]:
    """The run, and the most events that one run of Dagster wrote."""
    found = [papers.digital(1, f"batch-{number}") for number in range(documents)]
    with pipeline.scratch() as folder:
        hidden = {} if pandas else {"PYTHONPATH": f"{_without_pandas(folder)}:{ROOT}"}
        spent = pipeline.ingest(folder, found, None, OCR_BATCH_DOCUMENTS=str(documents_a_batch), **FREE, **hidden)
        return spent, max(_events(folder / "data" / "dagster"))


def _without_pandas(folder: Path) -> Path:
    """A folder for the front of the path, where `import pandas` finds what tells that it is not installed."""
    stand_in = folder / "no-pandas" / "pandas"
    stand_in.mkdir(parents=True)
    (stand_in / "__init__.py").write_text("raise ModuleNotFoundError('No module named pandas', name='pandas')\n")
    return stand_in.parent


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
