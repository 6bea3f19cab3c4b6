"""`ocr-pipeline purge`: forgets a document everywhere, and proves it."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace

import click
import dagster as dg

from ocr_pipeline import wiring
from ocr_pipeline.commands.counted import counted
from ocr_pipeline.commands.terminal import WAIT_SECONDS, say_wait, terminal
from ocr_pipeline.intake import cutting
from ocr_pipeline.lake import keys
from ocr_pipeline.lake.batch_index import BatchIndex
from ocr_pipeline.printable import printable
from ocr_pipeline.runs import claims, forgetting, history, instance, reaping
from ocr_pipeline.settings import Settings
from ocr_pipeline.upkeep.purge import Purged, check_lake, purge
from ocr_pipeline.upkeep.traces import traces
from ocr_pipeline.warehouse.compact import compact
from ocr_pipeline.warehouse.purge import check_ready


@click.command("purge")
@click.argument("key")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, and nothing else there.")
def command(key: str, yes: bool, as_json: bool) -> int:
    """Remove the document of upload KEY (inbox/…) everywhere: rows, Parquet, markdown, images, transcripts, the PDF,
    and Dagster's runs of its batches, whose events show names, a picture and an excerpt.

    Transcripts of page images that another document has too stay. Refused while a run works on one of its batches, or
    on one with a document that has such a page.
    A document that is gone already is no error. Exit code 1 when something still names it, or when an object that may
    name it cannot be read: all else goes, and that object is told.
    """
    settings = Settings()
    lake, dagster = wiring.lake(settings), instance.instance(settings)
    warehouse = wiring.warehouse(settings, on_wait=say_wait)
    impatient = wiring.warehouse(settings, WAIT_SECONDS, on_wait=say_wait)
    if not key.startswith(settings.inbox):
        raise click.UsageError(
            f"an upload's key starts with {settings.inbox!r}; `ocr-pipeline status` finds keys by a part of them"
        )
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("nobody is there to ask: give --yes")
        click.confirm(f"Forget {key} everywhere? This cannot be undone", abort=True, err=True)
    reaping.reap(dagster, settings.claims)
    with cutting.intake_lock(settings.data):
        check_lake(lake, impatient, keys.document_id(key))
        found = traces(lake, impatient, key)  # all intake waits for this one
        # records of documents that share a page are written too, in their batches
        sharing = {batch for batch, _ in found.sharers}
        if at_work := _at_work(settings, dagster, {*found.batches, *sharing}):
            raise click.UsageError(f"{at_work}: it would bring the document back; wait until it is over, or end it")
        check_ready(impatient)
        lake.delete([key])  # where a bucket's lock forbids it, nothing else may go either
        with _half_done():
            runs = forgetting.forget_batches(dagster, found.batches)
            done = purge(lake, warehouse, found)
            with BatchIndex(lake, wiring.intake(settings).index) as index:
                index.refresh()  # the copy of the batch lists forgets the name too
            came_since = forgetting.runs_of(dagster, found.batches)
    done = replace(done, left=(*done.left, *(f"run {run_id}" for run_id in sorted(came_since))))
    with _half_done():
        compact(warehouse)  # DuckDB keeps the bytes of removed rows in the file's free parts
    where = ", as far as the lake could be read" if done.unread else ""
    if as_json:
        click.echo(json.dumps({**asdict(done), "runs": runs, "found": found.found}))
    elif not found.found and not any(asdict(done.rows).values()):
        terminal().print(f"nothing of {key!r} was there{where}")
    else:
        terminal().print(_in_words(done, runs, where))
    if not as_json and done.rows.search_index:
        click.echo("the full-text index went too: make it again with `ocr-pipeline search --build-index`", err=True)
    if not as_json:
        for error in done.unread:
            click.echo(f"not looked into, purge again once it is mended: {printable(error)}", err=True)
    return 1 if done.left or done.unread else 0


def _in_words(done: Purged, runs: int, where: str) -> str:
    return (
        f"{done.document_id}: {done.rows.documents} document, {done.rows.pages} page, {done.rows.regions} region "
        f"and {done.rows.attempts} attempt rows, {counted(done.objects, 'object')}; "
        f"{counted(done.parquet_files, 'Parquet file')} written again; "
        f"runs forgotten in Dagster: {runs}; found afterwards{where}: "
        f"{', '.join(done.left) or 'nothing'}"
    )


@contextmanager
def _half_done() -> Iterator[None]:
    """Around what may end with a part of the document gone and a part still there."""
    try:
        yield
    except BaseException:
        click.echo("The purge stopped half-way: run the same command again, it goes on from there.", err=True)
        raise


def _at_work(settings: Settings, dagster: dg.DagsterInstance, names: Collection[str]) -> str | None:
    """Who works on one of the batches, in words."""
    claimed = claims.claimed(settings.claims)
    for name in sorted(names):
        if (run_id := history.live_run(dagster, name)) is not None:
            return f"run {run_id} works on batch {name}"
        if name in claimed:
            return f"a command of this machine works on batch {name}"
    return None
