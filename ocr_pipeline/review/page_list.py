"""Pages by the pageful: filtered and sorted, from any place on; and the failed ones of a filter, to be asked again.

Here belong the filter of pages and its queries. Like the list of documents (`warehouse.listing`) it is asked by the
place after which to go on, so that the thousandth screen costs what the first one does.
"""

# ruff: noqa: S608  only our own column names are put into SQL here; values are parameters

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime, timedelta
from typing import Any

import duckdb

from ocr_pipeline.warehouse.failed import failed_by_reason

# name: (column, type, what stands for "none": (ascending, descending), so that it comes last)
_SORTS: Mapping[str, tuple[str, str, tuple[str, str] | None]] = {
    "processed_at": ("p.processed_at", "TIMESTAMPTZ", None),
    "source_uri": ("d.source_uri", "VARCHAR", None),
    "quality": ("p.quality", "DOUBLE", ("2.0", "-1.0")),
    "agreement": ("p.agreement", "DOUBLE", ("2.0", "-1.0")),
    "seconds": ("p.seconds", "DOUBLE", ("1e300", "-1.0")),
    "attempts": ("p.attempts", "BIGINT", None),
}
SORTS = tuple(_SORTS)
_TABLES = "ocr.pages p JOIN ocr.documents d ON d.document_id = p.document_id"
MAX_ASKED_AGAIN = 10_000
"""Documents of one retry: more than a person has looked at."""

AGAIN = ("failed", "skipped", "fallback")
"""Statuses of pages that can be asked again: the engine gave no text."""


@dataclass(frozen=True, slots=True)
class PageFilter:
    """What a page must be; None and "" let everything through. Comes from a query: `from_query` checks it."""

    status: str | None = None  # or several: "failed,skipped"
    reason: str | None = None
    backend: str | None = None
    batch: str | None = None
    name: str | None = None  # a part of the document's key or title
    since: date | None = None  # UTC days of `processed_at`, both included
    until: date | None = None
    agreement_from: float | None = None  # included
    agreement_to: float | None = None  # not included, but 1.0 is

    @classmethod
    def from_query(cls, query: Mapping[str, str]) -> PageFilter:
        """What is no day and no number is left out, as if it had not been there."""
        return cls(
            **{name: query.get(name, "")[:1000] or None for name in ("status", "reason", "backend", "batch", "name")},
            since=day(query.get("since", "")),
            until=day(query.get("until", "")),
            agreement_from=share(query.get("agreement_from", "")),
            agreement_to=share(query.get("agreement_to", "")),
        )

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
    pages: list[ListedPage]
    total: int
    next: tuple[Any, str, int] | None  # hand it back as `after`; None at the end
    previous: tuple[Any, str, int] | None  # hand it back as `after`, with `backwards`; None at the beginning


@dataclass(frozen=True, slots=True)
class AskedAgain:
    """The failed pages that a filter lets through, and what is asked again for them: by document and reason."""

    document_ids: tuple[str, ...]  # at most MAX_ASKED_AGAIN
    reasons: Mapping[str, int]  # how many pages (or rejected documents) of these documents are asked, for each reason
    documents: int  # without the cap
    filtered: int  # pages (or rejected documents) that the filter lets through, without the cap


def pages(
    connection: duckdb.DuckDBPyConnection,
    wanted: PageFilter,
    *,
    sort: str,
    descending: bool,
    after: Sequence[Any] | None,
    backwards: bool = False,
    limit: int,
) -> PageListing:
    """One pageful of the pages of documents that are not deleted. `sort` is one of `SORTS`; `after` and `backwards` as
    in `warehouse.listing`. Among equals, documents by id and pages by number."""
    expression, kind, none = _SORTS[sort]
    if none:
        expression = f"coalesce({expression}, {none[descending]})"
    conditions, values = _conditions(wanted)
    order, beyond = ("DESC", "<") if descending != backwards else ("ASC", ">")
    equals, behind = ("DESC", "<") if backwards else ("ASC", ">")
    here, place = list(conditions), dict(values)
    if after is not None:
        value = f"TRY_CAST($value AS {kind})"
        here.append(
            f"({expression} {beyond} {value} OR ({expression} = {value} AND"
            f" (p.document_id, p.page_number) {behind} ($id, TRY_CAST($number AS INTEGER))))"
        )
        place |= {"value": str(after[0]), "id": str(after[1]), "number": str(after[2])}
    total = connection.execute(f"SELECT count(*) FROM {_TABLES} WHERE {' AND '.join(conditions)}", values).fetchone()
    rows = connection.execute(
        f"""
        SELECT {expression}, p.document_id, d.source_uri, d.title, p.page_number, p.status, p.reason, p.backend,
            p.seconds, p.quality, p.agreement, p.attempts, p.processed_at
        FROM {_TABLES} WHERE {" AND ".join(here)}
        ORDER BY {expression} {order}, p.document_id {equals}, p.page_number {equals} LIMIT $limit
        """,
        {**place, "limit": limit + 1},
    ).fetchall()
    more, shown = len(rows) > limit, rows[:limit]
    if backwards:
        shown.reverse()
    first, last = ((row[0], row[1], row[4]) for row in (shown[0], shown[-1])) if shown else (None, None)
    is_first = not more if backwards else after is None
    is_last = after is None if backwards else not more
    return PageListing(
        [ListedPage(*row[1:]) for row in shown],
        int(total[0]) if total else 0,
        None if is_last else last,
        None if is_first else first,
    )


def asked_again(connection: duckdb.DuckDBPyConnection, wanted: PageFilter) -> AskedAgain:
    """What is asked again for the pages without a text of the engine that the filter lets through: as the command asks,
    all pages of these documents that failed for these reasons."""
    conditions, values = _conditions(wanted)
    where = " AND ".join([*conditions, f"p.status IN {AGAIN}", "p.reason IS NOT NULL"])
    found = connection.execute(
        f"SELECT p.document_id, list(DISTINCT p.reason), count(*) FROM {_TABLES} WHERE {where} GROUP BY ALL ORDER BY 1",
        values,
    ).fetchall()
    taken = found[:MAX_ASKED_AGAIN]
    ids, reasons = [row[0] for row in taken], sorted({reason for row in taken for reason in row[1]})
    asked = dict(failed_by_reason(connection, reasons, documents=ids))
    return AskedAgain(tuple(ids), asked, len(found), sum(row[2] for row in found))


def _conditions(wanted: PageFilter) -> tuple[list[str], dict[str, Any]]:
    conditions, values = ["d.deleted_at IS NULL"], dict[str, Any]()
    if wanted.status:
        conditions.append("list_contains($status, p.status)")
        values["status"] = [status.strip() for status in wanted.status.split(",")]
    for column in ("reason", "backend", "batch"):
        if value := getattr(wanted, column):
            conditions.append(f"p.{column} = ${column}")
            values[column] = value
    if wanted.name:
        conditions.append("(contains(lower(d.source_uri), lower($name)) OR contains(lower(d.title), lower($name)))")
        values["name"] = wanted.name
    if wanted.since:
        conditions.append("p.processed_at >= CAST($since AS TIMESTAMPTZ)")
        values["since"] = f"{wanted.since.isoformat()} 00:00:00+00"
    if wanted.until and wanted.until < date.max:
        conditions.append("p.processed_at < CAST($until AS TIMESTAMPTZ)")
        values["until"] = f"{(wanted.until + timedelta(days=1)).isoformat()} 00:00:00+00"
    if wanted.agreement_from is not None:
        conditions.append("p.agreement >= $agreement_from")
        values["agreement_from"] = wanted.agreement_from
    if wanted.agreement_to is not None:
        conditions.append("(p.agreement < $agreement_to OR ($agreement_to >= 1 AND p.agreement = 1))")
        values["agreement_to"] = wanted.agreement_to
    return conditions, values


def day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def share(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
