"""The jobs: one batch all the way (sensor, schedule, backfill, command), and asking again for failed pages."""

from datetime import UTC, datetime, timedelta

import dagster as dg
from pydantic import Field

from ocr_pipeline import wiring
from ocr_pipeline.records import Reason
from ocr_pipeline.settings import Settings
from ocr_pipeline.upkeep.retry import ask_again

SENSOR = "upload_sensor"

process_batch = dg.define_asset_job(
    "process_batch",
    selection=dg.AssetSelection.all() - dg.AssetSelection.assets("uploads"),
    description="From the uploads of one batch to rows in the warehouse.",
)


class RetryConfig(dg.Config):
    """Which failures are asked again."""

    reasons: list[str] = Field(description="reason codes, such as repetition or truncated")
    since_days: float | None = Field(default=None, description="only what failed in this many last days; empty: all")


@dg.op
def write_retry_batches(
    context: dg.OpExecutionContext,
    config: RetryConfig,
    settings: dg.ResourceParam[Settings],
    run_stamp: dg.ResourceParam[None],  # without it a run of two minutes is taken for dead
) -> None:
    """Writes batch lists of only the documents with such failures; the sensor requests their runs at its next tick."""
    plan = ask_again(
        wiring.lake(settings),
        wiring.warehouse(settings),
        [Reason(reason) for reason in config.reasons],
        since=datetime.now(UTC) - timedelta(days=config.since_days) if config.since_days is not None else None,
        limits=wiring.batch_limits(settings),
    )
    context.add_output_metadata(
        {
            "pages": plan.pages,
            "documents": plan.documents,
            "left_out": plan.gone,
            "batches": dg.MetadataValue.md("\n".join(f"- {batch.name}" for batch in plan.batches) or "none"),
        }
    )


@dg.job(
    description="Reads pages again that failed for the given reasons; launch it with "
    "`ops: {write_retry_batches: {config: {reasons: [repetition], since_days: 7}}}`."
)
def retry_failed() -> None:
    write_retry_batches()
