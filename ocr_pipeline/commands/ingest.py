"""`ocr-pipeline ingest`: PDFs into the inbox, batches, and through Dagster to the tables, in this process."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping
from contextlib import closing
from pathlib import Path

import click
from rich.console import Console

from ocr_pipeline import wiring
from ocr_pipeline.commands.display import Counter, Display
from ocr_pipeline.commands.running import RunFailed, run_batches
from ocr_pipeline.commands.summary import Failure, Summary, show, summarise
from ocr_pipeline.commands.terminal import say_wait, terminal
from ocr_pipeline.flow import published
from ocr_pipeline.flow.pages import NOT_THE_PAGES_FAULT
from ocr_pipeline.intake import cutting, inbox, sources, unloaded
from ocr_pipeline.intake.sources import Found, NotTaken
from ocr_pipeline.lake import keys
from ocr_pipeline.lake.storage import ObjectMissing, ObjectUnreadable, Storage, StorageError, parallel_map
from ocr_pipeline.pdf.renderer import poppler_installed
from ocr_pipeline.printable import printable
from ocr_pipeline.records import Batch, DocumentResult, Reason, Upload
from ocr_pipeline.runs import history, instance, reaping, requests
from ocr_pipeline.settings import Settings
from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.errors import NotAsPublished


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
        found = sources.find(paths, wiring.places(settings))
        summary = ingest(settings, found, terminal(stderr=True))
    except sources.SourceError as error:
        raise click.UsageError(str(error)) from error
    if as_json:
        click.echo(json.dumps(summary.as_json(), ensure_ascii=False))
    else:
        show(summary, console)
    return summary.exit_code


def ingest(settings: Settings, found: Found, console: Console) -> Summary:
    """Everything the command does but its output. Raises SourceError and the rooms' own errors.

    A batch whose run fails as a whole is told on `console`, and its documents are in the summary's failures.
    """
    started = time.monotonic()
    wiring.check_engine(settings)  # a configuration that cannot work is told before anything is copied
    warehouse = wiring.warehouse(settings, on_wait=say_wait)
    lake = wiring.lake(settings)
    dagster = instance.instance(settings, captures_output=False)
    if not found.sources and not found.not_taken:
        console.print("there is no PDF in these paths")
    for kind, count in found.left_alone.items():
        console.print(f"left alone: {kind}: {count}")
    if not poppler_installed():
        console.print("poppler is not installed: pages are drawn by PDFium alone (apt install poppler-utils)")

    uploads, not_taken = _put(lake, found, console)
    reaping.reap(dagster, settings.claims)
    # partitions before lists: the sensor takes a list without a partition for one that nobody runs
    held = cutting.cut_all(
        lake,
        uploads,
        wiring.intake(settings),
        announce=lambda names: requests.add_partitions(dagster, names),
        tell=lambda error: _say(console, error),
    )
    todo = _todo(lake, warehouse, history.finished(dagster), held)
    requests.add_partitions(dagster, [batch.name for batch in todo])
    failed: Collection[str] = ()
    if todo:
        with Display(console, sum(len(batch.uploads) for batch in todo)) as display:
            try:
                run_batches(settings, dagster, todo, display)
            except RunFailed as error:
                failed = error.batches
                display.say(f"Error: {error}\nThe pages that were read are kept; run the same command again.")
    done = {upload: batch for upload, batch in held.items() if batch.name not in failed}
    without_rows = [Failure(lake.uri_of(upload.key), Reason.RUN_FAILED) for upload in held.keys() - done.keys()]
    return summarise(
        results_of(lake, done),
        {batch.name for batch in held.values()},
        time.monotonic() - started,
        [*(Failure(one.path, one.reason) for one in not_taken), *without_rows],
    )


def _put(lake: Storage, found: Found, console: Console) -> tuple[list[Upload], list[NotTaken]]:
    """Copies the files into the inbox; one that cannot be read, is gone since it was found, or finds no place in the
    lake is not taken."""
    uploads, not_taken = list[Upload](), list(found.not_taken)

    with (
        Counter(console, "copying into the inbox", len(found.sources), "files") as counter,
        closing(inbox.put_all(lake, found.sources)) as all_put,
    ):
        for source, put in all_put:
            if not isinstance(put, Upload):
                if isinstance(put, StorageError):  # says what is wrong in the lake, and where
                    _say(console, f"not taken: {put}")
                not_taken.append(NotTaken(sources.printable_path(source.path), sources.reason_for(put)))
            else:
                uploads.append(put)
            counter.advance()
    return uploads, not_taken


def _say(console: Console, text: str) -> None:
    console.print(printable(text), soft_wrap=True)


def _todo(lake: Storage, warehouse: Warehouse, finished: Collection[str], held: Mapping[Upload, Batch]) -> list[Batch]:
    """The batches of these uploads that are not done, or have pages that no backend was available for."""
    batches = {batch.name: batch for batch in held.values()}
    # the history says that a batch was loaded, not that its rows are still there, nor into which tables
    lost = unloaded.not_in_tables(warehouse, {upload: b for upload, b in held.items() if b.name in finished})
    loaded = [batch for name, batch in batches.items() if name in finished and name not in lost]
    asking = parallel_map(lambda batch: _asks_again(lake, batch), loaded, published.FILES_AT_ONCE)
    done = {batch.name for batch, again in zip(loaded, asking, strict=True) if not again}
    return [batch for name, batch in batches.items() if name not in done]


def _asks_again(lake: Storage, batch: Batch) -> bool:
    try:
        results = published.outcomes(lake, batch)
    except (ObjectMissing, ObjectUnreadable, NotAsPublished):  # a kill or a power cut: publishing mends it
        return True
    return any(page.reason in NOT_THE_PAGES_FAULT for result in results for page in result.pages)


def results_of(lake: Storage, held: Mapping[Upload, Batch]) -> list[DocumentResult]:
    """What became of these uploads, each from the batch whose rows count."""
    wanted: dict[str, set[str]] = {}
    batches = {batch.name: batch for batch in held.values()}
    for upload, batch in held.items():
        wanted.setdefault(batch.name, set()).add(keys.document_id(upload.key))
    outcomes = parallel_map(lambda batch: published.outcomes(lake, batch), batches.values(), published.FILES_AT_ONCE)
    found = [
        result
        for name, results in zip(batches, outcomes, strict=True)
        for result in results
        if result.document.document_id in wanted[name]
    ]
    return sorted(found, key=lambda result: result.document.source_uri)
