"""Documents by the pageful: what a list on a screen shows, filtered and sorted, from any place on, both ways.

Here belongs this one question. It is asked by the place after which to go on (keyset) and not by an offset: a list of
100,000 documents costs the same on its last page, and does not jump when rows come in. What a document's pages come to
is asked for the rows shown only, but where the list is sorted or filtered by it.
"""

# ruff: noqa: S608  the names of tables and columns put into SQL here are ours; values are parameters

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime, timedelta
from typing import Any

import duckdb

from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.errors import WarehouseError

# name: (column or expression, type, what stands for "none": (ascending, descending), so that it comes last)
_SORTS: Mapping[str, tuple[str, str, tuple[str, str] | None]] = {
    "uploaded_at": ("d.uploaded_at", "TIMESTAMPTZ", None),
    "processed_at": ("d.processed_at", "TIMESTAMPTZ", None),
    "source_uri": ("d.source_uri", "VARCHAR", None),
    "status": ("d.status", "VARCHAR", None),
    "page_count": ("d.page_count", "BIGINT", None),
    "size_bytes": ("d.size_bytes", "BIGINT", None),
    "bad_pages": ("coalesce(m.bad_pages, 0)", "BIGINT", None),
    "backend": ("m.backend", "VARCHAR", ("chr(1114111)", "''")),
    "quality": ("m.quality", "DOUBLE", ("2.0", "-1.0")),
    "seconds": ("m.seconds", "DOUBLE", ("1e300", "-1.0")),
}
SORTS = tuple(_SORTS)
"""What to sort by: columns of documents, and what their pages come to (`backend`: the first by name)."""

# Rounded: a sum of floats differs in its last bits from one query to the next, and a place must be found again.
_OF_PAGES: Mapping[str, str] = {
    "bad_pages": "count(*) FILTER (status IN ('failed', 'skipped'))",
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
class Listing:
    documents: list[ListedDocument]
    total: int  # that the filter lets through, on all pages
    next: tuple[Any, str] | None  # hand it back as `after`; None on the last page
    previous: tuple[Any, str] | None  # hand it back as `after`, with `backwards`; None on the first page


def documents(
    warehouse: Warehouse,
    wanted: DocumentFilter | None = None,
    *,
    sort: str = "uploaded_at",
    descending: bool = True,
    after: Sequence[Any] | None = None,
    backwards: bool = False,
    limit: int = 50,
) -> Listing:
    """One pageful of the documents that are not deleted.

    `after`: the `next` of the page before, or, with `backwards`, the `previous` of the page behind; a place that is
    none of this list gives no rows. Raises WarehouseError for a sort that is none of `SORTS`.
    """
    if sort not in _SORTS:
        raise WarehouseError(f"cannot sort by {sort!r}: one of {', '.join(SORTS)}")
    expression, kind, none = _SORTS[sort]
    if none:
        expression = f"coalesce({expression}, {none[descending]})"
    conditions, values = _conditions(wanted or DocumentFilter())
    falling = descending != backwards
    order, beyond = ("DESC", "<") if falling else ("ASC", ">")
    here, place = list(conditions), dict[str, Any]()
    if after is not None:
        value = f"TRY_CAST($value AS {kind})"
        here.append(f"({expression} {beyond} {value} OR ({expression} = {value} AND d.document_id {beyond} $id))")
        place = {"value": str(after[0]), "id": str(after[1])}
    with warehouse.read() as connection:
        total = connection.execute(
            f"SELECT count(*) FROM {_tables(conditions)} WHERE {' AND '.join(conditions)}", values
        ).fetchone()
        rows = connection.execute(
            f"""
            SELECT {expression}, d.document_id, d.source_uri, d.title, d.status, d.reason, d.page_count, d.size_bytes,
                d.uploaded_at, d.processed_at, d.batch
            FROM {_tables([*here, expression])} WHERE {" AND ".join(here)}
            ORDER BY {expression} {order}, d.document_id {order} LIMIT $limit
            """,
            {**values, **place, "limit": limit + 1},
        ).fetchall()
        more = len(rows) > limit
        shown = rows[limit - 1 :: -1] if backwards and more else rows[::-1] if backwards else rows[:limit]
        read = _read(connection, [row[1] for row in shown])
    found = [ListedDocument(*row[1:], *read.get(row[1], (0, (), None, None))) for row in shown]
    first, last = ((shown[0][0], shown[0][1]), (shown[-1][0], shown[-1][1])) if shown else (None, None)
    is_first = not more if backwards else after is None
    is_last = after is None if backwards else not more
    return Listing(found, int(total[0]) if total else 0, None if is_last else last, None if is_first else first)


def _tables(used: Sequence[str]) -> str:
    """Documents, and what their pages come to where one of the expressions uses it: of all pages, 0.1 s a million."""
    columns = [f"{sql} AS {name}" for name, sql in _OF_PAGES.items() if any(f"m.{name}" in text for text in used)]
    if not columns:
        return "ocr.documents d"
    return (
        f"ocr.documents d LEFT JOIN (SELECT document_id, {', '.join(columns)} FROM ocr.pages GROUP BY document_id) m"
        " ON m.document_id = d.document_id"
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
        conditions.append("(contains(lower(d.source_uri), lower($name)) OR contains(lower(d.title), lower($name)))")
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
    if wanted.since:
        conditions.append("d.uploaded_at >= CAST($since AS TIMESTAMPTZ)")
        values["since"] = f"{wanted.since.isoformat()} 00:00:00+00"
    if wanted.until and wanted.until < date.max:
        conditions.append("d.uploaded_at < CAST($until AS TIMESTAMPTZ)")
        values["until"] = f"{(wanted.until + timedelta(days=1)).isoformat()} 00:00:00+00"
    if wanted.quality_below is not None:
        conditions.append("m.quality < $quality_below")
        values["quality_below"] = wanted.quality_below
    return conditions, values
