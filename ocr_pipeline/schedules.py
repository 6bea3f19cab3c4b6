"""Schedules: `reconcile`, the net under the sensor (whole inbox against all batch lists, all lists against all runs),
and `forget_daily`, retention.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter

from ocr_pipeline import wiring
from ocr_pipeline.intake import sweeping
from ocr_pipeline.jobs import process_batch
from ocr_pipeline.lake import batches
from ocr_pipeline.runs import claims, history, requests
from ocr_pipeline.settings import Settings
from ocr_pipeline.upkeep import retention

MAX_FAILED_RUNS = 5
"""A batch that failed as often is left to a person: a schedule that asks for ever once made 368,000 failed runs
(mitodl, `dagster.md` section 2)."""


@dg.schedule(
    name="reconcile",
    job=process_batch,
    cron_schedule="*/10 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Cuts uploads that the sensor missed, and asks for a run of each batch that has a list but neither a "
    "finished nor a live run.",
)
def reconcile(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
    settings = Settings()
    lake = wiring.lake(settings)
    swept = sweeping.sweep_everything(lake, settings)
    claimed = claims.claimed(settings.claims)  # a command reads batches ahead of their runs
    waiting = [name for name in history.unfinished(context.instance, swept.names) if name not in claimed]
    requests.add_partitions(context.instance, waiting)
    asked = 0
    for name in waiting:
        if asked == settings.batches_per_tick:
            break
        failed = context.instance.get_runs_count(
            RunsFilter(tags={history.PARTITION_TAG: name}, statuses=[DagsterRunStatus.FAILURE])
        )
        if failed >= MAX_FAILED_RUNS:
            context.log.warning(f"batch {name} failed {failed} times: look at its last run, then start it by hand")
            continue
        last = history.last_run(context.instance, name)
        if last is not None and last[1] == DagsterRunStatus.CANCELED.value:
            continue  # a person ended it; a person starts it
        asked += 1
        # the plain run key is used up by the sensor's request; each failed run allows one more
        yield requests.request(batches.read(lake, name), run_key=f"{name}#reconcile-{failed}")
    if not asked:
        yield dg.SkipReason(f"{len(swept.names)} batches, all finished or at work")


@dg.op(description="Deletes what OCR_KEEP_IMAGES_DAYS and OCR_KEEP_RECIPES_DAYS say is too old.")
def forget_what_is_old(context: dg.OpExecutionContext) -> None:
    settings = Settings()
    lake = wiring.lake(settings)
    now = datetime.now(UTC)
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


@dg.job(description="Retention: off unless OCR_KEEP_IMAGES_DAYS or OCR_KEEP_RECIPES_DAYS is set.")
def forget() -> None:
    forget_what_is_old()


def forget_daily(settings: Settings) -> dg.ScheduleDefinition:
    wanted = settings.keep_images_days or settings.keep_recipes_days
    return dg.ScheduleDefinition(
        name="forget_daily",
        job=forget,
        cron_schedule="30 3 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING if wanted else dg.DefaultScheduleStatus.STOPPED,
    )
