"""Forgetting a document: its rows in every table, and the proof.

Here belongs what the tables must forget. Parquet, markdown, images and transcripts are the lake's.
"""

# ruff: noqa: S608  the names of tables put into SQL here are ours; values are parameters

from __future__ import annotations

from dataclasses import dataclass

import duckdb

from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.errors import WarehouseError
from ocr_pipeline.warehouse.rebuild import drop_leftovers, is_rebuilding, rebuilt_tables
from ocr_pipeline.warehouse.schema import TABLES
from ocr_pipeline.warehouse.search_index import drop_search_index, has_search_index, indexed
from ocr_pipeline.warehouse.sql import count

_TABLES = (*TABLES, "deletions")


@dataclass(frozen=True, slots=True)
class PurgeCounts:
    """Rows that were removed."""

    documents: int
    pages: int
    regions: int
    attempts: int
    search_index: bool  # whether the full-text index went too


def batches_of(warehouse: Warehouse, document_id: str) -> list[str]:
    """The batches that the document's rows are from."""
    with warehouse.read() as connection:
        rows = connection.execute(
            "SELECT DISTINCT batch FROM ocr.documents WHERE document_id = ? ORDER BY batch", [document_id]
        ).fetchall()
    return [name for (name,) in rows]


def check_ready(warehouse: Warehouse) -> None:
    """Raises WarehouseError where `purge` could not be done now: ask before anything else of the document goes."""
    with warehouse.session() as connection:
        _end_rebuild(warehouse, connection)


def purge(warehouse: Warehouse, document_id: str) -> PurgeCounts:
    """Removes all rows of a document, its mark of deletion too, in one transaction; then looks again. A full-text index
    goes with them: its words cannot be taken out singly. So does what a rebuild that was killed has left behind.

    Call it when the document is in no Parquet file any more. Raises WarehouseError where a rebuild is at work on
    MotherDuck, and where rows are left: a load put the document back at the same time. The bytes of removed rows may
    stand in free parts of a DuckDB file until they are written over: `compact` (`compact.py`) leaves them behind.
    """

    def work(connection: duckdb.DuckDBPyConnection) -> PurgeCounts:
        _end_rebuild(warehouse, connection)
        removed = {
            table: count(connection, f"DELETE FROM ocr.{table} WHERE document_id = ?", [document_id])
            for table in _TABLES
        }
        del removed["deletions"]
        knew = has_search_index(connection) and (any(removed.values()) or indexed(connection, document_id) > 0)
        if knew:
            drop_search_index(connection)
        return PurgeCounts(**removed, search_index=knew)

    removed = warehouse.run(work)
    left = sum(left_of(warehouse, document_id).values())
    if left:
        raise WarehouseError(f"{left} rows of document {document_id} came back while it was purged: purge it again")
    return removed


def left_of(warehouse: Warehouse, document_id: str) -> dict[str, int]:
    """How many rows of each table name the document, those of the full-text index (`searched`) and of tables that a
    rebuild has not put in place among them."""
    with warehouse.read() as connection:
        found = {"searched": indexed(connection, document_id)}
        for table in (*(f"ocr.{name}" for name in _TABLES), *rebuilt_tables(connection)):
            rows = count(connection, f"SELECT count(*) FROM {table} WHERE document_id = ?", [document_id])
            found[table.removeprefix("ocr.")] = rows
    return found


def _end_rebuild(warehouse: Warehouse, connection: duckdb.DuckDBPyConnection) -> None:
    """A rebuild that has read the document's rows would bring them back. On a file it is dead, since this connection is
    the only one; on MotherDuck nobody can tell."""
    if not is_rebuilding(connection):
        return
    if warehouse.is_motherduck:
        raise WarehouseError(
            "a rebuild is at work, or was killed: wait until it is over, or end it and run `ocr-pipeline "
            "rebuild-warehouse` again; then purge again"
        )
    drop_leftovers(connection)
