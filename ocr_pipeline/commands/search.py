"""`ocr-pipeline search`: which page says these words."""

from __future__ import annotations

import json
from dataclasses import asdict

import click
from rich.text import Text

from ocr_pipeline import wiring
from ocr_pipeline.commands.counted import counted
from ocr_pipeline.commands.terminal import WAIT_SECONDS, terminal
from ocr_pipeline.printable import printable
from ocr_pipeline.settings import Settings
from ocr_pipeline.warehouse.search import search
from ocr_pipeline.warehouse.search_index import build_search_index


@click.command("search")
@click.argument("words", nargs=-1)
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000))
@click.option("--build-index", is_flag=True, help="First make the full-text index again, of the pages there are now.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, and nothing else there.")
def command(words: tuple[str, ...], limit: int, build_index: bool, as_json: bool) -> int:
    """Find the pages whose text holds every one of WORDS (at most 16), best first. Exit code 1 when there is none.

    Where more than 5,000 pages hold all of them and there is no full-text index, the best of the 5,000 that were loaded
    first. The index needs DuckDB's extension `fts`; it is made daily from 100,000 pages on. With --build-index the JSON
    object has `indexed`, the number of pages in it.
    """
    words = tuple(word for word in words if word.strip())
    if not words and not build_index:
        raise click.UsageError("give some words to look for")
    settings = Settings()
    warehouse = wiring.warehouse(settings, WAIT_SECONDS)
    made: dict[str, int] = {}
    if build_index:
        made["indexed"] = build_search_index(warehouse)
        click.echo(f"the full-text index knows {counted(made['indexed'], 'page')}", err=True)
    hits = search(warehouse, words, limit) if words else []
    code = 1 if words and not hits else 0
    if as_json:
        click.echo(json.dumps({"hits": [asdict(hit) for hit in hits], **made}, ensure_ascii=False))
        return code
    if not words:
        return 0
    console = terminal()
    for hit in hits:
        console.print(Text(f"{printable(hit.source_uri)}, page {hit.page_number}", style="bold"), soft_wrap=True)
        console.print(f"  {printable(hit.snippet)}", soft_wrap=True)
    if not hits:
        console.print(f"no page in {printable(settings.warehouse)} holds all of these words", soft_wrap=True)
    return code
