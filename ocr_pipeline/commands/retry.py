"""`ocr-pipeline retry`: asks again for the pages that failed for some reasons."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import click
import dagster as dg

from ocr_pipeline import wiring
from ocr_pipeline.commands.counted import counted
from ocr_pipeline.commands.display import Display
from ocr_pipeline.commands.running import RunFailed, run_batches
from ocr_pipeline.commands.summary import Summary, show, summarise
from ocr_pipeline.commands.terminal import say_wait, terminal
from ocr_pipeline.flow import published
from ocr_pipeline.intake import cutting
from ocr_pipeline.lake import keys
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.records import REASONS, Batch, DocumentResult, Reason
from ocr_pipeline.runs import instance, reaping, requests
from ocr_pipeline.settings import Settings
from ocr_pipeline.upkeep.retry import RetryPlan, ask_again, follow_ups

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class _Age(click.ParamType[timedelta]):
    name = "age"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        match = re.fullmatch(r"(\d{1,5})([mhdw])", value)
        if not match:
            self.fail("give a number and a unit: 30m, 12h, 7d, 2w", param, ctx)
        return timedelta(**{_UNITS[match[2]]: int(match[1])})


@click.command("retry")
@click.option(
    "--reason",
    "reasons",
    multiple=True,
    required=True,
    type=click.Choice([*map(str, REASONS)]),
    metavar="REASON",
    help="As `ocr.failed_pages` and the README list them; may be given several times.",
)
@click.option("--since", type=_Age(), help="Only what failed this long ago or less: 30m, 12h, 7d, 2w.")
@click.option("--leave-to-sensor", is_flag=True, help="Only write the batch lists; the running sensor does the rest.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, and nothing else there.")
def command(reasons: tuple[str, ...], since: timedelta | None, leave_to_sensor: bool, as_json: bool) -> int:
    """Ask again for the pages that failed for these reasons.

    In the same documents it also asks for pages that failed through no fault of theirs (`backend_unavailable`,
    `misconfigured`, `image_gone`). Pages that have their text keep it. Exit codes as for `ingest`; `--json` prints the
    object of `ingest` (of what was read here: empty with --leave-to-sensor) and `asked`: {documents, pages, left_out}.
    """
    settings = Settings()
    lake, dagster = wiring.lake(settings), instance.instance(settings, captures_output=False)
    warehouse = wiring.warehouse(settings, on_wait=say_wait)
    reaping.reap(dagster, settings.claims)
    plan = ask_again(
        lake,
        warehouse,
        [Reason(reason) for reason in reasons],
        since=datetime.now(UTC) - since if since is not None else None,
        limits=wiring.batch_limits(settings),
        # the sensor takes a list without a partition for one that nobody runs
        announce=lambda names: None if leave_to_sensor else requests.add_partitions(dagster, names),
        intake=lambda: cutting.intake_lock(settings.data),
    )
    err = terminal(stderr=True)
    err.print(
        f"asked again: {counted(plan.pages, 'page')} of {counted(plan.documents, 'document')}, "
        f"in {counted(len(plan.batches), 'batch')}"
    )
    if plan.gone:
        err.print(
            f"left out: {counted(plan.gone, 'document')} whose upload was replaced or deleted, or it or its batch list "
            "cannot be read"
        )
    if leave_to_sensor or not plan.batches:
        if as_json:
            _print(plan, summarise([], [batch.name for batch in plan.batches], 0.0))
        return 0
    started = datetime.now(UTC)
    try:
        with Display(err, plan.documents) as display:
            done = _run(settings, dagster, lake, plan, display)
    except RunFailed as error:
        click.echo(f"Error: {error}\nThe pages that were read are kept; run the same command again.", err=True)
        return 1
    seconds = (datetime.now(UTC) - started).total_seconds()
    summary = summarise(_results(lake, plan, done), [batch.name for batch in done], seconds)
    if as_json:
        _print(plan, summary)
    else:
        show(summary, terminal())
    return summary.exit_code


def _run(
    settings: Settings, dagster: dg.DagsterInstance, lake: Storage, plan: RetryPlan, display: Display
) -> list[Batch]:
    """Runs the batches of the plan, and the follow-ups that other retries of the same documents have made necessary
    meanwhile. Raises RunFailed."""
    started = datetime.now(UTC)
    done: list[Batch] = []
    todo = list(plan.batches)
    while todo:
        run_batches(settings, dagster, todo, display)
        done += todo
        todo = follow_ups(lake, done, started)
        requests.add_partitions(dagster, [batch.name for batch in todo])
    return done


def _results(lake: Storage, plan: RetryPlan, done: Sequence[Batch]) -> list[DocumentResult]:
    """What became of the documents of the plan: of each what the last batch says."""
    asked = {keys.document_id(upload.key) for batch in plan.batches for upload in batch.uploads}
    results = {
        result.document.document_id: result
        for batch in sorted(done, key=lambda batch: batch.name)
        for result in published.outcomes(lake, batch)
    }
    return [result for document_id, result in results.items() if document_id in asked]


def _print(plan: RetryPlan, summary: Summary) -> None:
    asked = {"documents": plan.documents, "pages": plan.pages, "left_out": plan.gone}
    click.echo(json.dumps({**summary.as_json(), "asked": asked}, ensure_ascii=False))
