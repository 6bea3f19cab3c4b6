"""What is asked again: the pages without a text of the engine, and the documents that were rejected whole.

Here belongs this one question, for the command that asks again and for the screen that shows what would be asked: both
must mean the same pages.
"""

# ruff: noqa: S608  the query is made of our own text; values are parameters

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

import duckdb

_FAILED = """
    SELECT document_id, batch, page_number, reason
    FROM (
        SELECT d.document_id, d.batch, p.page_number, p.reason, p.processed_at
        FROM ocr.documents d JOIN ocr.pages p USING (document_id)
        WHERE d.deleted_at IS NULL AND p.status IN ('failed', 'skipped', 'fallback')
        UNION ALL
        SELECT document_id, batch, NULL, reason, processed_at FROM ocr.documents
        WHERE deleted_at IS NULL AND status = 'rejected'
    )
    WHERE list_contains($reasons, reason) AND ($since IS NULL OR processed_at >= $since)
        AND ($documents IS NULL OR document_id IN (SELECT unnest(CAST($documents AS VARCHAR[]))))
"""


def failed_by_document(
    connection: duckdb.DuckDBPyConnection,
    reasons: Collection[str],
    *,
    documents: Sequence[str] | None = None,
    since: datetime | None = None,
) -> list[tuple[str, str, int]]:
    """(document, its batch, pages that failed for one of `reasons`), sorted; 0 pages for a document rejected whole.

    `documents`: only of those; `since`: only what failed then or later.
    """
    return connection.execute(
        f"SELECT document_id, batch, count(page_number) FROM ({_FAILED}) GROUP BY ALL ORDER BY ALL",
        _parameters(reasons, documents, since),
    ).fetchall()


def failed_by_reason(
    connection: duckdb.DuckDBPyConnection, reasons: Collection[str], *, documents: Sequence[str] | None = None
) -> list[tuple[str, int]]:
    """(reason, pages and rejected documents that failed for it), of the same."""
    return connection.execute(
        f"SELECT reason, count(*) FROM ({_FAILED}) GROUP BY ALL ORDER BY ALL", _parameters(reasons, documents, None)
    ).fetchall()


def _parameters(
    reasons: Collection[str], documents: Sequence[str] | None, since: datetime | None
) -> dict[str, list[str] | datetime | None]:
    return {
        "reasons": sorted(map(str, reasons)),
        "since": since,
        "documents": list(documents) if documents is not None else None,
    }
