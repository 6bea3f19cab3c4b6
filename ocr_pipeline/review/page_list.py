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

SORTS: Mapping[str, tuple[str, bool]] = {
    # name: (expression that is never NULL, descending at first)
    "processed_at": ("p.processed_at", True),
    "source_uri": ("d.source_uri", False),
    "quality": ("coalesce(p.quality, 2.0)", False),
    "agreement": ("coalesce(p.agreement, 2.0)", False),
    "seconds": ("coalesce(p.seconds, -1.0)", True),
    "attempts": ("p.attempts", True),
}
MAX_ASKED_AGAIN = 10_000
"""Documents of one retry: more than a person has looked at."""

AGAIN = ("failed", "skipped", "fallback")
"""Statuses of pages that can be asked again: the engine gave no text."""


@dataclass(frozen=True, slots=True)
class PageFilter:
    """What a page must be; None and "" let everything through. Comes from a query: `from_query` checks it."""

    status: str | None = None
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
            since=_day(query.get("since", "")),
            until=_day(query.get("until", "")),
            agreement_from=_share(query.get("agreement_from", "")),
            agreement_to=_share(query.get("agreement_to", "")),
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


@dataclass(frozen=True, slots=True)
class AskedAgain:
    """The failed pages that a filter lets through, as they are asked again: by document and reason."""

    document_ids: tuple[str, ...]  # at most MAX_ASKED_AGAIN
    reasons: Mapping[str, int]  # how many pages (or rejected documents) for each reason
    documents: int  # without the cap


def pages(
    connection: duckdb.DuckDBPyConnection,
    wanted: PageFilter,
    *,
    sort: str,
    descending: bool,
    after: Sequence[Any] | None,
    limit: int,
) -> PageListing:
    """One pageful of the pages of documents that are not deleted. `sort` is one of `SORTS`."""
    expression, _ = SORTS[sort]
    conditions, values = _conditions(wanted)
    direction, beyond = ("DESC", "<") if descending else ("ASC", ">")
    here, place = list(conditions), dict(values)
    if after is not None:
        kind = "TIMESTAMPTZ" if sort == "processed_at" else "VARCHAR" if sort == "source_uri" else "DOUBLE"
        here.append(
            f"({expression} {beyond} TRY_CAST($value AS {kind}) OR ({expression} = TRY_CAST($value AS {kind}) AND"
            " (p.document_id, p.page_number) > ($id, TRY_CAST($number AS INTEGER))))"
        )
        place |= {"value": str(after[0]), "id": str(after[1]), "number": str(after[2])}
    tables = "ocr.pages p JOIN ocr.documents d ON d.document_id = p.document_id"
    total = connection.execute(f"SELECT count(*) FROM {tables} WHERE {' AND '.join(conditions)}", values).fetchone()
    rows = connection.execute(
        f"""
        SELECT p.document_id, d.source_uri, d.title, p.page_number, p.status, p.reason, p.backend, p.seconds, p.quality,
            p.agreement, p.attempts, p.processed_at, {expression}
        FROM {tables} WHERE {" AND ".join(here)}
        ORDER BY {expression} {direction}, p.document_id, p.page_number LIMIT $limit
        """,
        {**place, "limit": limit + 1},
    ).fetchall()
    found = [ListedPage(*row[:-1]) for row in rows[:limit]]
    more = len(rows) > limit and found
    last = (rows[limit - 1][-1], found[-1].document_id, found[-1].page_number) if more else None
    return PageListing(found, int(total[0]) if total else 0, last)


def asked_again(connection: duckdb.DuckDBPyConnection, wanted: PageFilter) -> AskedAgain:
    """The pages without a text of the engine among those that the filter lets through."""
    conditions, values = _conditions(wanted)
    where = " AND ".join([*conditions, f"p.status IN {AGAIN}", "p.reason IS NOT NULL"])
    tables = "ocr.pages p JOIN ocr.documents d ON d.document_id = p.document_id"
    reasons = connection.execute(
        f"SELECT p.reason, count(*) FROM {tables} WHERE {where} GROUP BY ALL ORDER BY ALL", values
    ).fetchall()
    documents = [
        row[0]
        for row in connection.execute(
            f"SELECT DISTINCT p.document_id FROM {tables} WHERE {where} ORDER BY ALL", values
        ).fetchall()
    ]
    return AskedAgain(tuple(documents[:MAX_ASKED_AGAIN]), dict(reasons), len(documents))


def _conditions(wanted: PageFilter) -> tuple[list[str], dict[str, Any]]:
    conditions, values = ["d.deleted_at IS NULL"], dict[str, Any]()
    for column in ("status", "reason", "backend", "batch"):
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


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def _share(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
