"""Where is my document: what the tables say of it.

Here belongs this one question. What has not reached the tables yet (inbox, batch, run) is asked elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb

from ocr_pipeline.warehouse.connection import Warehouse


@dataclass(frozen=True, slots=True)
class DocumentState:
    """One document as it stands in the tables."""

    document_id: str
    source_uri: str
    title: str | None
    status: str
    reason: str | None
    detail: str | None
    batch: str
    recipe_id: str
    uploaded_at: datetime
    processed_at: datetime
    deleted_at: datetime | None
    page_count: int
    pages: Mapping[str, int]  # by status
    reasons: Mapping[str, int]  # pages by reason, those that have one


_COLUMNS = """
    SELECT document_id, source_uri, title, status, reason, detail, batch, recipe_id, uploaded_at, processed_at,
        deleted_at, page_count
    FROM ocr.documents
"""

_BY_ID = f"{_COLUMNS} WHERE document_id IN (SELECT unnest(CAST(? AS VARCHAR[])))"

_PAGES = """
    SELECT document_id, status, reason, count(*)
    FROM ocr.pages
    WHERE document_id IN (SELECT unnest(CAST(? AS VARCHAR[])))
    GROUP BY document_id, status, reason
    ORDER BY ALL
"""


def states(warehouse: Warehouse, document_ids: Sequence[str]) -> dict[str, DocumentState]:
    """The documents of these ids that the tables have, by id."""
    with warehouse.read() as connection:
        found = connection.execute(_BY_ID, [list(document_ids)]).fetchall()
        return {state.document_id: state for state in _with_pages(connection, found)}


def _with_pages(connection: duckdb.DuckDBPyConnection, found: list[tuple[Any, ...]]) -> list[DocumentState]:
    counts = connection.execute(_PAGES, [[row[0] for row in found]]).fetchall()
    made = []
    for row in found:
        pages: dict[str, int] = {}
        reasons: dict[str, int] = {}
        for document_id, page_status, reason, count in counts:
            if document_id == row[0]:
                pages[page_status] = pages.get(page_status, 0) + count
                if reason is not None:
                    reasons[reason] = reasons.get(reason, 0) + count
        made.append(DocumentState(*(*row, pages, reasons)))
    return made
