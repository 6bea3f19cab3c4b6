"""What a batch publishes, read back as everyone reads it, and what it should publish."""

from __future__ import annotations

from collections.abc import Callable

from ocr_pipeline.flow import documents
from ocr_pipeline.flow.published import read_tables
from ocr_pipeline.flow.publishing import publish
from ocr_pipeline.flow.reading import Reading
from ocr_pipeline.flow.rendered import RenderedDocument
from ocr_pipeline.lake import keys
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.records import Batch, DocumentResult
from ocr_pipeline.warehouse.rows import to_outcomes


def rows(lake: Storage, batch: Batch) -> list[DocumentResult]:
    """Publishes the batch; its documents and pages with their text, as its files say, in the order of its list."""
    tables = read_tables(lake, publish(lake, batch))
    found = {found.document.document_id: found for found in to_outcomes(tables["documents"], tables["pages"])}
    assert len(found) == len(batch.uploads)
    return [found[keys.document_id(upload.key)] for upload in batch.uploads]


def attempts(lake: Storage, batch: Batch) -> list[tuple[int, int]]:
    """Publishes the batch; page and number of each attempt in its files."""
    table = read_tables(lake, publish(lake, batch))["attempts"]
    return [(row["page_number"], row["attempt"]) for row in table.to_pylist()]


def assembled(
    batch: Batch, document: RenderedDocument, reading: Reading | None, uri_of: Callable[[str], str] = str
) -> DocumentResult:
    """All rows of one document, made of its records at once."""
    recipe_id = reading.recipe_id if reading is not None else "r"
    read = {page.number: page for page in reading.pages} if reading is not None else {}
    rows = documents.page_rows(batch, document, document.pages, read, recipe_id, uri_of)
    row = documents.document_row(batch, document, rows.pages, recipe_id, uri_of)
    return DocumentResult(row, rows.pages, rows.regions, rows.attempts)
