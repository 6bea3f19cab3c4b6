"""Which documents of a batch are missing in the tables, by the rule of replacement (`ranking.py`)."""

# ruff: noqa: S608  the SQL put together here is ours; values are parameters

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

import duckdb

from ocr_pipeline.warehouse.ranking import FOUND_SQL, Rank


@dataclass(frozen=True, slots=True)
class Loadable:
    """A document as a batch holds it."""

    document_id: str
    uploaded_at: datetime
    etag: str
    batch: str


def not_there(connection: duckdb.DuckDBPyConnection, documents: Collection[Loadable]) -> set[Loadable]:
    """Those of the documents for which the tables have neither the row of this batch nor one that wins over it.

    One query, however many documents there are. Several may be versions of one document.
    """
    rows = connection.execute(
        f"SELECT document_id, uploaded_at, etag, batch, {FOUND_SQL} FROM ocr.documents"
        " WHERE document_id IN (SELECT unnest(CAST(? AS VARCHAR[])))",
        [list({asked.document_id for asked in documents})],
    ).fetchall()
    held = {row[0]: (Loadable(*row[:4]), bool(row[4])) for row in rows}

    def there(asked: Loadable) -> bool:
        return asked.document_id in held and _goes_before(*held[asked.document_id], asked)

    return {asked for asked in documents if not there(asked)}


def _goes_before(row: Loadable, found: bool, asked: Loadable) -> bool:
    """Whether the row stays when what is asked for is loaded. `found`: of the row.

    What is asked for may not have run yet. But of two versions in one second only one can be found.
    """
    asked_found = found if row.etag == asked.etag else not found
    return Rank(row.uploaded_at, found, row.batch) >= Rank(asked.uploaded_at, asked_found, asked.batch)


def present_batches(connection: duckdb.DuckDBPyConnection) -> set[str]:
    """The batches that have a row in `documents`."""
    return {name for (name,) in connection.execute("SELECT DISTINCT batch FROM ocr.documents").fetchall()}
