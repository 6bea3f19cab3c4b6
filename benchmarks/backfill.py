"""A backfill of many small batches, from the UI and from the command: `python -m benchmarks.backfill [--batches 100]`.

From the command: `ocr-pipeline ingest` over so many one-page documents, a batch each, in one process. From the UI: the
same batches written and announced as partitions, then one `launchPartitionBackfill` over GraphQL, which is what the
button sends; Dagster's daemon makes a queued run of each, and a process a run. CPU seconds are those of everything that
`dagster dev` started. What holds the daemon's rate down is told from each run's own times.

The work is one page whose text layer is taken, so it costs nearly nothing. Bounded: after `--minutes` the rate is that
of what was done by then. On two quiet cores 100 batches take about 10 minutes, 3 of them the command's.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from benchmarks import papers, pipeline
from benchmarks.latency import FREE, cpu
from benchmarks.measure import report
from ocr_pipeline import wiring
from ocr_pipeline.intake import cutting, inbox, sources
from ocr_pipeline.lake.planner import BatchLimits
from ocr_pipeline.runs import instance, requests
from ocr_pipeline.settings import Settings
from ocr_pipeline_tests.whole.dev import Dev, dev

JOB = "process_batch"
LAUNCH = """mutation($p: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $p) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
RUNS = """{ runsOrError(limit: 10000) { ... on Runs { results { status stats {
    ... on RunStatsSnapshot { enqueuedTime launchTime startTime endTime } } } } } }"""
OVER = {"SUCCESS", "FAILURE", "CANCELED"}


@dataclass(frozen=True, slots=True)
class Run:
    """When one run of the daemon came to each of its stages, seconds of the wall clock."""

    queued: float
    launched: float
    started: float
    ended: float


@dataclass(frozen=True, slots=True)
class Backfilled:
    batches: int  # done in the time
    wall: float  # s, from the launch until the last of them ended
    cpu: float  # s
    runs: tuple[Run, ...] = ()
    busy: float = 0.0  # share of all cores that anybody used meanwhile

    @property
    def wall_a_batch(self) -> float:
        return self.wall / self.batches

    @property
    def cpu_a_batch(self) -> float:
        return self.cpu / self.batches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=20, help="the UI's backfill is cut off after this time")
    parser.add_argument("--only", choices=("ui", "command"))
    arguments = parser.parse_args()
    rows: list[tuple[object, ...]] = []
    remarks: list[str] = []
    figures: dict[str, object] = {"batches": arguments.batches}
    for name, work in (("command", from_command), ("ui", from_ui)):
        if arguments.only not in (None, name):
            continue
        done = work(arguments.batches, arguments.minutes * 60)
        said = f"from the {'UI' if name == 'ui' else name}, {done.batches} of {arguments.batches} batches"
        rows += [(f"{said}: CPU s a batch", done.cpu_a_batch), (f"{said}: s a batch", done.wall_a_batch)]
        figures[name] = {
            "batches": done.batches,
            "cpu_a_batch": done.cpu_a_batch,
            "wall_a_batch": done.wall_a_batch,
            "runs_a_minute": 60 / done.wall_a_batch,
        }
        if done.runs:
            stages, why = held_by(done, os.cpu_count() or 1)
            rows += [(f"  {stage}", value) for stage, value in stages.items()]
            start = statistics.median(run.started - run.launched for run in done.runs)
            own = statistics.median(run.ended - run.started for run in done.runs)
            told = {"stages": stages, "held_by": why, "launch_to_start": start, "start_to_end": own}
            figures[name] |= told  # type: ignore[operator]
            remarks.append(f"What holds the daemon's rate down: {why}.")
    report("backfill", "A backfill of small batches", ("what", "figure"), rows, remarks=remarks, **figures)


def from_command(batches: int, seconds: float) -> Backfilled:
    with pipeline.scratch() as folder:
        spent = pipeline.ingest(folder, documents(batches), None, timeout=seconds, **FREE)
    return Backfilled(batches, spent.wall, spent.cpu)


def documents(batches: int) -> list[Path]:
    return [papers.digital(1, f"batch-{number}") for number in range(batches)]


def from_ui(batches: int, seconds: float) -> Backfilled:
    with pipeline.scratch() as folder:
        data = folder / "data"
        names = written(data, batches)
        with dev(data, **FREE) as running:
            before, cores, started = cpu(running.process.pid), psutil.cpu_times(), time.monotonic()
            launch(running, names)
            while time.monotonic() - started < seconds and not all_over(running, batches):
                time.sleep(1)  # each look costs the web server some CPU, which is in the figure
            spent, wall = cpu(running.process.pid) - before, time.monotonic() - started
            busy = busy_since(cores)
            found = running.ask(RUNS)["runsOrError"]["results"]
    if failed := [run for run in found if run["status"] in OVER - {"SUCCESS"}]:
        raise RuntimeError(f"{len(failed)} of {len(found)} runs failed: look at one with `make dev`")
    runs = tuple(run_of(run["stats"]) for run in found if run["status"] == "SUCCESS")
    if not runs:
        raise RuntimeError(f"no run ended within {seconds:.0f} s")
    return Backfilled(len(runs), wall, spent, runs, busy)


def written(data: Path, batches: int) -> list[str]:
    """Uploads, batch lists and partitions, as `ingest` makes them, and no run: so the sensor leaves them alone."""
    settings = Settings().model_copy(
        update={"data": data, "lake": str(data / "lake"), "warehouse": str(data / "warehouse.duckdb")}
    )
    lake = wiring.lake(settings)
    found = sources.find(documents(batches), wiring.places(settings))
    uploads = [inbox.put(lake, source) for source in found.sources]
    with instance.instance(settings) as dagster:
        one_each = replace(wiring.intake(settings), limits=BatchLimits(1, settings.batch_bytes, batches))
        held = cutting.cut_all(lake, uploads, one_each, lambda names: requests.add_partitions(dagster, names))
    return sorted(batch.name for batch in held.values())


def launch(running: Dev, names: list[str]) -> None:
    selector = {"repositoryName": "__repository__", "repositoryLocationName": "ocr_pipeline"}
    asked = {
        "selector": {"partitionSetName": f"{JOB}_partition_set", "repositorySelector": selector},
        "partitionNames": names,
    }
    said = running.ask(LAUNCH, p=asked)["launchPartitionBackfill"]
    if said["__typename"] != "LaunchBackfillSuccess":
        raise RuntimeError(f"the backfill was refused: {said}")


def all_over(running: Dev, batches: int) -> bool:
    statuses = running.batches()
    return len(statuses) >= batches and all(status in OVER for status in statuses)


def busy_since(before: Any) -> float:
    """Share of all cores' time since `before` (`psutil.cpu_times()`) that was used, by whomever."""
    spent = [now - then for now, then in zip(psutil.cpu_times(), before, strict=True)]
    idle = psutil.cpu_times().idle - before.idle + psutil.cpu_times().iowait - before.iowait
    return 1 - idle / sum(spent)


def run_of(stats: dict[str, Any]) -> Run:
    return Run(*(float(stats[name]) for name in ("enqueuedTime", "launchTime", "startTime", "endTime")))


def held_by(done: Backfilled, cores: int) -> tuple[dict[str, float], str]:
    """Where the time of a backfill goes, and the one thing that would have to change for more runs a minute."""
    span = max(run.ended for run in done.runs) - min(run.queued for run in done.runs)
    at_once = sum(run.ended - run.launched for run in done.runs) / span
    stages = {
        "until the first run was queued and launched, s": min(r.launched for r in done.runs)
        - min(r.queued for r in done.runs),
        "launch to start (a new process imports Dagster and the pipeline), median s": statistics.median(
            r.started - r.launched for r in done.runs
        ),
        "start to end (Dagster's run and the work), median s": statistics.median(
            r.ended - r.started for r in done.runs
        ),
        "runs at once, mean": at_once,
        "share of all cores that it used": done.cpu / (done.wall * cores),
        "share of all cores that anybody used": done.busy,
    }
    if done.busy > 0.85:
        why = f"the CPU: each run is a new process, {done.cpu_a_batch:.1f} CPU s a batch on {cores} cores"
        if done.cpu / (done.wall * cores) < 0.7:
            why += ", which others used too"
    elif at_once > 1.7:  # dagster.yaml: max_concurrent_runs
        why = "max_concurrent_runs = 2 in dagster.yaml: both places are taken and the cores are not"
    else:
        why = "the run queue's tick: places are free while runs wait to be launched"
    return stages, why


if __name__ == "__main__":
    main()
