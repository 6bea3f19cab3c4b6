"""A batch into the tables: all four in one transaction, newest upload wins, in whatever order batches come.

Here belong the rules of replacement and of deletion. Not here: connections (`connection.py`), making rows (`rows.py`).

The rules. A document's rows are those of its upload with the highest (uploaded_at, batch); its older pages and regions
go, all of them. `attempts` are history and stay; where two rows have one key, the later `started_at` stays, and of two
equal ones the greater row. A deletion at a time t hides every upload up to t, whether it is loaded before or after. So
the end state depends on which batches were loaded, never on the order or on how often.
"""

# ruff: noqa: S608  the names of tables put into SQL here are ours; values are parameters

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

import duckdb
import pyarrow as pa

from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.errors import WarehouseError
from ocr_pipeline.warehouse.schema import PRIMARY_KEYS, TABLES
from ocr_pipeline.warehouse.sql import literal

Source = Mapping[str, pa.Table] | Mapping[str, str]
"""The rows of the four tables: as Arrow tables, or as addresses of Parquet files that the database reads itself
(`r2://bucket/…` on MotherDuck, with the secret of `motherduck.py`; a path on DuckDB)."""

Rank = tuple[datetime, str]
"""(uploaded_at, batch) of a document's rows: the highest wins."""

DOCUMENT_TABLES = ("documents", "pages", "regions")
"""What is replaced with a document."""


@dataclass(frozen=True, slots=True)
class LoadCounts:
    """What one load did, in rows."""

    documents: int
    pages: int
    regions: int
    attempts: int  # new ones, and those that took the place of an earlier one
    replaced: int  # documents that were there before
    outranked: int  # documents of the batch left out, since a newer upload of them is there


def load_batch(warehouse: Warehouse, batch: str, tables: Source) -> LoadCounts:
    """Loads the rows of `batch`, in one transaction; conflicts with other loads are tried again.

    Loading the same rows again changes nothing; newer rows of the same batch (a second run) take the place of its own.
    Raises WarehouseError where `tables` lacks a table or holds rows of another batch.
    """
    counts = warehouse.run(lambda connection: load_rows(connection, tables, batch=batch))
    if warehouse.is_motherduck:
        # With no lock, a deletion and a load may pass each other unseen, each in its own snapshot. Both look again once
        # they are through: whichever is later sees the other.
        warehouse.run(lambda connection: _apply_marks(connection, _document_ids(connection, tables)))
    return counts


def mark_deleted(warehouse: Warehouse, deletions: Mapping[str, datetime]) -> int:
    """Marks documents as deleted at the given times; returns how many are hidden by these marks.

    Every upload of a document up to that time is hidden, also one that is loaded later. A newer upload is shown.
    """
    _check_times(deletions)

    def work(connection: duckdb.DuckDBPyConnection) -> int:
        add_marks(connection, deletions)
        return _apply_marks(connection, list(deletions))

    hidden = warehouse.run(work)
    if warehouse.is_motherduck:
        warehouse.run(lambda connection: _apply_marks(connection, list(deletions)))
    return hidden


def outcome(incoming: Mapping[str, Rank], present: Mapping[str, Rank]) -> tuple[list[str], list[str]]:
    """Which incoming documents are to be written, and which of those are there already and must go first."""
    winners = sorted(key for key, rank in incoming.items() if key not in present or rank >= present[key])
    return winners, [key for key in winners if key in present]


def load_rows(
    connection: duckdb.DuckDBPyConnection,
    tables: Source,
    *,
    batch: str | None = None,
    into: Mapping[str, str] | None = None,
) -> LoadCounts:
    """The load itself, inside a transaction that the caller holds. `into`: other names for the tables (a rebuild)."""
    missing = TABLES.keys() - tables.keys()
    if missing:
        raise WarehouseError(f"batch {batch}: no rows were given for the tables {', '.join(sorted(missing))}")
    name = {table: f"ocr.{table}" for table in (*TABLES, "deletions")} | dict(into or {})
    source = {table: relation(connection, table, tables[table]) for table in TABLES}

    rows = connection.execute(
        f"SELECT document_id, uploaded_at, batch, deleted_at FROM {source['documents']}"
    ).fetchall()
    incoming: dict[str, Rank] = {key: (uploaded_at, of_batch) for key, uploaded_at, of_batch, _ in rows}
    if batch is not None and any(of_batch != batch for _, of_batch in incoming.values()):
        found = sorted({of_batch for _, of_batch in incoming.values()} - {batch})
        raise WarehouseError(f"batch {batch}: its documents are of the batch {', '.join(found)}")
    add_marks(connection, {key: at for key, _, _, at in rows if at is not None}, name["deletions"])

    winners, replaced = outcome(incoming, _ranks(connection, name["documents"], list(incoming)))
    if replaced:  # a scan of each table, so not for the usual batch, in which every document is new
        for table in DOCUMENT_TABLES:
            connection.execute(
                f"DELETE FROM {name[table]} WHERE document_id IN (SELECT unnest(CAST(? AS VARCHAR[])))", [replaced]
            )
    written = dict.fromkeys(TABLES, 0)
    if winners:
        written["documents"] = _insert(
            connection,
            f"""
            INSERT INTO {name["documents"]} BY NAME
            SELECT s.* REPLACE (m.deleted_at AS deleted_at)
            FROM {source["documents"]} s
            LEFT JOIN {name["deletions"]} m ON m.document_id = s.document_id AND s.uploaded_at <= m.deleted_at
            WHERE s.document_id IN (SELECT unnest(CAST(? AS VARCHAR[])))
            """,
            [winners],
        )
        for table in ("pages", "regions"):
            written[table] = _insert(
                connection,
                f"""
                INSERT INTO {name[table]} BY NAME
                SELECT * FROM {source[table]} WHERE document_id IN (SELECT unnest(CAST(? AS VARCHAR[])))
                """,
                [winners],
            )
    written["attempts"] = _insert(connection, _upsert_attempts(name["attempts"], source["attempts"]), [])
    return LoadCounts(**written, replaced=len(replaced), outranked=len(incoming) - len(winners))


def add_marks(
    connection: duckdb.DuckDBPyConnection, deletions: Mapping[str, datetime], table: str = "ocr.deletions"
) -> None:
    """Notes when documents were seen to be deleted; of two times the later."""
    if deletions:
        connection.execute(
            f"""
            INSERT INTO {table} (document_id, deleted_at)
            SELECT unnest(CAST(? AS VARCHAR[])), unnest(CAST(? AS TIMESTAMPTZ[]))
            ON CONFLICT (document_id) DO UPDATE SET deleted_at = greatest(deleted_at, excluded.deleted_at)
            """,
            [list(deletions), list(deletions.values())],
        )


def relation(connection: duckdb.DuckDBPyConnection, table: str, rows: pa.Table | str) -> str:
    """What stands after FROM for these rows."""
    if isinstance(rows, str):
        return f"read_parquet({literal(rows)})"
    if not rows.schema.equals(TABLES[table]):
        raise WarehouseError(f"table {table}: these columns are not those of `to_tables` or `from_bytes`")
    connection.register(f"staged_{table}", rows)
    return f"staged_{table}"


def _ranks(connection: duckdb.DuckDBPyConnection, documents: str, document_ids: list[str]) -> dict[str, Rank]:
    rows = connection.execute(
        f"""
        SELECT document_id, uploaded_at, batch FROM {documents}
        WHERE document_id IN (SELECT unnest(CAST(? AS VARCHAR[])))
        """,
        [document_ids],
    ).fetchall()
    return {key: (uploaded_at, batch) for key, uploaded_at, batch in rows}


def _upsert_attempts(attempts: str, source: str) -> str:
    key = PRIMARY_KEYS["attempts"]
    values = [column for column in TABLES["attempts"].names if column not in key]
    order = ["started_at", *(column for column in values if column != "started_at")]
    assignments = ", ".join(f"{column} = excluded.{column}" for column in values)
    # DuckDB orders rows with NULLs last and never answers NULL, so this is a total order.
    return f"""
        INSERT INTO {attempts} AS present BY NAME SELECT * FROM {source}
        ON CONFLICT ({", ".join(key)}) DO UPDATE SET {assignments}
        WHERE row({", ".join(f"excluded.{column}" for column in order)})
            > row({", ".join(f"present.{column}" for column in order)})
    """


def _apply_marks(connection: duckdb.DuckDBPyConnection, document_ids: Iterable[str]) -> int:
    """Hides those of the documents that a mark tells to; returns how many of them are hidden now."""
    ids = list(document_ids)
    connection.execute(
        """
        UPDATE ocr.documents SET deleted_at = m.deleted_at FROM ocr.deletions m
        WHERE m.document_id = documents.document_id AND documents.uploaded_at <= m.deleted_at
            AND documents.deleted_at IS DISTINCT FROM m.deleted_at
            AND documents.document_id IN (SELECT unnest(CAST(? AS VARCHAR[])))
        """,
        [ids],
    )
    row = connection.execute(
        """
        SELECT count(*) FROM ocr.documents
        WHERE deleted_at IS NOT NULL AND document_id IN (SELECT unnest(CAST(? AS VARCHAR[])))
        """,
        [ids],
    ).fetchone()
    return int(row[0]) if row else 0


def _document_ids(connection: duckdb.DuckDBPyConnection, tables: Source) -> list[str]:
    source = relation(connection, "documents", tables["documents"])
    return [key for (key,) in connection.execute(f"SELECT document_id FROM {source}").fetchall()]


def _insert(connection: duckdb.DuckDBPyConnection, statement: str, parameters: list[object]) -> int:
    row = connection.execute(statement, parameters).fetchone()
    return int(row[0]) if row else 0


def _check_times(deletions: Mapping[str, datetime]) -> None:
    for document_id, at in deletions.items():
        if at.tzinfo is None:
            raise WarehouseError(f"the deletion of {document_id} has a time without a time zone; times are UTC")
