"""The figures of the tables: pages and documents by status, attempts, the ledger's balance, cost. Only reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from ocr_pipeline.records import DocumentStatus, PageStatus
from ocr_pipeline.warehouse.connection import Warehouse


@dataclass(frozen=True, slots=True)
class Family:
    """One gauge: its labels, and `(label values, number)` for each sample."""

    name: str
    help: str
    labels: tuple[str, ...]
    samples: tuple[tuple[tuple[str, ...], float], ...]


_PAGES = """
SELECT p.status, coalesce(p.reason, ''), coalesce(p.backend, ''), count(*)
FROM ocr.current_pages p GROUP BY ALL
"""
_DOCUMENTS = "SELECT status, coalesce(reason, ''), count(*) FROM ocr.current_documents GROUP BY ALL"
_MISSING = """
SELECT coalesce(sum(abs(d.page_count - coalesce(p.pages, 0))), 0)
FROM ocr.current_documents d
LEFT JOIN (SELECT document_id, count(*) AS pages FROM ocr.pages GROUP BY 1) p ON p.document_id = d.document_id
WHERE d.status <> 'rejected'
"""
_LOADED = "SELECT epoch(max(processed_at)) FROM ocr.documents"
_ATTEMPTS = "SELECT backend, outcome, count(*) FROM ocr.attempts GROUP BY ALL"
_TOKENS = """
SELECT backend, sum(seconds), coalesce(sum(prompt_tokens), 0), coalesce(sum(completion_tokens), 0)
FROM ocr.attempts GROUP BY backend
"""
_COST = """
SELECT backend, pages, busy_seconds, usd_per_month, usd_busy, usd_per_1000_pages_busy, usd_per_1000_pages_owned
FROM ocr.backend_cost
WHERE month = date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'
"""


DEATHS = ("engine_dead", "connection_lost")
"""Outcomes of requests that were open when a server died; out of memory ends it so."""


def figures(warehouse: Warehouse, backends: Sequence[str] = ()) -> list[Family]:
    """All figures of one moment. `backends`: the names in the backends file. Raises WarehouseError and DuckDB's errors.

    What the tables hold is a gauge, also where it mostly grows: a purge or a page that is read again takes rows away,
    and a counter that falls looks to Prometheus like a process that started anew and counted all of them since.
    """
    with warehouse.read() as connection:
        return list(_families(connection, backends))


def _families(connection: duckdb.DuckDBPyConnection, backends: Sequence[str]) -> Iterator[Family]:
    # every status is there from the start: an alert on a series that does not exist yet says nothing
    pages = {(status.value, "", ""): 0.0 for status in PageStatus}
    pages |= {(status, reason, backend): n for status, reason, backend, n in _rows(connection, _PAGES)}
    yield _family("ocr_pages", "Pages in the tables by status, reason and backend.", pages,
                  ("status", "reason", "backend"))  # fmt: skip
    documents = {(status.value, ""): 0.0 for status in DocumentStatus}
    documents |= {(status, reason): n for status, reason, n in _rows(connection, _DOCUMENTS)}
    yield _family("ocr_documents", "Documents in the tables by status and reason.", documents, ("status", "reason"))
    yield _family(
        "ocr_ledger_missing_pages",
        "Pages of documents that have no row, or rows without a page. Anything but 0 is a fault of the pipeline.",
        {(): _rows(connection, _MISSING)[0][0]},
    )
    loaded = _rows(connection, _LOADED)[0][0]
    yield _family(
        "ocr_last_loaded_timestamp_seconds",
        "When the newest rows were loaded; no sample while there are none.",
        {} if loaded is None else {(): loaded},
    )
    attempts = {(backend, outcome): 0.0 for backend in backends for outcome in ("ok", *DEATHS)}
    attempts |= {(backend, outcome): n for backend, outcome, n in _rows(connection, _ATTEMPTS)}
    yield _family("ocr_attempts", "Requests in the tables, by backend and outcome.", attempts, ("backend", "outcome"))
    spent = _rows(connection, _TOKENS)
    yield _family("ocr_attempt_seconds", "Seconds of these requests.", {(b,): s for b, s, _, _ in spent}, ("backend",))
    tokens = {(b, "prompt"): p for b, _, p, _ in spent} | {(b, "completion"): c for b, _, _, c in spent}
    yield _family("ocr_tokens", "Tokens of these requests by kind.", tokens, ("backend", "kind"))
    yield from _cost(_rows(connection, _COST))


def _cost(rows: list[tuple[Any, ...]]) -> Iterator[Family]:
    """Of this month so far (UTC). A backend without a price in the backends file has no cost samples."""
    yield _family("ocr_month_pages", "Pages answered this month.", {(row[0],): row[1] for row in rows}, ("backend",))
    yield _family("ocr_month_busy_seconds", "Seconds of this month in which a request was open.",
                  {(row[0],): row[2] for row in rows}, ("backend",))  # fmt: skip
    yield _family("ocr_month_price_usd", "What the machine costs a month: power and hardware written off.",
                  {(row[0],): row[3] for row in rows if row[3] is not None}, ("backend",))  # fmt: skip
    yield _family("ocr_month_busy_usd", "The share of the month's price in which the machine worked.",
                  {(row[0],): row[4] for row in rows if row[4] is not None}, ("backend",))  # fmt: skip
    per_page = {(row[0], "busy"): row[5] for row in rows if row[5] is not None}
    per_page |= {(row[0], "owned"): row[6] for row in rows if row[6] is not None}
    yield _family("ocr_cost_usd_per_1000_pages", "Of this month: by busy hours, and by the whole month.", per_page,
                  ("backend", "counted"))  # fmt: skip


def _rows(connection: duckdb.DuckDBPyConnection, question: str) -> list[tuple[Any, ...]]:
    return connection.execute(question).fetchall()


def _family(name: str, help_text: str, samples: Mapping[Any, Any], labels: tuple[str, ...] = ()) -> Family:
    return Family(name, help_text, labels, tuple((key, float(value)) for key, value in sorted(samples.items())))
