"""What the screens of one document and one page ask of the tables.

Here belong those queries and their answers as plain records. Lists with filters are the warehouse's, numbers over
everything in `overview.py`. Each takes an open connection: a screen asks all its questions on one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import duckdb

DOCUMENT_COLUMNS = (
    "document_id, source_uri, title, status, reason, detail, page_count, size_bytes, etag, uploaded_at, processed_at,"
    " deleted_at, batch, recipe_id, markdown_uri, content_sha256"
)
PAGE_COLUMNS = (
    "document_id, page_number, status, reason, detail, engine, backend, model, attempts, prompt_tokens,"
    " completion_tokens, seconds, finish_reason, quality, agreement, width, height, rotation, image_sha256,"
    " recipe_id, batch, processed_at"
)
MAX_REGIONS = 10_000  # of a page, as the parsers cut them


@dataclass(frozen=True, slots=True)
class DocumentRow:
    document_id: str
    source_uri: str
    title: str | None
    status: str
    reason: str | None
    detail: str | None
    page_count: int
    size_bytes: int
    etag: str
    uploaded_at: datetime
    processed_at: datetime
    deleted_at: datetime | None
    batch: str
    recipe_id: str
    markdown_uri: str | None
    content_sha256: str | None


@dataclass(frozen=True, slots=True)
class PageRow:
    document_id: str
    page_number: int
    status: str
    reason: str | None
    detail: str | None
    engine: str | None
    backend: str | None
    model: str | None
    attempts: int
    prompt_tokens: int | None
    completion_tokens: int | None
    seconds: float | None
    finish_reason: str | None
    quality: float | None
    agreement: float | None
    width: int | None
    height: int | None
    rotation: int
    image_sha256: str | None
    recipe_id: str
    batch: str
    processed_at: datetime


@dataclass(frozen=True, slots=True)
class RegionRow:
    region_index: int
    label: str
    x0: float
    y0: float
    x1: float
    y1: float
    text: str


@dataclass(frozen=True, slots=True)
class AttemptRow:
    recipe_id: str
    attempt: int
    backend: str
    model: str
    choice: str
    started_at: datetime
    seconds: float
    prompt_tokens: int | None
    completion_tokens: int | None
    finish_reason: str | None
    outcome: str


@dataclass(frozen=True, slots=True)
class Failed:
    """A page without text; `page_number` is None for a document that was rejected whole."""

    document_id: str
    page_number: int | None


def document(connection: duckdb.DuckDBPyConnection, document_id: str) -> DocumentRow | None:
    """The document, also one that was deleted."""
    row = connection.execute(
        f"SELECT {DOCUMENT_COLUMNS} FROM ocr.documents WHERE document_id = ?",  # noqa: S608  our column names
        [document_id],
    ).fetchone()
    return DocumentRow(*row) if row else None


def page(connection: duckdb.DuckDBPyConnection, document_id: str, number: int) -> tuple[PageRow, str] | None:
    """The page's row and its markdown."""
    row = connection.execute(
        f"SELECT {PAGE_COLUMNS}, markdown FROM ocr.pages WHERE document_id = ? AND page_number = ?",  # noqa: S608
        [document_id, number],
    ).fetchone()
    return (PageRow(*row[:-1]), row[-1]) if row else None


def image(connection: duckdb.DuckDBPyConnection, document_id: str, number: int) -> tuple[str | None, str | None] | None:
    """(URI, SHA-256) of the page image; None where there is no such page."""
    row = connection.execute(
        "SELECT image_uri, image_sha256 FROM ocr.pages WHERE document_id = ? AND page_number = ?",
        [document_id, number],
    ).fetchone()
    return (row[0], row[1]) if row else None


def pages_of(
    connection: duckdb.DuckDBPyConnection, document_id: str, first: int, limit: int
) -> tuple[list[PageRow], dict[str, int]]:
    """Pages from number `first` on, and how many of all pages have which status."""
    rows = connection.execute(
        f"SELECT {PAGE_COLUMNS} FROM ocr.pages WHERE document_id = ? AND page_number >= ?"  # noqa: S608
        " ORDER BY page_number LIMIT ?",
        [document_id, first, limit],
    ).fetchall()
    counts = connection.execute(
        "SELECT status, count(*) FROM ocr.pages WHERE document_id = ? GROUP BY status ORDER BY status", [document_id]
    ).fetchall()
    return [PageRow(*row) for row in rows], dict(counts)


def regions(connection: duckdb.DuckDBPyConnection, document_id: str, number: int) -> list[RegionRow]:
    rows = connection.execute(
        """
        SELECT region_index, label, x0, y0, x1, y1, "text" FROM ocr.regions
        WHERE document_id = ? AND page_number = ? ORDER BY region_index LIMIT ?
        """,
        [document_id, number, MAX_REGIONS],
    ).fetchall()
    return [RegionRow(*row) for row in rows]


def attempts(connection: duckdb.DuckDBPyConnection, document_id: str, number: int) -> list[AttemptRow]:
    """All requests that this page ever sent, under any recipe."""
    rows = connection.execute(
        """
        SELECT recipe_id, attempt, backend, model, choice, started_at, seconds, prompt_tokens, completion_tokens,
            finish_reason, outcome
        FROM ocr.attempts WHERE document_id = ? AND page_number = ? ORDER BY started_at, attempt LIMIT 1000
        """,
        [document_id, number],
    ).fetchall()
    return [AttemptRow(*row) for row in rows]


def failed_beside(
    connection: duckdb.DuckDBPyConnection, document: DocumentRow, number: int, *, forward: bool
) -> Failed | None:
    """The next failed page (or rejected document) after this page, or the last one before it; documents by key."""
    sign, order = (">", "ASC") if forward else ("<", "DESC")
    row = connection.execute(
        f"""
        SELECT document_id, page_number FROM ocr.failed_pages
        WHERE (source_uri, document_id, coalesce(page_number, 0)) {sign} ($uri, $id, $number)
        ORDER BY source_uri {order}, document_id {order}, coalesce(page_number, 0) {order} LIMIT 1
        """,  # noqa: S608  the sign and the order are ours
        {"uri": document.source_uri, "id": document.document_id, "number": number},
    ).fetchone()
    return Failed(*row) if row else None


def choices(connection: duckdb.DuckDBPyConnection) -> dict[str, list[str]]:
    """What there is to filter by: the reasons and backends that the tables hold."""
    reasons = connection.execute(
        """
        SELECT DISTINCT reason FROM (SELECT reason FROM ocr.pages UNION ALL SELECT reason FROM ocr.documents)
        WHERE reason IS NOT NULL ORDER BY reason LIMIT 200
        """
    ).fetchall()
    backends = connection.execute(
        "SELECT DISTINCT backend FROM ocr.pages WHERE backend IS NOT NULL ORDER BY backend LIMIT 200"
    ).fetchall()
    return {"reason": [row[0] for row in reasons], "backend": [row[0] for row in backends]}
