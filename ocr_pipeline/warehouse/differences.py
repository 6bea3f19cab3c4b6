"""Whether the warehouse holds what a batch's files say: the comparison after each load.

Here belongs the comparison, which the database does itself: files and tables are both read by it, and only hashes of
rows are held. Not here: what follows from a difference (the asset check).
"""

# ruff: noqa: S608  the names of tables and columns put into SQL here are ours

from __future__ import annotations

import duckdb

from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.load import DOCUMENT_TABLES
from ocr_pipeline.warehouse.ranking import RANK_SQL
from ocr_pipeline.warehouse.schema import TABLES
from ocr_pipeline.warehouse.source import Source, check_complete, relation
from ocr_pipeline.warehouse.sql import count


def differences(warehouse: Warehouse, batch: str, tables: Source) -> list[str]:
    """What is wrong in the warehouse, one line per table; empty when it holds what the files say.

    Of a document that has a newer upload there, only its attempts are looked for: the rest is the newer upload's.
    `deleted_at` is not compared: deletions are seen after the file was written.
    """
    check_complete(batch, tables)

    def compare(connection: duckdb.DuckDBPyConnection) -> list[str]:
        warehouse.use_one_thread(connection)
        source = {table: relation(connection, table, tables[table]) for table in TABLES}
        found = [_missing_documents(connection, source["documents"])]
        found += [_differing_rows(connection, table, source) for table in DOCUMENT_TABLES]
        found.append(_missing_attempts(connection, source["attempts"]))
        return [line for line in found if line]

    return warehouse.ask(compare)


def row_hash(table: str) -> str:
    """What stands for a row in a comparison: comparing the rows themselves would hold all of their text twice more."""
    return "hash(" + ", ".join(column for column in TABLES[table].names if column != "deleted_at") + ")"


def _missing_documents(connection: duckdb.DuckDBPyConnection, documents: str) -> str:
    missing = count(
        connection,
        f"""
        SELECT count(*)
        FROM (SELECT document_id, {RANK_SQL} AS rank FROM {documents}) p
        LEFT JOIN (SELECT document_id, {RANK_SQL} AS rank FROM ocr.documents) d USING (document_id)
        WHERE d.rank IS NULL OR d.rank < p.rank
        """,
    )
    return f"documents: {missing} are not there, or only as an older upload" if missing else ""


def _differing_rows(connection: duckdb.DuckDBPyConnection, table: str, source: dict[str, str]) -> str:
    row = row_hash(table)
    ours = f"""
        SELECT document_id FROM {source["documents"]} p JOIN ocr.documents d USING (document_id)
        WHERE d.batch = p.batch AND d.uploaded_at = p.uploaded_at
    """
    # by name below an empty table: columns that an older file lacks are NULL, as the load made them
    file = f"(SELECT * FROM ocr.{table} WHERE false UNION ALL BY NAME SELECT * FROM {source[table]})"
    published, held = (
        f"SELECT {row} FROM {place} WHERE document_id IN (FROM ours)" for place in (file, f"ocr.{table}")
    )
    differing = count(
        connection,
        f"""
        WITH ours AS MATERIALIZED ({ours})
        SELECT count(*) FROM (
            (({published}) EXCEPT ALL ({held})) UNION ALL (({held}) EXCEPT ALL ({published}))
        )
        """,
    )
    return f"{table}: {differing} rows differ" if differing else ""


def _missing_attempts(connection: duckdb.DuckDBPyConnection, attempts: str) -> str:
    """Attempts are history: each of the file's is there, whatever its number among those of other batches."""
    sent = ", ".join(name for name in TABLES["attempts"].names if name != "attempt")
    file = f"(SELECT * FROM ocr.attempts WHERE false UNION ALL BY NAME SELECT * FROM {attempts})"
    missing = count(
        connection,
        f"""
        SELECT count(*) FROM (
            SELECT {sent} FROM {file} EXCEPT ALL
            SELECT {sent} FROM ocr.attempts WHERE document_id IN (SELECT document_id FROM {file})
        )
        """,
    )
    return f"attempts: {missing} rows are not there" if missing else ""
