"""The net under the sensor: `reconcile` compares the whole inbox with all batch lists, and all lists with all runs."""

from collections.abc import Iterator

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter

from ocr_pipeline import intake, runs, wiring
from ocr_pipeline.jobs import process_batch
from ocr_pipeline.lake import batches
from ocr_pipeline.settings import Settings

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
    swept = intake.sweep_everything(lake, settings)
    waiting = runs.unfinished(context.instance, swept.names)
    runs.add_partitions(context.instance, waiting)
    asked = 0
    for name in waiting[: settings.batches_per_tick]:
        failed = context.instance.get_runs_count(
            RunsFilter(tags={runs.PARTITION_TAG: name}, statuses=[DagsterRunStatus.FAILURE])
        )
        if failed >= MAX_FAILED_RUNS:
            context.log.warning(f"batch {name} failed {failed} times: look at its last run, then start it by hand")
            continue
        asked += 1
        # the plain run key is used up by the sensor's request; each failed run allows one more
        yield runs.request(batches.read(lake, name), run_key=f"{name}#reconcile-{failed}")
    if not asked:
        yield dg.SkipReason(f"{len(swept.names)} batches, all finished or at work")
