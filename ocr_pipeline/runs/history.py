"""Which runs a batch has had, and what became of them, as Dagster's instance knows it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter

from ocr_pipeline.runs.liveness import HOST_TAG
from ocr_pipeline.runs.requests import DOCUMENTS_TAG

PARTITION_TAG = "dagster/partition"

LIVE = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]


def live_run(instance: dg.DagsterInstance, batch_name: str) -> str | None:
    """The id of a run of this batch that is queued or at work, or None."""
    runs = instance.get_runs(RunsFilter(tags={PARTITION_TAG: batch_name}, statuses=LIVE), limit=1)
    return runs[0].run_id if runs else None


def last_run(instance: dg.DagsterInstance, batch_name: str) -> tuple[str, str] | None:
    """Id and status of the newest run of this batch."""
    runs = instance.get_runs(RunsFilter(tags={PARTITION_TAG: batch_name}), limit=1)
    return (runs[0].run_id, runs[0].status.value) if runs else None


def describe_run(instance: dg.DagsterInstance, run_id: str) -> str:
    """The run for people who wait for it: its id, where its process is, and what to do when that machine is gone."""
    run = instance.get_run_by_id(run_id)
    host = run.tags.get(HOST_TAG) if run else None
    if host is None or host == socket.gethostname():
        return run_id
    return f"{run_id} on {host} (if that machine is gone, terminate the run in Dagster's UI)"


def busy(instance: dg.DagsterInstance) -> bool:
    """Whether runs are waiting for a place: then it is better to fill batches than to queue more small ones."""
    return instance.get_runs_count(RunsFilter(statuses=[DagsterRunStatus.QUEUED])) > 0


def waiting(instance: dg.DagsterInstance, documents_of: Callable[[str], int]) -> dict[str, tuple[int, int]]:
    """`{"queued" | "running": (batches, documents)}` of the batches whose run is not finished.

    `documents_of` counts the documents of a batch: Dagster's UI starts backfills whose runs carry no such tag.
    """
    found = {"queued": (0, 0), "running": (0, 0)}
    for run in instance.get_runs(RunsFilter(statuses=LIVE)):
        name = run.tags.get(PARTITION_TAG)
        if name is None:
            continue  # a job of another kind
        state = "queued" if run.status is DagsterRunStatus.QUEUED else "running"
        batches, documents = found[state]
        tagged = run.tags.get(DOCUMENTS_TAG)
        found[state] = (batches + 1, documents + (documents_of(name) if tagged is None else int(tagged)))
    return found


def at_work(instance: dg.DagsterInstance) -> set[str]:
    """The batches that a run is working on."""
    runs = instance.get_runs(RunsFilter(statuses=[DagsterRunStatus.STARTED]))
    return {name for run in runs if (name := run.tags.get(PARTITION_TAG)) is not None}


def finished(instance: dg.DagsterInstance) -> set[str]:
    """The batches whose rows were loaded at least once."""
    return instance.get_materialized_partitions(dg.AssetKey("documents"))


def unloaded(instance: dg.DagsterInstance, names: Iterable[str]) -> list[str]:
    """Of `names`, the batches whose rows were never loaded."""
    done = finished(instance)
    return [name for name in names if name not in done]


def ended_runs(instance: dg.DagsterInstance, batch_name: str) -> tuple[int, int]:
    """How many runs of this batch failed, and how many succeeded."""
    failed, succeeded = (
        instance.get_runs_count(RunsFilter(tags={PARTITION_TAG: batch_name}, statuses=[status]))
        for status in (DagsterRunStatus.FAILURE, DagsterRunStatus.SUCCESS)
    )
    return failed, succeeded
