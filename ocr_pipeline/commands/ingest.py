"""`ocr-pipeline ingest`: PDFs into the inbox, batches, and through Dagster to the tables, in this process."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import click
from rich.console import Console

from ocr_pipeline import wiring
from ocr_pipeline.commands.display import Display
from ocr_pipeline.commands.running import RunFailed, run_batches
from ocr_pipeline.commands.summary import Summary, show, summarise, terminal
from ocr_pipeline.flow import published
from ocr_pipeline.flow.pages import NOT_THE_PAGES_FAULT
from ocr_pipeline.intake import cutting, inbox
from ocr_pipeline.lake import keys
from ocr_pipeline.lake.storage import ObjectMissing, Storage
from ocr_pipeline.pdf.renderer import poppler_installed
from ocr_pipeline.records import Batch, DocumentResult, Upload
from ocr_pipeline.runs import history, instance, reaping, requests
from ocr_pipeline.settings import Settings


@click.command("ingest")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, and nothing else there.")
def command(paths: tuple[Path, ...], as_json: bool) -> int:
    """Put PDFs (files, folders) into the inbox and take them all the way to the tables.

    Run it again after a crash or a power cut: it goes on where it was, and asks for no page twice.
    Exit code 0: every page accounted for and none failed; 1: something failed or was rejected, and is listed;
    2: usage or configuration.
    """
    settings = Settings()
    console = terminal()
    try:
        summary = ingest(settings, paths, terminal(stderr=True))
    except inbox.SourceError as error:
        raise click.UsageError(str(error)) from error
    except RunFailed as error:
        click.echo(f"Error: {error}\nThe pages that were read are kept; run the same command again.", err=True)
        return 1
    if as_json:
        click.echo(json.dumps(summary.as_json(), ensure_ascii=False))
    else:
        show(summary, console)
    return summary.exit_code


def ingest(settings: Settings, paths: Sequence[Path], console: Console) -> Summary:
    """Everything the command does but its output. Raises SourceError, RunFailed, and the rooms' own errors."""
    started = time.monotonic()
    wiring.backends(settings)  # a configuration that cannot work is told before anything is copied
    wiring.warehouse(settings)
    lake = wiring.lake(settings)
    found, left_alone = inbox.sources(paths, settings.inbox)
    if left_alone:
        console.print(f"{left_alone} files that are not PDFs were left alone", highlight=False)
    if not poppler_installed():
        console.print("poppler is not installed: pages are drawn by PDFium alone (apt install poppler-utils)")

    for source in found:
        inbox.put(lake, source)
    dagster = instance.instance(settings)
    reaping.reap(dagster)
    with cutting.alone(settings.data):
        # as they stand now: another ingest of the same files may have put them there anew since
        uploads = [inbox.standing(lake, source.key) for source in found]
        # partitions before lists: the sensor takes a list without a partition for one that nobody runs
        cutting.cut(
            lake,
            uploads,
            replace(wiring.batch_limits(settings), batches=max(1, len(uploads))),
            inbox=settings.inbox,
            announce=lambda names: requests.add_partitions(dagster, names),
        )
    held = cutting.batches_of(lake, uploads)
    todo = _todo(lake, history.finished(dagster), held)
    requests.add_partitions(dagster, [batch.name for batch in todo])
    if todo:
        with Display(console, sum(len(batch.uploads) for batch in todo)) as display:
            run_batches(
                settings,
                dagster,
                todo,
                display,
                lambda name, run: display.say(f"batch {name}: waiting for run {run}, which is working on it"),
            )
    return summarise(results_of(lake, held), {batch.name for batch in held.values()}, time.monotonic() - started)


def _todo(lake: Storage, finished: Collection[str], held: dict[Upload, Batch]) -> list[Batch]:
    """The batches of these uploads that are not done, or have pages that no backend could be had for."""
    batches = {batch.name: batch for batch in held.values()}
    return [batch for batch in batches.values() if batch.name not in finished or _asks_again(lake, batch)]


def _asks_again(lake: Storage, batch: Batch) -> bool:
    try:
        results = published.outcomes(lake, batch)
    except ObjectMissing:
        return True
    return any(page.reason in NOT_THE_PAGES_FAULT for result in results for page in result.pages)


def results_of(lake: Storage, held: dict[Upload, Batch]) -> list[DocumentResult]:
    """What became of these uploads, each from the batch whose rows count."""
    wanted: dict[str, set[str]] = {}
    batches = {batch.name: batch for batch in held.values()}
    for upload, batch in held.items():
        wanted.setdefault(batch.name, set()).add(keys.document_id(upload.key))
    found = [
        result
        for name, batch in batches.items()
        for result in published.outcomes(lake, batch)
        if result.document.document_id in wanted[name]
    ]
    return sorted(found, key=lambda result: result.document.source_uri)
