"""What a retry asks again: pages for which the engine gave no text, and documents that were rejected as a whole.

Here belongs this one query. The command that retries, the screen that shows what would be retried and that screen's
filters all use it, so that they mean the same pages.
"""

# ruff: noqa: S608  the query is made of our own text; values are parameters

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import duckdb

from ocr_pipeline.warehouse.page_list import PAGES, PageFilter, page_conditions

MAX_ASKED_AGAIN = 10_000
"""Documents of one retry: more than a person has looked at."""

AGAIN = ("failed", "skipped", "fallback")
"""Statuses of pages that can be asked again: the engine gave no text."""

# A page that has the image of an earlier one takes its transcript, with the time at which that one failed; but no page
# failed before its upload.
_FAILED = f"""
    SELECT document_id, batch, page_number, reason
    FROM (
        SELECT d.document_id, d.batch, p.page_number, p.reason, greatest(p.processed_at, d.uploaded_at) AS processed_at
        FROM ocr.documents d JOIN ocr.pages p USING (document_id)
        WHERE d.deleted_at IS NULL AND p.status IN {AGAIN}
        UNION ALL
        SELECT document_id, batch, NULL, reason, processed_at FROM ocr.documents
        WHERE deleted_at IS NULL AND status = 'rejected'
    )
    WHERE list_contains($reasons, reason) AND ($since IS NULL OR processed_at >= $since)
        AND ($documents IS NULL OR document_id IN (SELECT unnest(CAST($documents AS VARCHAR[]))))
"""


@dataclass(frozen=True, slots=True)
class AskedAgain:
    """The failed pages that a filter lets through, and what is asked again for them: by document and reason."""

    document_ids: tuple[str, ...]  # at most MAX_ASKED_AGAIN
    reasons: Mapping[str, int]  # how many pages (or rejected documents) of these documents are asked, for each reason
    documents: int  # without the cap
    filtered: int  # pages (or rejected documents) that the filter lets through, without the cap


def failed_by_document(
    connection: duckdb.DuckDBPyConnection,
    reasons: Collection[str],
    *,
    documents: Sequence[str] | None = None,
    since: datetime | None = None,
) -> list[tuple[str, str, int]]:
    """(document, its batch, number of pages that failed for one of `reasons`), sorted. A rejected document has 0 pages.

    `documents`: only of those; `since`: only what failed then or later.
    """
    return connection.execute(
        f"SELECT document_id, batch, count(page_number) FROM ({_FAILED}) GROUP BY ALL ORDER BY ALL",
        _parameters(reasons, documents, since),
    ).fetchall()


def failed_by_reason(
    connection: duckdb.DuckDBPyConnection, reasons: Collection[str], *, documents: Sequence[str] | None = None
) -> list[tuple[str, int]]:
    """(reason, number of pages and rejected documents that failed for it), of the same pages and documents."""
    return connection.execute(
        f"SELECT reason, count(*) FROM ({_FAILED}) GROUP BY ALL ORDER BY ALL", _parameters(reasons, documents, None)
    ).fetchall()


def asked_again(connection: duckdb.DuckDBPyConnection, wanted: PageFilter) -> AskedAgain:
    """What is asked again for the failed pages that the filter lets through: all pages of the same documents that
    failed for the same reasons, since the command, too, asks by document and reason."""
    conditions, values = page_conditions(wanted)
    where = " AND ".join([*conditions, f"p.status IN {AGAIN}", "p.reason IS NOT NULL"])
    found = connection.execute(
        f"SELECT p.document_id, list(DISTINCT p.reason), count(*) FROM {PAGES} WHERE {where} GROUP BY ALL ORDER BY 1",
        values,
    ).fetchall()
    taken = found[:MAX_ASKED_AGAIN]
    ids, reasons = [row[0] for row in taken], sorted({reason for row in taken for reason in row[1]})
    asked = dict(failed_by_reason(connection, reasons, documents=ids))
    return AskedAgain(tuple(ids), asked, len(found), sum(row[2] for row in found))


def _parameters(
    reasons: Collection[str], documents: Sequence[str] | None, since: datetime | None
) -> dict[str, list[str] | datetime | None]:
    return {
        "reasons": sorted(map(str, reasons)),
        "since": since,
        "documents": list(documents) if documents is not None else None,
    }
