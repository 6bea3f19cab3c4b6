"""`ocr-pipeline rebuild-warehouse`: all tables again from Parquet alone."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from ocr_pipeline import wiring
from ocr_pipeline.commands.summary import terminal
from ocr_pipeline.settings import Settings
from ocr_pipeline.upkeep.rebuild import rebuild_warehouse


@click.command("rebuild-warehouse")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, and nothing else there.")
def command(as_json: bool) -> int:
    """Make all tables again from the Parquet files in the lake, and put them in the place of the present ones.

    Readers see the old tables until the end. Exit code 1 when batches that had rows have no Parquet any more.
    """
    settings = Settings()
    err = terminal(stderr=True)
    with err.status("reading Parquet") as status:
        counts = rebuild_warehouse(
            wiring.lake(settings), wiring.warehouse(settings), lambda name: status.update(f"batch {name}")
        )
    if as_json:
        click.echo(json.dumps(asdict(counts)))
    else:
        terminal().print(
            f"{counts.batches} batches: {counts.documents} documents, {counts.pages} pages, {counts.regions} regions, "
            f"{counts.attempts} attempts"
        )
    for name in counts.missing_batches:
        err.print(f"batch {name} had rows and has no Parquet: materialise ocr_parquet for it")
    return 1 if counts.missing_batches else 0
