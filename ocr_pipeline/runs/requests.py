"""How a run of a batch is asked for: its tags, its request, its partition. What sensor, schedule and command share."""

from __future__ import annotations

from collections.abc import Iterable

import dagster as dg

from ocr_pipeline.lake.storage import ObjectUnreadable
from ocr_pipeline.partitions import BATCHES
from ocr_pipeline.records import Batch
from ocr_pipeline.runs.liveness import stamp

SENSOR = "upload_sensor"

RUN_KEY_TAG = "dagster/run_key"
SENSOR_TAG = "dagster/sensor_name"
PRIORITY_TAG = "dagster/priority"
URGENT_PRIORITY = "10"
DOCUMENTS_TAG = "ocr_pipeline/documents"


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


def request_of(name: str, batch: Batch | ObjectUnreadable, run_key: str | None = None) -> dg.RunRequest:
    """The request for the batch of that name. Where its list cannot be read, too: the run fails and says why, in
    Dagster and to the webhook for alerts."""
    if isinstance(batch, Batch):
        return request(batch, run_key)
    return dg.RunRequest(run_key=run_key or name, partition_key=name)


def without_partition(instance: dg.DagsterInstance, names: Iterable[str]) -> list[str]:
    return [name for name in names if not instance.has_dynamic_partition(BATCHES.name or "", name)]


def add_partitions(instance: dg.DagsterInstance, names: Iterable[str]) -> None:
    fresh = without_partition(instance, names)
    if fresh:
        instance.add_dynamic_partitions(BATCHES.name or "", fresh)
