"""The jobs: a batch all the way (sensor, schedule, backfill, command), failed pages again, retention, search index."""

from datetime import UTC, datetime, timedelta

import dagster as dg
from pydantic import Field

from ocr_pipeline import wiring
from ocr_pipeline.intake import cutting
from ocr_pipeline.lake.storage import Storage, StorageError
from ocr_pipeline.records import REASONS, Reason
from ocr_pipeline.settings import Settings
from ocr_pipeline.upkeep import retention
from ocr_pipeline.upkeep.retry import ask_again
from ocr_pipeline.warehouse import search_index

LEFT_OVER = timedelta(days=1)
"""A hidden file of a local lake that is as old is nobody's any more: no object takes so long to write."""

process_batch = dg.define_asset_job(
    "process_batch",
    selection=dg.AssetSelection.all() - dg.AssetSelection.assets("uploads"),
    description="From the uploads of one batch to rows in the warehouse.",
)


class RetryConfig(dg.Config):
    """Which failures are asked again."""

    reasons: list[str] = Field(description="reason codes, such as repetition or truncated")
    since_days: float | None = Field(
        default=None, ge=0, le=36_525, description="only what failed in this many last days; empty: all"
    )


def _known(names: list[str]) -> list[Reason]:
    """These reasons. The Launchpad takes any text, and scaffolds an empty list."""
    unknown = [name for name in names if name not in {*map(str, REASONS)}]
    if unknown or not names:
        wrong = f"no such reason: {', '.join(unknown)}" if unknown else "`reasons` names none"
        raise dg.Failure(f"{wrong}; known are {', '.join(map(str, REASONS))}", allow_retries=False)
    return [Reason(name) for name in names]


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
        _known(config.reasons),
        since=datetime.now(UTC) - timedelta(days=config.since_days) if config.since_days is not None else None,
        limits=wiring.batch_limits(settings),
        intake=lambda: cutting.intake_lock(settings.data),
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


@dg.op(
    description="Deletes what is older than OCR_KEEP_IMAGES_DAYS and OCR_KEEP_RECIPES_DAYS allow.",
)
def forget_what_is_old(
    context: dg.OpExecutionContext, settings: dg.ResourceParam[Settings], run_stamp: dg.ResourceParam[None]
) -> None:
    lake = wiring.lake(settings)
    now = datetime.now(UTC)
    if leftovers := lake.remove_leftovers("", now - LEFT_OVER):
        context.log.info(f"{leftovers} files deleted that killed runs had left half-written")
    failed: StorageError | None = None
    if settings.keep_images_days:
        try:
            gone = retention.forget_images(lake, timedelta(days=settings.keep_images_days), now)
            context.log.info(f"{gone} page images deleted")
        except StorageError as error:  # keeps no transcript from being forgotten
            failed = error
    if settings.keep_recipes_days:
        _forget_recipes(context, settings, lake, timedelta(days=settings.keep_recipes_days), now)
    if failed:
        raise failed


def _forget_recipes(
    context: dg.OpExecutionContext, settings: Settings, lake: Storage, older_than: timedelta, now: datetime
) -> None:
    in_use = retention.recipes_in_use(lake)
    if not in_use:
        # the recipe in force is no witness: it is known also where OCR_LAKE is the wrong one
        context.log.warning(f"no batch in {lake.uri} has published a text: no transcript is deleted")
        return
    in_use.add(wiring.recipe_in_force(settings))
    gone = retention.forget_recipes(lake, older_than, now, in_use)
    context.log.info(f"{gone} transcripts of old recipes deleted, those of {', '.join(sorted(in_use))} kept")


@dg.job(
    description="Deletes files that killed runs left half-written; also page images and transcripts of old recipes "
    "where OCR_KEEP_IMAGES_DAYS or OCR_KEEP_RECIPES_DAYS is set."
)
def forget() -> None:
    forget_what_is_old()


@dg.op(
    description="Rebuilds the full-text index of the pages where there are enough of them and DuckDB's fts is "
    "installed.",
)
def make_the_index(
    context: dg.OpExecutionContext, settings: dg.ResourceParam[Settings], run_stamp: dg.ResourceParam[None]
) -> None:
    warehouse = wiring.warehouse(settings)
    if not search_index.is_worth_it(warehouse):
        context.log.info(f"fewer than {search_index.WORTH_FROM} pages: a search reads them all, no index is made")
        return
    try:
        pages = search_index.build_search_index(warehouse)
    except search_index.NoFullTextSearch as error:
        context.log.warning(str(error))
    else:
        context.log.info(f"the full-text index knows {pages} pages")


@dg.job(description="Rebuilds the full-text index for `ocr-pipeline search`; it pays off from 100,000 pages on.")
def index_pages() -> None:
    make_the_index()
