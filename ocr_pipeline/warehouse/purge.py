"""Forgetting a document: its rows in every table, and the proof.

Here belongs what the tables must forget. Parquet, markdown, images and transcripts are the lake's.
"""

# ruff: noqa: S608  the names of tables put into SQL here are ours; values are parameters

from __future__ import annotations

from dataclasses import dataclass

import duckdb

from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.errors import WarehouseError
from ocr_pipeline.warehouse.schema import TABLES
from ocr_pipeline.warehouse.search_index import forget, indexed

_TABLES = (*TABLES, "deletions")


@dataclass(frozen=True, slots=True)
class PurgeCounts:
    """Rows that were removed, and what a new connection found afterwards (0: that is the proof)."""

    documents: int
    pages: int
    regions: int
    attempts: int
    left: int


def purge(warehouse: Warehouse, document_id: str) -> PurgeCounts:
    """Removes all rows of a document, its mark of deletion too, in one transaction; then looks again. A full-text index
    that knows the document goes with it: build it again.

    Raises WarehouseError where rows are left: a load put the document back at the same time. The bytes of removed rows
    may stand in free parts of a DuckDB file until they are written over: `compact` (`compact.py`) leaves them behind.
    """

    def work(connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
        removed = {}
        for table in _TABLES:
            row = connection.execute(f"DELETE FROM ocr.{table} WHERE document_id = ?", [document_id]).fetchone()
            removed[table] = int(row[0]) if row else 0
        forget(connection, document_id)
        return removed

    removed = warehouse.run(work)
    del removed["deletions"]
    left = sum(left_of(warehouse, document_id).values())
    if left:
        raise WarehouseError(f"{left} rows of document {document_id} came back while it was purged: purge it again")
    return PurgeCounts(**removed, left=left)


def left_of(warehouse: Warehouse, document_id: str) -> dict[str, int]:
    """How many rows of each table name the document, those of the full-text index (`searched`) among them."""
    with warehouse.read() as connection:
        found = {"searched": indexed(connection, document_id)}
        for table in _TABLES:
            row = connection.execute(
                f"SELECT count(*) FROM ocr.{table} WHERE document_id = $id", {"id": document_id}
            ).fetchone()
            found[table] = int(row[0]) if row else 0
    return found
