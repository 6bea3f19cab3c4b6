"""Which runs a batch has, and how one is asked for: what sensor, schedule and command share about Dagster's runs."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter

from ocr_pipeline.jobs import SENSOR
from ocr_pipeline.liveness import Life, is_stamped, life_of, stamp
from ocr_pipeline.partitions import BATCHES
from ocr_pipeline.records import Batch

log = logging.getLogger(__name__)

PARTITION_TAG = "dagster/partition"
RUN_KEY_TAG = "dagster/run_key"
SENSOR_TAG = "dagster/sensor_name"
PRIORITY_TAG = "dagster/priority"
URGENT_PRIORITY = "10"
DOCUMENTS_TAG = "ocr_pipeline/documents"

LIVE = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]


def tags(batch: Batch) -> dict[str, str]:
    """Tags of a run of this batch: urgent ones go first in Dagster's queue."""
    found = {DOCUMENTS_TAG: str(len(batch.uploads))}
    return {**found, PRIORITY_TAG: URGENT_PRIORITY} if batch.urgent else found


def command_tags(batch: Batch, run_id: str) -> dict[str, str]:
    """The sensor's run key and name on the command's run: the sensor then skips the batch.

    The stamp is there from the start: a command that is killed before its run has begun must not leave it for ever.
    """
    return {**tags(batch), **stamp(run_id), RUN_KEY_TAG: batch.name, SENSOR_TAG: SENSOR}


def request(batch: Batch, run_key: str | None = None) -> dg.RunRequest:
    return dg.RunRequest(run_key=run_key or batch.name, partition_key=batch.name, tags=tags(batch))


def live_run(instance: dg.DagsterInstance, batch_name: str) -> str | None:
    """The id of a run of this batch that is queued or at work, or None."""
    runs = instance.get_runs(RunsFilter(tags={PARTITION_TAG: batch_name}, statuses=LIVE), limit=1)
    return runs[0].run_id if runs else None


def last_run(instance: dg.DagsterInstance, batch_name: str) -> tuple[str, str] | None:
    """Id and status of the newest run of this batch."""
    runs = instance.get_runs(RunsFilter(tags={PARTITION_TAG: batch_name}), limit=1)
    return (runs[0].run_id, runs[0].status.value) if runs else None


def busy(instance: dg.DagsterInstance) -> bool:
    """Whether runs are waiting for a place: then it is better to fill batches than to queue more small ones."""
    return instance.get_runs_count(RunsFilter(statuses=[DagsterRunStatus.QUEUED])) > 0


def waiting(instance: dg.DagsterInstance) -> dict[str, tuple[int, int]]:
    """`{"queued" | "running": (batches, documents)}` of the runs that are not finished."""
    found = {"queued": (0, 0), "running": (0, 0)}
    for run in instance.get_runs(RunsFilter(statuses=LIVE)):
        state = "queued" if run.status is DagsterRunStatus.QUEUED else "running"
        batches, documents = found[state]
        found[state] = (batches + 1, documents + int(run.tags.get(DOCUMENTS_TAG, "0")))
    return found


def finished(instance: dg.DagsterInstance) -> set[str]:
    """The batches whose rows were loaded at least once."""
    return instance.get_materialized_partitions(dg.AssetKey("documents"))


def unloaded(instance: dg.DagsterInstance, names: Iterable[str]) -> list[str]:
    """Of `names`, the batches whose rows were never loaded."""
    done = finished(instance)
    return [name for name in names if name not in done]


def unfinished(instance: dg.DagsterInstance, names: Iterable[str]) -> list[str]:
    """Of `names`, the batches with neither a finished load nor a live run."""
    return [name for name in unloaded(instance, names) if live_run(instance, name) is None]


def without_partition(instance: dg.DagsterInstance, names: Iterable[str]) -> list[str]:
    return [name for name in names if not instance.has_dynamic_partition(BATCHES.name or "", name)]


def add_partitions(instance: dg.DagsterInstance, names: Iterable[str]) -> None:
    fresh = without_partition(instance, names)
    if fresh:
        instance.add_dynamic_partitions(BATCHES.name or "", fresh)


NO_DAEMON_AFTER = timedelta(seconds=120)
"""Daemons report every 30 s; one that was silent for as long is gone."""

WAITING = [DagsterRunStatus.QUEUED, DagsterRunStatus.NOT_STARTED, DagsterRunStatus.STARTING]


def reap(instance: dg.DagsterInstance) -> list[str]:
    """Ends the runs that nobody works on, and frees what they held; returns their ids.

    For the command, which may run where no daemon does it: runs of this machine whose process is gone, and runs that
    wait for a daemon when there is none.
    """
    now = datetime.now(UTC)
    daemon = _has_daemon(instance, now)
    ended = []
    for record in instance.get_run_records(RunsFilter(statuses=LIVE)):
        run = record.dagster_run
        started = datetime.fromtimestamp(record.start_time, UTC) if record.start_time else None
        if run.status in WAITING and not is_stamped(run.run_id, run.tags):
            dead, why = not daemon, "It waited for a Dagster daemon, and none is running."
        else:
            dead = life_of(run.run_id, run.tags, started, now) is Life.DEAD
            why = "The process that worked on this run is gone."
        if dead:
            log.warning("run %s ended: %s", run.run_id, why)
            instance.report_run_failed(run, why)
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
            ended.append(run.run_id)
    return ended


def _has_daemon(instance: dg.DagsterInstance, now: datetime) -> bool:
    beats = instance.get_daemon_heartbeats().values()
    return any(now.timestamp() - beat.timestamp < NO_DAEMON_AFTER.total_seconds() for beat in beats)
