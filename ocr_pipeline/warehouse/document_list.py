"""Documents by the pageful (`paging.py`): what a list on a screen shows, filtered and sorted.

Here belongs this one query. Sums over a document's pages are computed only for the rows that are shown, unless the list
is sorted or filtered by them.
"""

# ruff: noqa: S608  the names of tables and columns put into SQL here are ours; values are parameters

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime
from typing import Any

import duckdb

from ocr_pipeline.warehouse.paging import NAMED, ListQuery, Place, Sort, Turn, in_days, pageful
from ocr_pipeline.warehouse.views import BAD_PAGES

_SORTS: Mapping[str, Sort] = {
    "uploaded_at": Sort("d.uploaded_at", "TIMESTAMPTZ"),
    "processed_at": Sort("d.processed_at", "TIMESTAMPTZ"),
    "source_uri": Sort("d.source_uri", "VARCHAR"),
    "status": Sort("d.status", "VARCHAR"),
    "page_count": Sort("d.page_count", "BIGINT"),
    "size_bytes": Sort("d.size_bytes", "BIGINT"),
    "bad_pages": Sort("coalesce(m.bad_pages, 0)", "BIGINT"),
    "backend": Sort("m.backend", "VARCHAR", ("chr(1114111)", "''")),
    "quality": Sort("m.quality", "DOUBLE", ("2.0", "-1.0")),
    "seconds": Sort("m.seconds", "DOUBLE", ("1e300", "-1.0")),
}
SORTS = tuple(_SORTS)
"""What to sort by: columns of documents, and what their pages come to (`backend`: the first by name)."""

NEWEST = Turn(sort="uploaded_at", descending=True)

# Rounded: a sum of floats differs in its last bits from one query to the next, and a place must be found again.
_OF_PAGES: Mapping[str, str] = {
    "bad_pages": f"count(*) FILTER (status IN {BAD_PAGES})",
    "backend": "min(backend)",
    "quality": "round(avg(quality), 6)",
    "seconds": 'round(sum("seconds"), 6)',
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentFilter:
    """What a document must be; None and "" let everything through."""

    name: str | None = None  # a part of the key or the title, in any case
    status: str | None = None  # of the document
    reason: str | None = None  # of the document or of one of its pages
    backend: str | None = None  # of one of its pages
    batch: str | None = None
    since: date | None = None  # UTC days of the upload, both included
    until: date | None = None
    quality_below: float | None = None  # the mean of its pages

    def as_query(self) -> dict[str, str]:
        return {f.name: str(value) for f in fields(self) if (value := getattr(self, f.name)) not in (None, "")}


@dataclass(frozen=True, slots=True)
class ListedDocument:
    document_id: str
    source_uri: str
    title: str | None
    status: str
    reason: str | None
    page_count: int
    size_bytes: int
    uploaded_at: datetime
    processed_at: datetime
    batch: str
    bad_pages: int  # failed and skipped
    backends: tuple[str, ...]
    quality: float | None  # mean of its pages
    seconds: float | None  # sum of them


@dataclass(frozen=True, slots=True)
class DocumentListing:
    """One pageful; fields as in `paging.Pageful`."""

    documents: list[ListedDocument]
    total: int
    next: Place | None
    previous: Place | None


def documents(
    connection: duckdb.DuckDBPyConnection, wanted: DocumentFilter | None = None, turn: Turn = NEWEST
) -> DocumentListing:
    """One pageful of the documents that are not deleted. Raises WarehouseError for a sort that is none of `SORTS`."""
    found = pageful(connection, _QUERY, *_conditions(wanted or DocumentFilter()), turn)
    read = _read(connection, [row[0] for row in found.rows])
    listed = [ListedDocument(*row, *read.get(row[0], (0, (), None, None))) for row in found.rows]
    return DocumentListing(listed, found.total, found.next, found.previous)


def _tables(used: Sequence[str]) -> str:
    """Documents, joined with the sums over their pages if an expression uses them (0.1 s for a million pages)."""
    columns = [f"{sql} AS {name}" for name, sql in _OF_PAGES.items() if any(f"m.{name}" in text for text in used)]
    if not columns:
        return "ocr.documents d"
    return (
        f"ocr.documents d LEFT JOIN (SELECT document_id, {', '.join(columns)} FROM ocr.pages GROUP BY document_id) m"
        " ON m.document_id = d.document_id"
    )


_QUERY = ListQuery(
    columns="d.document_id, d.source_uri, d.title, d.status, d.reason, d.page_count, d.size_bytes, d.uploaded_at,"
    " d.processed_at, d.batch",
    tables=_tables,
    key={"d.document_id": "VARCHAR"},
    sorts=_SORTS,
)


def _read(connection: duckdb.DuckDBPyConnection, document_ids: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """(bad pages, backends, quality, seconds) of each of these documents that has pages."""
    rows = connection.execute(
        f"""
        SELECT document_id, {_OF_PAGES["bad_pages"]},
            list_sort(list(DISTINCT backend) FILTER (backend IS NOT NULL)), {_OF_PAGES["quality"]},
            {_OF_PAGES["seconds"]}
        FROM ocr.pages WHERE document_id IN (SELECT unnest(CAST($ids AS VARCHAR[]))) GROUP BY document_id
        """,
        {"ids": list(document_ids)},
    ).fetchall()
    return {row[0]: (row[1], tuple(row[2] or ()), row[3], row[4]) for row in rows}


def _conditions(wanted: DocumentFilter) -> tuple[list[str], dict[str, Any]]:
    conditions, values = ["d.deleted_at IS NULL"], dict[str, Any]()
    if wanted.name:
        conditions.append(NAMED)
        values["name"] = wanted.name
    for column in ("status", "batch"):
        if value := getattr(wanted, column):
            conditions.append(f"d.{column} = ${column}")
            values[column] = value
    if wanted.reason:
        conditions.append(
            "(d.reason = $reason OR d.document_id IN (SELECT document_id FROM ocr.pages WHERE reason = $reason))"
        )
        values["reason"] = wanted.reason
    if wanted.backend:
        conditions.append("d.document_id IN (SELECT document_id FROM ocr.pages WHERE backend = $backend)")
        values["backend"] = wanted.backend
    of_days, days = in_days("d.uploaded_at", wanted.since, wanted.until)
    conditions += of_days
    values |= days
    if wanted.quality_below is not None:
        conditions.append("m.quality < $quality_below")
        values["quality_below"] = wanted.quality_below
    return conditions, values
