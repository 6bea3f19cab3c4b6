"""Schedules: `reconcile`, the safety net of the sensor (the whole inbox against all batch lists, all lists against all
runs), `index_daily`, the full-text index, and `forget_daily`, retention.
"""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg

from ocr_pipeline import wiring
from ocr_pipeline.intake import sweeping, unloaded
from ocr_pipeline.jobs import forget, index_pages, process_batch
from ocr_pipeline.lake.opening import is_local
from ocr_pipeline.lake.storage import Storage, StorageError
from ocr_pipeline.runs import claims, history, requests, reruns
from ocr_pipeline.settings import Settings
from ocr_pipeline.warehouse.errors import WarehouseError

TICK_SECONDS = 40.0
"""After this much of a tick, `reconcile` looks no further for lost batches. Dagster gives a tick 60 s, and the runs it
has requested count only if it ends in time."""

WAIT_FOR_TABLES = 5.0
"""Seconds. If a DuckDB file is in use for longer, it is looked at by the next tick, ten minutes later."""

YOUNG = timedelta(minutes=2)
"""A batch list that is younger than this is left alone: the sensor may have written it and not requested its run yet,
which takes less time than this. Nothing is lost: the sensor looks at young lists again, and the next sweep is near."""


def reconcile(settings: Settings, young: timedelta = YOUNG) -> dg.ScheduleDefinition:
    """The safety net of the sensor, for the lake and the limits of these settings."""

    @dg.schedule(
        name="reconcile",
        job=process_batch,
        cron_schedule="*/10 * * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Cuts uploads that the sensor missed, marks those that were deleted, and requests a run of each "
        "batch that has neither a finished nor a live run, or whose rows are no longer in the tables.",
    )
    def ask(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        deadline = time.monotonic() + TICK_SECONDS

        def out_of_time() -> bool:
            return time.monotonic() > deadline

        lake, instance, most = wiring.lake(settings), context.instance, settings.batches_per_tick
        # partitions before lists: the sensor takes a list without a partition for one that nobody runs
        swept = sweeping.sweep_everything(
            lake, wiring.intake(settings), announce=lambda names: requests.add_partitions(instance, names)
        )
        for error in swept.unreadable:
            context.log.error(error)
        fresh = {batch.name for batch in swept.batches}
        now = datetime.now(UTC)
        settled = [name for name, written in swept.lists.items() if name in fresh or now - written > young]
        claimed = claims.claimed(settings.claims)  # a command reads batches ahead of their runs
        never = history.unloaded(instance, settled)
        asked = 0
        forgotten = [name for name in never if name not in claimed]
        for request in reruns.wanted(instance, lake, forgotten, most, context.log):
            asked += 1
            yield request
        # last, and only for the time that is left: what was just cut waits for no search in old batches
        if asked < most:
            gone = _lost(context, lake, settings, set(settled).difference(never, claimed), most - asked, out_of_time)
            for request in reruns.wanted(instance, lake, gone, most - asked, context.log):
                asked += 1
                yield request
        if not asked:
            done = "every batch that is not young is finished or at work"
            yield dg.SkipReason("; ".join([swept.note, done, *swept.unreadable]))

    return ask


def _lost(
    context: dg.ScheduleEvaluationContext,
    lake: Storage,
    settings: Settings,
    finished: set[str],
    most: int,
    out_of_time: Callable[[], bool],
) -> list[str]:
    """Batches that were loaded once and have no row in the tables of today."""
    try:
        warehouse = wiring.warehouse(settings, wait_seconds=WAIT_FOR_TABLES)
        return unloaded.lost(lake, warehouse, wiring.intake(settings), finished, most, out_of_time)
    except (WarehouseError, StorageError) as error:
        context.log.info(f"the tables were not looked at this time: {error}")
        return []


index_daily = dg.ScheduleDefinition(
    name="index_daily",
    job=index_pages,
    cron_schedule="0 4 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)


def forget_daily(settings: Settings) -> dg.ScheduleDefinition:
    wanted = settings.keep_images_days or settings.keep_recipes_days or is_local(settings.lake)
    return dg.ScheduleDefinition(
        name="forget_daily",
        job=forget,
        cron_schedule="30 3 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING if wanted else dg.DefaultScheduleStatus.STOPPED,
    )
