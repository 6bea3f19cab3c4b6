"""Documents by the pageful: what a list on a screen shows, filtered and sorted, from any place on.

Here belongs this one question. It is asked by the place after which to go on (keyset) and not by an offset: a list of
100,000 documents costs the same on its last page, and does not jump when rows come in.
"""

# ruff: noqa: S608  the names of tables put into SQL here are ours; values are parameters

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.errors import WarehouseError

SORTS = ("uploaded_at", "processed_at", "source_uri", "status", "page_count", "size_bytes")
"""Columns to sort by; none of them is ever NULL."""


@dataclass(frozen=True, slots=True)
class ListedDocument:
    document_id: str
    source_uri: str
    title: str | None
    status: str
    reason: str | None
    page_count: int
    bad_pages: int  # failed and skipped
    size_bytes: int
    uploaded_at: datetime
    processed_at: datetime
    batch: str


@dataclass(frozen=True, slots=True)
class Listing:
    documents: list[ListedDocument]
    total: int  # that the filter lets through, on all pages
    next: tuple[Any, str] | None  # hand it back as `after`; None on the last page


def documents(
    warehouse: Warehouse,
    *,
    name: str | None = None,
    status: str | None = None,
    reason: str | None = None,
    sort: str = "uploaded_at",
    descending: bool = True,
    after: tuple[Any, str] | None = None,
    limit: int = 50,
) -> Listing:
    """One pageful of the documents that are not deleted.

    `name`: a part of the key or the title, in any case; `status`: of the document; `reason`: of the document or of one
    of its pages. `after`: the `next` of the page before. Raises WarehouseError for a sort that is none of `SORTS`.
    """
    if sort not in SORTS:
        raise WarehouseError(f"cannot sort by {sort!r}: one of {', '.join(SORTS)}")
    conditions, values = ["deleted_at IS NULL"], {}
    if name:
        conditions.append("(contains(lower(source_uri), lower($name)) OR contains(lower(title), lower($name)))")
        values["name"] = name
    if status:
        conditions.append("status = $status")
        values["status"] = status
    if reason:
        conditions.append(
            "(reason = $reason OR document_id IN (SELECT document_id FROM ocr.pages WHERE reason = $reason))"
        )
        values["reason"] = reason
    where = " AND ".join(conditions)
    direction, beyond = ("DESC", "<") if descending else ("ASC", ">")
    place: dict[str, Any] = {}
    here = where
    if after is not None:
        here += f" AND ({sort} {beyond} $value OR ({sort} = $value AND document_id {beyond} $id))"
        place = {"value": after[0], "id": after[1]}
    with warehouse.read() as connection:
        total = connection.execute(f"SELECT count(*) FROM ocr.documents WHERE {where}", values).fetchone()
        rows = connection.execute(
            f"""
            WITH shown AS (
                SELECT document_id, source_uri, title, status, reason, page_count, size_bytes, uploaded_at,
                    processed_at, batch
                FROM ocr.documents WHERE {here} ORDER BY {sort} {direction}, document_id {direction} LIMIT $limit
            ),
            bad AS (
                SELECT document_id, count(*) AS n FROM ocr.pages
                WHERE status IN ('failed', 'skipped') AND document_id IN (SELECT document_id FROM shown)
                GROUP BY document_id
            )
            SELECT document_id, source_uri, title, status, reason, page_count, coalesce(bad.n, 0), size_bytes,
                uploaded_at, processed_at, batch
            FROM shown LEFT JOIN bad USING (document_id)
            ORDER BY {sort} {direction}, document_id {direction}
            """,
            {**values, **place, "limit": limit + 1},
        ).fetchall()
    found = [ListedDocument(*row) for row in rows[:limit]]
    more = len(rows) > limit and found
    last = (getattr(found[-1], sort), found[-1].document_id) if more else None
    return Listing(found, int(total[0]) if total else 0, last)
