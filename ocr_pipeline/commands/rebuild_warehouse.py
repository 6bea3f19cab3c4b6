"""`ocr-pipeline rebuild-warehouse`: all tables again from Parquet alone."""

from __future__ import annotations

import json
from dataclasses import asdict

import click
from rich.text import Text

from ocr_pipeline import wiring
from ocr_pipeline.commands.counted import counted
from ocr_pipeline.commands.terminal import terminal
from ocr_pipeline.printable import printable
from ocr_pipeline.settings import Settings
from ocr_pipeline.upkeep.rebuild import rebuild_warehouse
from ocr_pipeline.warehouse.rebuild import RebuildRefused


@click.command("rebuild-warehouse")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, and nothing else there.")
@click.option("--force", is_flag=True, help="Go on where nothing is published, or Parquet is missing or torn.")
def command(as_json: bool, force: bool) -> int:
    """Make all tables again from the Parquet files in the lake, and put them in the place of the present ones.

    On MotherDuck readers see the old tables until the end; a DuckDB file is held open, and nobody else reads or loads
    meanwhile. Where batches that have rows now have no Parquet any more, a batch's
    Parquet is torn (a run died at it), or nothing is published at all, the old tables stay, exit code 1.
    """
    settings = Settings()
    err = terminal(stderr=True)
    warehouse = wiring.warehouse(settings, on_wait=lambda text: err.print(text))
    try:
        with err.status("reading Parquet") as status:
            counts = rebuild_warehouse(
                wiring.lake(settings),
                warehouse,
                lambda name: status.update(Text(f"batch {printable(name)}")),
                on_r2=wiring.let_motherduck_read_r2(settings, warehouse),
                force=force,
            )
    except RebuildRefused as error:
        click.echo(f"Error: {error}. The tables are as they were.", err=True)
        return 1
    wiring.set_prices(settings, warehouse)
    if as_json:
        click.echo(json.dumps(asdict(counts)))
    else:
        terminal().print(
            f"{counted(counts.batches, 'batch')}: {counted(counts.documents, 'document')}, "
            f"{counted(counts.pages, 'page')}, {counted(counts.regions, 'region')}, "
            f"{counted(counts.attempts, 'attempt')}"
        )
    for name in counts.missing_batches:
        err.print(
            f"batch {name}: its Parquet is missing or torn, and its rows are left out or old: materialise ocr_parquet "
            "for it"
        )
    return 0
