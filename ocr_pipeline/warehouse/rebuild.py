"""All tables again from Parquet alone, beside the ones in use, then swapped.

Here belongs the rebuild and nothing else; rows get in by the same rules as in a load (`load.py`).
"""

# ruff: noqa: S608  the names of tables put into SQL here are ours; values are parameters

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import duckdb

from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.load import Deletions, Source, add_marks, load_rows, relation
from ocr_pipeline.warehouse.schema import TABLES
from ocr_pipeline.warehouse.sql import create_table

_FRESH = {table: f"ocr.rebuilt_{table}" for table in TABLES}


@dataclass(frozen=True, slots=True)
class RebuildCounts:
    """The tables after a rebuild, in rows."""

    batches: int
    documents: int
    pages: int
    regions: int
    attempts: int
    missing_batches: tuple[str, ...] = field(default=())
    """Batches that had rows before, and gave none now: their Parquet was not among what was read. Load them again."""


def rebuild(warehouse: Warehouse, batches: Iterable[Source], deletions: Deletions | None = None) -> RebuildCounts:
    """Makes the four tables from the rows of all batches, in any order, and puts them in the place of the present ones.

    `deletions`: what was seen of documents' deletions (the lake's batch lists know); marks that are in the warehouse
    stay too, where they are later. Readers see the old tables until the swap, one transaction. A DuckDB file is
    locked for the whole time. A rebuild that dies leaves the old tables; run it again.
    """
    with warehouse.session() as connection:
        add_marks(connection, deletions or {})
        for table in TABLES:
            connection.execute(f"DROP TABLE IF EXISTS {_FRESH[table]}")
            connection.execute(create_table(table, _FRESH[table]))
        count = 0
        seen: set[str] = set()
        for tables in batches:
            connection.begin()
            load_rows(connection, tables, into=_FRESH)
            seen.update(_batches(connection, relation(connection, "documents", tables["documents"])))
            connection.commit()
            count += 1
        missing = _batches(connection, "ocr.documents") - seen
        rows = _swap(connection)
    return RebuildCounts(batches=count, **rows, missing_batches=tuple(sorted(missing)))


def _batches(connection: duckdb.DuckDBPyConnection, documents: str) -> set[str]:
    return {batch for (batch,) in connection.execute(f"SELECT DISTINCT batch FROM {documents}").fetchall()}


def _swap(connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
    rows = {}
    connection.begin()
    try:
        for table in TABLES:
            connection.execute(f"DROP TABLE ocr.{table}")
            connection.execute(f"ALTER TABLE {_FRESH[table]} RENAME TO {table}")
            found = connection.execute(f"SELECT count(*) FROM ocr.{table}").fetchone()
            rows[table] = int(found[0]) if found else 0
        connection.commit()
    except BaseException:
        connection.rollback()
        raise
    return rows
