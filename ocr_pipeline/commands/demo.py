"""`ocr-pipeline demo`: the samples through the whole pipeline, then what to look at."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

from ocr_pipeline import samples
from ocr_pipeline.commands.ingest import ingest
from ocr_pipeline.commands.summary import Summary, show
from ocr_pipeline.commands.terminal import terminal
from ocr_pipeline.intake.sources import Found, Source
from ocr_pipeline.settings import Settings


@click.command("demo")
def command() -> int:
    """Take the sample PDFs through the whole pipeline and say what to look at.

    Exit code 0 when each sample ends as it should, the three that cannot be read included.
    """
    settings = Settings()
    console = terminal()
    # in a folder of their own: an upload of the same name is the user's
    found = Found([Source(path, f"{settings.inbox}samples/{path.name}") for path in samples.paths()])
    summary = ingest(settings, found, terminal(stderr=True))
    show(summary, console)
    wrong = surprises(summary)
    for line in wrong:
        console.print(Text("unexpected:", style="red"), line)
    if not wrong:
        _what_next(console, settings)
    return 1 if wrong else 0


def surprises(summary: Summary) -> list[str]:
    """Where the samples did not end as `samples/expected.json` says."""
    found = []
    by_name = {result.document.source_uri.rsplit("/", 1)[-1]: result for result in summary.results}
    for name, expected in samples.expected().items():
        result = by_name.get(name)
        if result is None:
            found.append(f"{name}: no row")
            continue
        reason = result.document.reason.value if result.document.reason else None
        if (result.document.status.value, reason) != (expected["status"], expected["reason"]):
            found.append(f"{name}: {result.document.status}, {reason}")
        pages = [page.status.value for page in result.pages]
        if pages != expected["pages"]:
            found.append(f"{name}: pages {pages}")
    return found


def _what_next(console: Console, settings: Settings) -> None:
    lake = settings.lake
    query = "SELECT source_uri, page_count, status FROM ocr.documents"
    question = f'import duckdb; duckdb.connect("{settings.warehouse}", read_only=True).sql("{query}").show()'
    markdown, tables = f"{lake}/markdown/{settings.inbox}samples/", f"{lake}/tables/"
    width = max(map(len, (markdown, tables, settings.warehouse)))
    console.print(
        f"""
All samples ended as they should; encrypted.pdf, damaged.pdf and not-really-a-pdf.pdf are meant to be rejected.

Look at
  {markdown:{width}}   one .md file per document
  {tables:{width}}   Parquet, one file per table and batch
  {settings.warehouse:{width}}   the tables, for example:
      {_here("python")} -c '{question}'
Then
  {"make review":{width}}   the pages beside their images, in a browser
  {"make dev":{width}}   Dagster's UI on 127.0.0.1:3000; drop a PDF into {lake}/{settings.inbox}
  {_here("ocr-pipeline") + " ingest FOLDER":{width}}   your own PDFs
""",
        soft_wrap=True,
    )


def _here(name: str) -> str:
    """A program of this environment, which need not be on the path, as short as it can be typed here."""
    program, here = Path(sys.executable).with_name(name), Path.cwd()
    return str(program.relative_to(here)) if program.is_relative_to(here) else str(program)
