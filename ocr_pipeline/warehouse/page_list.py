"""Pages by the pageful (`paging.py`): what a list on a screen shows, filtered and sorted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date, datetime
from typing import Any

import duckdb

from ocr_pipeline.warehouse.paging import NAMED, ListQuery, Place, Sort, Turn, in_days, pageful

PAGES = "ocr.pages p JOIN ocr.documents d ON d.document_id = p.document_id"

_SORTS: Mapping[str, Sort] = {
    "processed_at": Sort("p.processed_at", "TIMESTAMPTZ"),
    "source_uri": Sort("d.source_uri", "VARCHAR"),
    "quality": Sort("p.quality", "DOUBLE", ("2.0", "-1.0")),
    "agreement": Sort("p.agreement", "DOUBLE", ("2.0", "-1.0")),
    "seconds": Sort("p.seconds", "DOUBLE", ("1e300", "-1.0")),
    "attempts": Sort("p.attempts", "BIGINT"),
}
SORTS = tuple(_SORTS)

_QUERY = ListQuery(
    columns="p.document_id, d.source_uri, d.title, p.page_number, p.status, p.reason, p.backend, p.seconds, p.quality,"
    " p.agreement, p.attempts, p.processed_at",
    tables=lambda _: PAGES,
    key={"p.document_id": "VARCHAR", "p.page_number": "INTEGER"},
    sorts=_SORTS,
)


@dataclass(frozen=True, slots=True)
class PageFilter:
    """What a page must be; None and "" let everything through."""

    status: str | None = None  # or several: "failed,skipped"
    reason: str | None = None
    backend: str | None = None
    batch: str | None = None
    name: str | None = None  # a part of the document's key or title
    since: date | None = None  # UTC days of `processed_at`, both included
    until: date | None = None
    agreement_from: float | None = None  # included
    agreement_to: float | None = None  # not included, but 1.0 is

    def as_query(self) -> dict[str, str]:
        return {f.name: str(value) for f in fields(self) if (value := getattr(self, f.name)) is not None}


@dataclass(frozen=True, slots=True)
class ListedPage:
    document_id: str
    source_uri: str
    title: str | None
    page_number: int
    status: str
    reason: str | None
    backend: str | None
    seconds: float | None
    quality: float | None
    agreement: float | None
    attempts: int
    processed_at: datetime


@dataclass(frozen=True, slots=True)
class PageListing:
    """One pageful; fields as in `paging.Pageful`."""

    pages: list[ListedPage]
    total: int
    next: Place | None
    previous: Place | None


def pages(connection: duckdb.DuckDBPyConnection, wanted: PageFilter, turn: Turn) -> PageListing:
    """One pageful of the pages of documents that are not deleted. Raises WarehouseError for a sort that is none of
    `SORTS`. Among equals, documents by id and pages by number."""
    found = pageful(connection, _QUERY, *page_conditions(wanted), turn)
    return PageListing([ListedPage(*row) for row in found.rows], found.total, found.next, found.previous)


def page_conditions(wanted: PageFilter) -> tuple[list[str], dict[str, Any]]:
    """What must hold of a row of `PAGES`, and the values in it."""
    conditions, values = ["d.deleted_at IS NULL"], dict[str, Any]()
    if wanted.status:
        conditions.append("list_contains($status, p.status)")
        values["status"] = [status.strip() for status in wanted.status.split(",")]
    for column in ("reason", "backend", "batch"):
        if value := getattr(wanted, column):
            conditions.append(f"p.{column} = ${column}")
            values[column] = value
    if wanted.name:
        conditions.append(NAMED)
        values["name"] = wanted.name
    of_days, days = in_days("p.processed_at", wanted.since, wanted.until)
    conditions += of_days
    values |= days
    if wanted.agreement_from is not None:
        conditions.append("p.agreement >= $agreement_from")
        values["agreement_from"] = wanted.agreement_from
    if wanted.agreement_to is not None:
        conditions.append("(p.agreement < $agreement_to OR ($agreement_to >= 1 AND p.agreement = 1))")
        values["agreement_to"] = wanted.agreement_to
    return conditions, values
