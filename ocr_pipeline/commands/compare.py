"""`ocr-pipeline compare`: what a new model or prompt changed, page by page."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from itertools import chain
from typing import Any

import click
from rich.table import Table

from ocr_pipeline import wiring
from ocr_pipeline.commands.counted import counted
from ocr_pipeline.commands.terminal import terminal
from ocr_pipeline.printable import printable
from ocr_pipeline.settings import Settings
from ocr_pipeline.upkeep.compare import PageDifference, PageSide, compare_recipes, recipes


@click.command("compare")
@click.argument("recipe_a")
@click.argument("recipe_b")
@click.option("--all", "everything", is_flag=True, help="List the pages that are the same too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, and nothing else there.")
def command(recipe_a: str, recipe_b: str, everything: bool, as_json: bool) -> int:
    """Compare two recipes page by page: agreement, length, failures.

    Lists the pages that differ, also those that only one recipe has; agreement and characters in the last line are of
    the pages in both.
    A recipe's id stands in the tables (`recipe_id`); this command lists those there are when one is unknown.
    """
    lake = wiring.lake(Settings())
    known = recipes(lake)
    for recipe in (recipe_a, recipe_b):
        if recipe not in known:
            listed = ", ".join(f"{name} ({counted(count, 'page')})" for name, count in sorted(known.items())) or "none"
            raise click.UsageError(f"no transcripts of recipe {recipe!r}; there are: {listed}")
    found = compare_recipes(lake, recipe_a, recipe_b)
    pages = found.pages if everything else found.changed
    for error in found.unread:
        click.echo(f"left out: {printable(error)}", err=True)
    if as_json:
        sums = {one.name: getattr(found, one.name) for one in fields(found) if one.name != "pages"}
        click.echo(json.dumps({"pages": [_said(page) for page in pages], **sums}))
        return 0
    console = terminal()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("document", "page", "words in common", "length a", "length b", "agreement a", "agreement b", "a", "b"):
        table.add_column(name, no_wrap=True)
    for page in pages:
        document = printable(page.key) if page.key is not None else page.document_id
        sides = zip(_cells(page.a), _cells(page.b), strict=True)
        table.add_row(document, str(page.page_number), _number(page.overlap), *chain.from_iterable(sides))
    console.print(table)
    console.print(
        f"\n{counted(found.compared, 'page')} in both, {found.same} the same, "
        f"{found.mended} mended, {found.broken} broken; "
        f"{found.only_a} only in a, {found.only_b} only in b; mean agreement with the text layer "
        f"{_number(found.mean_agreement_a)} and {_number(found.mean_agreement_b)}; characters {found.length_a} and "
        f"{found.length_b}"
    )
    return 0


def _said(page: PageDifference) -> dict[str, Any]:
    said = asdict(page)
    for side in ("a", "b"):
        if said[side] is not None:
            said[side]["length"] = len(said[side].pop("text"))
    return said


def _cells(side: PageSide | None) -> tuple[str, str, str]:
    """Length, agreement, and what came of the page; "-" where the recipe has no such page."""
    if side is None:
        return "-", "-", "-"
    return str(side.length), _number(side.agreement), side.reason or side.status


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
