"""Which rows of a document the tables hold, when several batches have some: the rule of replacement, once.

Pure, with the same in SQL for rows that are compared in the database.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from ocr_pipeline.records import Reason

_NOT_FOUND = (Reason.MISSING, Reason.REPLACED)


class Rank(NamedTuple):
    """Of a document's rows those with the highest rank win."""

    uploaded_at: datetime
    found: bool
    """Whether the upload was there when its batch ran. It comes before the batch's name because a bucket dates uploads
    by whole seconds: of two versions in one second, the one that was no longer there must not win."""
    batch: str


def was_found(reason: Reason | str | None) -> bool:
    """`Rank.found` of a document that ended with this reason (None: with none)."""
    return reason not in _NOT_FOUND


FOUND_SQL = "coalesce(reason NOT IN (" + ", ".join(f"'{reason}'" for reason in _NOT_FOUND) + "), true)"
"""`was_found` of a row of `documents`."""

RANK_SQL = f"row(uploaded_at, {FOUND_SQL}, batch)"
"""`Rank` of a row of `documents`; two of them compare as the tuples do."""
