"""What the tables hold of documents, by the rule of replacement (`load.py`): is a batch to be loaded again?"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

import duckdb


@dataclass(frozen=True, slots=True)
class Loadable:
    """A document as a batch holds it."""

    document_id: str
    uploaded_at: datetime
    etag: str
    batch: str


def not_there(connection: duckdb.DuckDBPyConnection, documents: Collection[Loadable]) -> set[Loadable]:
    """Of these documents, those that the tables hold neither from this batch nor from one that goes before it.

    One question, however many there are; several may be versions of one document.
    """
    rows = connection.execute(
        "SELECT document_id, uploaded_at, etag, batch FROM ocr.documents"
        " WHERE document_id IN (SELECT unnest(CAST(? AS VARCHAR[])))",
        [list({asked.document_id for asked in documents})],
    ).fetchall()
    held = {row[0]: Loadable(*row) for row in rows}

    def there(asked: Loadable) -> bool:
        return asked.document_id in held and _goes_before(held[asked.document_id], asked)

    return {asked for asked in documents if not there(asked)}


def _goes_before(row: Loadable, asked: Loadable) -> bool:
    if row.uploaded_at != asked.uploaded_at:
        return row.uploaded_at > asked.uploaded_at
    # of two versions in one second the one that was found stays, whatever its batch
    return row.batch >= asked.batch or row.etag != asked.etag


def present_batches(connection: duckdb.DuckDBPyConnection) -> set[str]:
    """The batches that have a row in `documents`."""
    return {name for (name,) in connection.execute("SELECT DISTINCT batch FROM ocr.documents").fetchall()}
