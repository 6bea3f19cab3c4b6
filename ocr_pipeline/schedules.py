"""Schedules: `reconcile`, the net under the sensor (whole inbox against all batch lists, all lists against all runs),
`index_daily`, the full-text index, and `forget_daily`, retention.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster import DagsterRunStatus

from ocr_pipeline import wiring
from ocr_pipeline.intake import sweeping, unloaded
from ocr_pipeline.jobs import process_batch
from ocr_pipeline.lake import batches
from ocr_pipeline.lake.opening import is_local
from ocr_pipeline.lake.storage import Storage, StorageError
from ocr_pipeline.runs import claims, history, requests
from ocr_pipeline.settings import Settings
from ocr_pipeline.upkeep import retention
from ocr_pipeline.warehouse import search_index
from ocr_pipeline.warehouse.errors import WarehouseError

MAX_FAILED_RUNS = 5
"""A batch that failed as often is left to a person: a schedule that asks for ever once made 368,000 failed runs
(mitodl, `dagster.md` section 2)."""

MAX_LOADS = 20
"""The same for a batch that is loaded again and again and never there afterwards."""

TICK_SECONDS = 40.0
"""From the start of a tick of `reconcile`; then it looks no further for lost batches. Dagster gives it 60 s, and what
it has asked for counts only when it ends within them."""

WAIT_FOR_TABLES = 5.0
"""Seconds; a DuckDB file that somebody works with is looked at ten minutes later."""


LEFT_OVER = timedelta(days=1)
"""A hidden file of a local lake that is as old is nobody's any more: no object takes so long to write."""

YOUNG = timedelta(minutes=2)
"""A batch list as young may be the sensor's, which has written it and not yet asked for its run: a tick and what the
daemon does after it take less. Nothing is lost: the sensor looks again at young lists, and the next sweep is near."""


def reconcile(settings: Settings, young: timedelta = YOUNG) -> dg.ScheduleDefinition:
    """The net under the sensor, for the lake and the limits of these settings."""

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
        fresh = {batch.name for batch in swept.batches}
        now = datetime.now(UTC)
        settled = [name for name, written in swept.lists.items() if name in fresh or now - written > young]
        claimed = claims.claimed(settings.claims)  # a command reads batches ahead of their runs
        never = history.unloaded(instance, settled)
        asked = 0
        for request in _requests(context, lake, [name for name in never if name not in claimed], most):
            asked += 1
            yield request
        # last, and only for the time that is left: what was just cut waits for no search in old batches
        if asked < most:
            gone = _lost(context, lake, settings, set(settled).difference(never, claimed), most - asked, out_of_time)
            for request in _requests(context, lake, gone, most - asked):
                asked += 1
                yield request
        if not asked:
            yield dg.SkipReason(f"{swept.note}; every batch that is not young is finished or at work")

    return ask


def _requests(
    context: dg.ScheduleEvaluationContext, lake: Storage, names: Iterable[str], most: int
) -> Iterator[dg.RunRequest]:
    """A request for each of these batches that no run works on and no person ended; at most `most`."""
    instance, asked = context.instance, 0
    for name in names:
        if asked == most:
            return
        if history.live_run(instance, name) is not None:
            continue
        failed, succeeded = history.ended_runs(instance, name)
        if failed >= MAX_FAILED_RUNS or succeeded >= MAX_LOADS:
            context.log.warning(
                f"batch {name} failed {failed} times and was loaded {succeeded} times, and its rows are not in "
                "the tables: look at its last run, then start it by hand"
            )
            continue
        last = history.last_run(instance, name)
        if last is not None and last[1] == DagsterRunStatus.CANCELED.value:
            continue  # a person ended it; a person starts it
        requests.add_partitions(instance, [name])
        asked += 1
        # the plain run key is used up by the sensor's request; each run that ended allows one more
        yield requests.request(batches.read(lake, name), run_key=f"{name}#reconcile-{failed + succeeded}")


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


@dg.op(
    description="Deletes what is older than OCR_KEEP_IMAGES_DAYS and OCR_KEEP_RECIPES_DAYS allow.",
)
def forget_what_is_old(
    context: dg.OpExecutionContext, settings: dg.ResourceParam[Settings], run_stamp: dg.ResourceParam[None]
) -> None:
    lake = wiring.lake(settings)
    now = datetime.now(UTC)
    if leftovers := lake.remove_leftovers("", now - LEFT_OVER):
        context.log.info(f"{leftovers} files that killed runs had not written to the end deleted")
    if settings.keep_images_days:
        gone = retention.forget_images(lake, timedelta(days=settings.keep_images_days), now)
        context.log.info(f"{gone} page images deleted")
    if settings.keep_recipes_days:
        in_use = retention.recipes_in_use(lake)
        if not in_use:
            # the recipe in force is no witness: it is known also where OCR_LAKE is the wrong one
            context.log.warning(f"no batch in {lake.uri} has published a text: no transcript is deleted")
            return
        in_use.add(wiring.recipe_in_force(settings))
        gone = retention.forget_recipes(lake, timedelta(days=settings.keep_recipes_days), now, in_use)
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
