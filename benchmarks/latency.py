"""From PUT to row, with `dagster dev` running: `python -m benchmarks.latency [--times 5]` (about 3 minutes).

Starts the daemon and the web server as `make dev` does, in a data folder of its own, with the engine that costs
nothing. Then a one-page PDF is put into the inbox (written beside it and renamed, as the pipeline's own writer does)
and the table `pages` is looked at until its row is there; several times, median.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import time
from contextlib import suppress
from pathlib import Path

import duckdb
import psutil

from benchmarks import papers, pipeline
from benchmarks.measure import COLUMNS, Goal, report
from ocr_pipeline_tests.whole.dev import dev

FREE = {"OCR_CPU_ENGINE": "text_layer", "OCR_BATCH_DOCUMENTS": "1"}
INTERVAL = 5.0  # the sensor's, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5)
    arguments = parser.parse_args()
    with pipeline.scratch() as folder, dev(folder / "data", **FREE):
        put(folder, papers.digital(1, "latency-first"), "first.pdf")
        wait_for(folder, 1, 240)
        seconds = []
        for number in range(arguments.times):
            time.sleep(number % 5)  # anywhere in the sensor's interval
            put(folder, papers.digital(1, f"latency-{number}"), f"{number}.pdf")
            seconds.append(wait_for(folder, number + 2, 120))
            print(f"put to row: {seconds[-1]:.1f} s", flush=True)
    median = statistics.median(seconds)
    goal = Goal(
        "PUT to row, one page, median s (sensor interval + 8)", median, INTERVAL + 8, note=f"{len(seconds)} times"
    )
    rows = [goal.row(), ("longest, s", max(seconds), "", "")]
    report("latency", "With dagster dev running", COLUMNS, rows, goals=[goal], seconds=seconds)


def put(folder: Path, paper: Path, name: str) -> None:
    inbox = folder / "data" / "lake" / "inbox"
    inbox.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(paper, inbox / f".{name}")
    os.utime(inbox / f".{name}")
    (inbox / f".{name}").rename(inbox / name)


def wait_for(folder: Path, rows: int, timeout: float) -> float:
    """Seconds until so many rows stand in `pages`."""
    started = time.monotonic()
    while time.monotonic() - started < timeout:
        # a reader in this process would keep the loader out: look, and be gone
        with suppress(duckdb.Error), duckdb.connect(str(folder / "data" / "warehouse.duckdb"), read_only=True) as found:
            row = found.execute("SELECT count(*) FROM ocr.pages").fetchone()
            if row is not None and row[0] >= rows:
                return time.monotonic() - started
        time.sleep(0.3)
    raise TimeoutError(
        f"{rows} rows were not there after {timeout} s: {(folder / 'data' / 'dev.log').read_text()[-1500:]}"
    )


def cpu(pid: int) -> float:
    """CPU seconds of the tree below `pid`, with children that were waited for."""
    total = 0.0
    with suppress(psutil.Error):
        for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
            with suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
    return total


if __name__ == "__main__":
    main()
