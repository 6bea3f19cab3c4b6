"""`ocr-pipeline purge`: forgets a document everywhere, and proves it."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from ocr_pipeline import wiring
from ocr_pipeline.commands.summary import terminal
from ocr_pipeline.intake import cutting
from ocr_pipeline.lake import batches
from ocr_pipeline.settings import Settings
from ocr_pipeline.upkeep.purge import purge
from ocr_pipeline.warehouse.compact import compact


@click.command("purge")
@click.argument("key")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, and nothing else there.")
def command(key: str, yes: bool, as_json: bool) -> int:
    """Remove the document of upload KEY (inbox/…) everywhere: rows, Parquet, markdown, images, transcripts, the PDF.

    Transcripts of page images that another document has too stay. Exit code 1 when something still names it.
    """
    settings = Settings()
    lake = wiring.lake(settings)
    if not key.startswith(settings.inbox):
        raise click.UsageError(f"an upload's key starts with {settings.inbox!r}")
    known = any(upload.key == key for batch in batches.load(lake) for upload in batch.uploads)
    if not known and lake.stat(key) is None:
        raise click.UsageError(f"no upload {key!r} was ever seen; `ocr-pipeline status` finds keys by a part of them")
    if not yes:
        click.confirm(f"Forget {key} everywhere? This cannot be undone", abort=True, err=True)
    warehouse = wiring.warehouse(settings)
    with cutting.alone(settings.data):
        done = purge(lake, warehouse, key)
    compact(warehouse)  # DuckDB keeps the bytes of removed rows in the file's free parts
    if as_json:
        click.echo(json.dumps(asdict(done)))
    else:
        terminal().print(
            f"{done.document_id}: {done.rows.documents} document, {done.rows.pages} page, {done.rows.regions} region "
            f"and {done.rows.attempts} attempt rows, {done.objects} objects; {done.parquet_files} Parquet files "
            f"written again; found afterwards: {', '.join(done.left) or 'nothing'}",
            markup=False,
        )
    return 1 if done.left else 0
