"""Numbers over everything: how pages ended, when, by whom, at what speed and cost, and how well.

Here belong those queries. What is drawn of them is in `charts.py`. The views of the warehouse (`backend_speed`,
`backend_cost`) hold the formulas; here they are only added up over time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import duckdb

from ocr_pipeline.warehouse.views import BAD_PAGES

MAX_COLUMNS = 62  # of the plot over time
BUCKETS = 20  # of agreement


@dataclass(frozen=True, slots=True)
class Ledger:
    """Pages by status and reason; documents by status; documents rejected, by reason."""

    pages: list[tuple[str, str | None, int]]
    documents: list[tuple[str, int]]
    rejected: list[tuple[str | None, int]]


@dataclass(frozen=True, slots=True)
class Period:
    """Pages that were made in a stretch of days."""

    first: date
    last: date
    good: int
    bad: int


@dataclass(frozen=True, slots=True)
class BackendFigures:
    """One backend, over its whole history in the tables."""

    backend: str
    requests: int
    pages: int
    faults: int
    busy_seconds: float
    pages_per_second: float | None
    tokens_per_second: float | None
    median_seconds: float | None
    p95_seconds: float | None
    usd_per_1000_pages_busy: float | None  # None: no price is set
    usd_per_1000_pages_owned: float | None


@dataclass(frozen=True, slots=True)
class Agreement:
    """Pages that have a text layer: how many in each twentieth from 0 to 1, and by backend."""

    buckets: list[int]
    by_backend: list[tuple[str, int, float, int]]  # backend, pages, mean, pages below 0.8
    without: int  # pages with a text, but no layer to hold it against


@dataclass(frozen=True, slots=True)
class Overview:
    ledger: Ledger
    periods: list[Period]
    backends: list[BackendFigures]
    agreement: Agreement


def overview(connection: duckdb.DuckDBPyConnection) -> Overview:
    return Overview(ledger(connection), periods(connection), backends(connection), agreement(connection))


def ledger(connection: duckdb.DuckDBPyConnection) -> Ledger:
    pages = connection.execute(
        "SELECT status, reason, count(*) AS n FROM ocr.current_pages GROUP BY status, reason ORDER BY status, n DESC"
    ).fetchall()
    documents = connection.execute(
        "SELECT status, count(*) FROM ocr.current_documents GROUP BY status ORDER BY status"
    ).fetchall()
    rejected = connection.execute(
        "SELECT reason, count(*) AS n FROM ocr.current_documents WHERE status = 'rejected' GROUP BY ALL ORDER BY n DESC"
    ).fetchall()
    return Ledger(pages, documents, rejected)


def periods(connection: duckdb.DuckDBPyConnection) -> list[Period]:
    """Days, or stretches of equally many days where there are more than MAX_COLUMNS; empty ones are there too."""
    rows = connection.execute(
        """
        SELECT CAST(processed_at AT TIME ZONE 'UTC' AS DATE) AS day,
            count(*) FILTER (NOT list_contains($bad, status)),
            count(*) FILTER (list_contains($bad, status))
        FROM ocr.current_pages GROUP BY day ORDER BY day
        """,
        {"bad": list(BAD_PAGES)},
    ).fetchall()
    return in_periods(rows)


def in_periods(days: list[tuple[date, int, int]]) -> list[Period]:
    """Days with (day, good, bad), sorted, as at most MAX_COLUMNS stretches of one length without a gap."""
    if not days:
        return []
    first, last = days[0][0], days[-1][0]
    length = -(-((last - first).days + 1) // MAX_COLUMNS)
    count = -(-((last - first).days + 1) // length)
    good, bad = [0] * count, [0] * count
    for day, fine, failed in days:
        good[(day - first).days // length] += fine
        bad[(day - first).days // length] += failed
    starts = [first + timedelta(days=number * length) for number in range(count)]
    return [
        Period(start, min(start + timedelta(days=length - 1), last), good[number], bad[number])
        for number, start in enumerate(starts)
    ]


def backends(connection: duckdb.DuckDBPyConnection) -> list[BackendFigures]:
    rows = connection.execute(
        """
        WITH speed AS (
            SELECT backend, sum(requests) AS requests, sum(pages) AS pages, sum(faults) AS faults,
                sum(busy_seconds) AS busy, sum(tokens_per_second * busy_seconds) AS tokens
            FROM ocr.backend_speed GROUP BY backend
        ),
        took AS (
            SELECT backend, median(seconds) AS median, quantile_cont(seconds, 0.95) AS p95
            FROM ocr.attempts WHERE outcome = 'ok' GROUP BY backend
        ),
        cost AS (
            SELECT backend, 1000 * sum(usd_busy) / nullif(sum(pages), 0) AS busy,
                1000 * sum(usd_per_month) / nullif(sum(pages), 0) AS owned
            FROM ocr.backend_cost GROUP BY backend
        )
        SELECT s.backend, s.requests, s.pages, s.faults, s.busy, s.pages / nullif(s.busy, 0),
            s.tokens / nullif(s.busy, 0), t.median, t.p95, c.busy, c.owned
        FROM speed s LEFT JOIN took t USING (backend) LEFT JOIN cost c USING (backend)
        ORDER BY s.pages DESC, s.backend LIMIT 50
        """
    ).fetchall()
    return [BackendFigures(*row) for row in rows]


def agreement(connection: duckdb.DuckDBPyConnection) -> Agreement:
    rows = connection.execute(
        """
        SELECT least(CAST(floor(agreement * $n) AS INTEGER), $n - 1), count(*) FROM ocr.current_pages
        WHERE agreement BETWEEN 0 AND 1 GROUP BY ALL
        """,
        {"n": BUCKETS},
    ).fetchall()
    buckets = [0] * BUCKETS
    for number, count in rows:
        buckets[number] = count
    by_backend = connection.execute(
        """
        SELECT coalesce(backend, 'none'), count(*), avg(agreement), count(*) FILTER (agreement < 0.8)
        FROM ocr.current_pages WHERE agreement BETWEEN 0 AND 1 GROUP BY ALL ORDER BY ALL LIMIT 50
        """
    ).fetchall()
    without = connection.execute(
        "SELECT count(*) FROM ocr.current_pages WHERE agreement IS NULL AND status IN ('ok', 'fallback')"
    ).fetchone()
    return Agreement(buckets, by_backend, int(without[0]) if without else 0)
