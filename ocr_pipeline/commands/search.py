"""`ocr-pipeline search`: which page says these words."""

from __future__ import annotations

import json
from dataclasses import asdict

import click
from rich.text import Text

from ocr_pipeline import wiring
from ocr_pipeline.commands.summary import WAIT_SECONDS, printable, terminal
from ocr_pipeline.settings import Settings
from ocr_pipeline.warehouse.search import search


@click.command("search")
@click.argument("words", nargs=-1, required=True)
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, and nothing else there.")
def command(words: tuple[str, ...], limit: int, as_json: bool) -> int:
    """Find the pages whose text holds every one of WORDS, best first. Exit code 1 when there is none."""
    hits = search(wiring.warehouse(Settings(), WAIT_SECONDS), words, limit)
    if as_json:
        click.echo(json.dumps({"hits": [asdict(hit) for hit in hits]}, ensure_ascii=False))
        return 0 if hits else 1
    console = terminal()
    for hit in hits:
        console.print(Text(f"{printable(hit.source_uri)}, page {hit.page_number}", style="bold"), soft_wrap=True)
        console.print(Text(f"  {printable(hit.snippet)}"), soft_wrap=True)
    if not hits:
        console.print("no page holds all of these words")
    return 0 if hits else 1
