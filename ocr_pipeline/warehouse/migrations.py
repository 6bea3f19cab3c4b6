"""The tables' history: each version of the warehouse as the SQL that leads to it from the one before.

Here belong the steps, forward only, and the one function that takes them. A step that was released is never edited: the
SQL is written out, not made from `schema.py`, so that an old file always meets the same steps. Not here: the views'
text (`views.py`); they hold no data and are simply made anew where their text changed.
"""

from __future__ import annotations

from hashlib import sha256

import duckdb

from ocr_pipeline.warehouse.errors import WarehouseError
from ocr_pipeline.warehouse.retry import passes_by_itself
from ocr_pipeline.warehouse.sql import in_transaction
from ocr_pipeline.warehouse.views import VIEWS

_VERSION_1 = (
    "CREATE SCHEMA IF NOT EXISTS ocr",
    """
    CREATE TABLE ocr.documents (
        document_id VARCHAR NOT NULL, source_uri VARCHAR NOT NULL, etag VARCHAR NOT NULL,
        uploaded_at TIMESTAMPTZ NOT NULL, size_bytes BIGINT NOT NULL, content_sha256 VARCHAR,
        page_count INTEGER NOT NULL, title VARCHAR, status VARCHAR NOT NULL, reason VARCHAR, detail VARCHAR,
        batch VARCHAR NOT NULL, ingest_date DATE NOT NULL, markdown_uri VARCHAR, recipe_id VARCHAR NOT NULL,
        deleted_at TIMESTAMPTZ, processed_at TIMESTAMPTZ NOT NULL,
        PRIMARY KEY (document_id)
    )
    """,
    """
    CREATE TABLE ocr.pages (
        document_id VARCHAR NOT NULL, page_number INTEGER NOT NULL, status VARCHAR NOT NULL, reason VARCHAR,
        detail VARCHAR, markdown VARCHAR NOT NULL, engine VARCHAR, backend VARCHAR, model VARCHAR,
        attempts INTEGER NOT NULL, prompt_tokens INTEGER, completion_tokens INTEGER, seconds DOUBLE,
        finish_reason VARCHAR, quality DOUBLE, agreement DOUBLE, width INTEGER, height INTEGER,
        rotation INTEGER NOT NULL, image_uri VARCHAR, image_sha256 VARCHAR, recipe_id VARCHAR NOT NULL,
        batch VARCHAR NOT NULL, ingest_date DATE NOT NULL, processed_at TIMESTAMPTZ NOT NULL,
        PRIMARY KEY (document_id, page_number)
    )
    """,
    """
    CREATE TABLE ocr.regions (
        document_id VARCHAR NOT NULL, page_number INTEGER NOT NULL, region_index INTEGER NOT NULL,
        label VARCHAR NOT NULL, x0 DOUBLE NOT NULL, y0 DOUBLE NOT NULL, x1 DOUBLE NOT NULL, y1 DOUBLE NOT NULL,
        "text" VARCHAR NOT NULL,
        PRIMARY KEY (document_id, page_number, region_index)
    )
    """,
    """
    CREATE TABLE ocr.attempts (
        document_id VARCHAR NOT NULL, page_number INTEGER NOT NULL, recipe_id VARCHAR NOT NULL,
        attempt INTEGER NOT NULL, backend VARCHAR NOT NULL, model VARCHAR NOT NULL, choice VARCHAR NOT NULL,
        started_at TIMESTAMPTZ NOT NULL, seconds DOUBLE NOT NULL, prompt_tokens INTEGER, completion_tokens INTEGER,
        finish_reason VARCHAR, outcome VARCHAR NOT NULL,
        PRIMARY KEY (document_id, page_number, recipe_id, attempt)
    )
    """,
    """
    CREATE TABLE ocr.schema_version (
        version INTEGER NOT NULL, applied_at TIMESTAMPTZ NOT NULL, PRIMARY KEY (version)
    )
    """,
)

_VERSION_2 = (
    # A deletion may be seen before its document is loaded, and must outlive a document's reload: it needs its own row.
    """
    CREATE TABLE ocr.deletions (
        document_id VARCHAR NOT NULL, deleted_at TIMESTAMPTZ NOT NULL, PRIMARY KEY (document_id)
    )
    """,
    "INSERT INTO ocr.deletions SELECT document_id, deleted_at FROM ocr.documents WHERE deleted_at IS NOT NULL",
    """
    CREATE TABLE ocr.backend_costs (
        backend VARCHAR NOT NULL, power_usd_per_month DOUBLE NOT NULL, hardware_usd DOUBLE NOT NULL,
        hardware_months DOUBLE NOT NULL, PRIMARY KEY (backend)
    )
    """,
    "ALTER TABLE ocr.schema_version ADD COLUMN views VARCHAR",  # hash of the views' text
)

_VERSION_3 = (
    # A deletion hides what was known when it was seen, not what is dated up to a time of another clock. Made anew and
    # not altered: DuckDB updates no table that the same transaction altered.
    """
    CREATE TABLE ocr.deletions_3 (
        document_id VARCHAR NOT NULL, deleted_at TIMESTAMPTZ NOT NULL, up_to TIMESTAMPTZ, etags VARCHAR[],
        PRIMARY KEY (document_id)
    )
    """,
    "INSERT INTO ocr.deletions_3 SELECT document_id, deleted_at, deleted_at, NULL FROM ocr.deletions",
    "DROP TABLE ocr.deletions",
    "ALTER TABLE ocr.deletions_3 RENAME TO deletions",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_VERSION_1, _VERSION_2, _VERSION_3)
"""Statements of each step; the first makes version 1 out of nothing."""

WAREHOUSE_VERSION = len(MIGRATIONS)

_VIEWS_HASH = sha256("\n".join(VIEWS).encode()).hexdigest()[:16]


def version_of(connection: duckdb.DuckDBPyConnection) -> int:
    """The warehouse's version: 0 where there is none yet. Call it outside of a transaction."""
    try:
        row = connection.execute("SELECT max(version) FROM ocr.schema_version").fetchone()
    except duckdb.CatalogException as error:
        if passes_by_itself(error):  # the table may well be there
            raise
        return 0
    return int(row[0]) if row and row[0] is not None else 0


def is_current(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether tables and views are as this program knows them. Call it outside of a transaction.

    Raises WarehouseError where a newer program has been here: its tables are not for us to touch.
    """
    version = version_of(connection)
    if version > WAREHOUSE_VERSION:
        raise WarehouseError(
            f"the warehouse has version {version}, this program knows up to {WAREHOUSE_VERSION}: update ocr-pipeline"
        )
    if version < WAREHOUSE_VERSION:
        return False
    row = connection.execute("SELECT views FROM ocr.schema_version WHERE version = ?", [version]).fetchone()
    return row is not None and row[0] == _VIEWS_HASH


def migrate(connection: duckdb.DuckDBPyConnection) -> None:
    """Takes the steps that are missing, and makes the views, in one transaction. Nothing to do: one or two queries."""
    if is_current(connection):
        return
    version = version_of(connection)
    with in_transaction(connection):
        for number in range(version + 1, WAREHOUSE_VERSION + 1):
            for statement in MIGRATIONS[number - 1]:
                connection.execute(statement)
            connection.execute("INSERT INTO ocr.schema_version (version, applied_at) VALUES (?, now())", [number])
        for view in VIEWS:
            connection.execute(view)
        connection.execute(
            "UPDATE ocr.schema_version SET views = ? WHERE version = ?", [_VIEWS_HASH, WAREHOUSE_VERSION]
        )
