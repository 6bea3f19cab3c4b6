"""From PUT to row, and a backfill through the daemon, with `dagster dev` running: `python -m benchmarks.latency`.

Starts the daemon and the web server as `make dev` does, in a data folder of its own, with the engine that costs
nothing. Then a one-page PDF is put into the inbox (written beside it and renamed, as the pipeline's own writer does)
and the table `pages` is looked at until its row is there; several times, median. Then so many one-document batches at
once: seconds a batch, and CPU seconds a batch of all of Dagster's processes together.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import duckdb
import psutil

from benchmarks import papers, pipeline
from benchmarks.measure import ROOT, report, verdict

INTERVAL = 5.0  # the sensor's, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--backfill", type=int, default=6, help="batches given to the daemon at once; 0: none")
    arguments = parser.parse_args()
    with pipeline.scratch() as folder:
        environment = {
            **os.environ,
            "OCR_DATA": str(folder / "data"),
            "OCR_CPU_ENGINE": "text_layer",
            "OCR_BATCH_DOCUMENTS": "1",
            "PYTHONPATH": str(ROOT),
        }
        home = subprocess.run(
            [sys.executable, "-m", "ocr_pipeline", "dagster-home"],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        environment["DAGSTER_HOME"] = home
        dagster = Path(sys.executable).parent / "dagster"
        command = [str(dagster), "dev", "-m", "ocr_pipeline.definitions", "--host", "127.0.0.1", "--port", "0"]
        with (folder / "dagster.log").open("wb") as log:
            process = subprocess.Popen(
                command, env=environment, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
            )
        try:
            put(folder, papers.digital(1, "latency-first"), "first.pdf")
            first = wait_for(folder, 1, 240)
            seconds = []
            for number in range(arguments.times):
                time.sleep(number % 5)  # anywhere in the sensor's interval
                put(folder, papers.digital(1, f"latency-{number}"), f"{number}.pdf")
                seconds.append(wait_for(folder, number + 2, 120))
                print(f"put to row: {seconds[-1]:.1f} s", flush=True)
            rows: list[tuple[object, ...]] = [
                ("first row after the start of dagster dev, s", first, "", ""),
                (
                    "put to row, median s",
                    statistics.median(seconds),
                    INTERVAL + 8,
                    verdict(statistics.median(seconds), INTERVAL + 8),
                ),
                ("put to row, longest s", max(seconds), "", ""),
            ]
            figures: dict[str, object] = {"seconds": seconds}
            if arguments.backfill:
                before = cpu(process.pid)
                for number in range(arguments.backfill):
                    put(folder, papers.digital(1, f"backfill-{number}"), f"backfill-{number}.pdf")
                taken = wait_for(folder, arguments.times + 1 + arguments.backfill, 400)
                spent = cpu(process.pid) - before
                rows += [
                    (f"{arguments.backfill} batches through the daemon, s a batch", taken / arguments.backfill, "", ""),
                    ("the same, CPU s a batch (all of Dagster's processes)", spent / arguments.backfill, "", ""),
                ]
                figures["backfill"] = {"batches": arguments.backfill, "seconds": taken, "cpu": spent}
            report("latency", "With dagster dev running", ("what", "figure", "goal", ""), rows, **figures)
        finally:
            end(process)


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
    raise TimeoutError(f"{rows} rows were not there after {timeout} s: {(folder / 'dagster.log').read_text()[-1500:]}")


def cpu(pid: int) -> float:
    """CPU seconds of the tree below `pid`, with children that were waited for."""
    total = 0.0
    with suppress(psutil.Error):
        for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
            with suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
    return total


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends what this program started: the group that is its own session, and runs that made sessions of their own."""
    below: list[psutil.Process] = []
    with suppress(psutil.Error):
        below = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(20)
    for left in below:
        with suppress(psutil.Error):
            left.kill()
    if process.poll() is None:
        process.kill()
    process.wait()


if __name__ == "__main__":
    main()
