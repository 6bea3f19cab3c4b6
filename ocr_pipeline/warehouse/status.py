"""Where is my document: what the tables say of it.

Here belongs this one question. What has not reached the tables yet (inbox, batch, run) is asked elsewhere.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from ocr_pipeline.warehouse.connection import Warehouse


@dataclass(frozen=True, slots=True)
class DocumentState:
    """One document as it stands in the tables."""

    document_id: str
    status: str
    reason: str | None
    batch: str
    deleted_at: datetime | None
    page_count: int
    pages: Mapping[str, int]  # by status
    reasons: Mapping[str, int]  # pages by reason, those that have one


_DOCUMENTS = """
    SELECT document_id, status, reason, batch, deleted_at, page_count
    FROM ocr.documents
    WHERE document_id IN (SELECT unnest(CAST(? AS VARCHAR[])))
"""

_PAGES = """
    SELECT document_id, status, reason, count(*)
    FROM ocr.pages
    WHERE document_id IN (SELECT unnest(CAST(? AS VARCHAR[])))
    GROUP BY document_id, status, reason
    ORDER BY ALL
"""


def states(warehouse: Warehouse, document_ids: Sequence[str]) -> dict[str, DocumentState]:
    """The documents of these ids that the tables have, by id."""
    ids = list(document_ids)
    with warehouse.read() as connection:
        documents = connection.execute(_DOCUMENTS, [ids]).fetchall()
        counts = connection.execute(_PAGES, [ids]).fetchall()
    pages: defaultdict[str, Counter[str]] = defaultdict(Counter)
    reasons: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for document_id, status, reason, count in counts:
        pages[document_id][status] += count
        if reason is not None:
            reasons[document_id][reason] += count
    return {row[0]: DocumentState(*(*row, pages[row[0]], reasons[row[0]])) for row in documents}
