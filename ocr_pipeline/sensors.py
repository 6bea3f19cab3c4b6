"""The sensor for new uploads: a few lines around `intake.tick`, which decides."""

import dagster as dg

from ocr_pipeline import wiring
from ocr_pipeline.intake.tick import run_tick
from ocr_pipeline.jobs import process_batch
from ocr_pipeline.lake import batches
from ocr_pipeline.lake.storage import ObjectUnreadable
from ocr_pipeline.partitions import BATCHES
from ocr_pipeline.records import Batch
from ocr_pipeline.runs import history, requests
from ocr_pipeline.settings import Settings


def upload_sensor(settings: Settings) -> dg.SensorDefinition:
    @dg.sensor(
        name=requests.SENSOR,
        job=process_batch,
        minimum_interval_seconds=settings.sensor_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Cuts new uploads into batches and requests a run of each. The batch list is written before the "
        "cursor moves; the same uploads always make the same batch and the same run key.",
    )
    def sense(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        lake = wiring.lake(settings)
        with wiring.queue(settings) as queue:
            found = run_tick(
                lake, wiring.intake(settings), context.cursor, hold_partial=history.busy(context.instance), queue=queue
            )
        cut: dict[str, Batch | ObjectUnreadable] = {batch.name: batch for batch in found.batches}
        # a tick that died between the list and the run request left a list without a partition
        orphans = requests.without_partition(context.instance, [name for name in found.recent if name not in cut])
        fresh = {**cut, **dict(batches.read_each(lake, orphans))}
        names = list(fresh)
        for error in found.unreadable:
            context.log.error(error)
        return dg.SensorResult(
            run_requests=[requests.request_of(name, batch) for name, batch in fresh.items()],
            dynamic_partitions_requests=[BATCHES.build_add_request(names)] if names else [],
            cursor=found.cursor,
            asset_events=[
                dg.AssetMaterialization(
                    "uploads",
                    partition=batch.name,
                    metadata={
                        "documents": len(batch.uploads),
                        "bytes": sum(upload.size for upload in batch.uploads),
                        "urgent": batch.urgent,
                    },
                )
                for batch in fresh.values()
                if isinstance(batch, Batch)
            ],
            skip_reason=None if fresh else dg.SkipReason("; ".join([found.note, *found.unreadable])),
        )

    return sense
