"""Loads a batch into the four tables, in one transaction. The newest upload wins, in whatever order batches are loaded.

Here belong the rules of replacement and of deletion. Not here: connections (`connection.py`), making rows (`rows.py`).

The rules:
- The tables hold one version of each document: that of the upload with the highest (uploaded_at, found, batch), where
  `found` is false for an upload that was gone or replaced when its batch ran. All pages and regions of other versions
  are removed.
- `attempts` is history: each request that any batch names is one row. Requests are numbered in the order in which they
  were sent, over all uploads of the document; the numbers in a transcript begin again with each new image of a page.
- A deletion hides the uploads that were known when it was seen (`records.Deletion`), whether they are loaded before it
  or after. Of two deletions the later one counts.

So the result depends only on which batches were loaded, not on their order nor on how often each was loaded.
"""

# ruff: noqa: S608  the names of tables put into SQL here are ours; values are parameters

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import duckdb

from ocr_pipeline.records import Deletion
from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.errors import WarehouseError
from ocr_pipeline.warehouse.ranking import Rank, was_found
from ocr_pipeline.warehouse.schema import PRIMARY_KEYS, TABLES
from ocr_pipeline.warehouse.source import Source, check_complete, relation
from ocr_pipeline.warehouse.sql import count

Deletions = Mapping[str, Deletion | datetime]
"""By document id. Batch lists of older versions hold only a time, which hides every upload up to it."""

_HIDES = """
    (d.uploaded_at < m.up_to OR (d.uploaded_at = m.up_to AND (m.etags IS NULL OR list_contains(m.etags, d.etag))))
"""

DOCUMENT_TABLES = ("documents", "pages", "regions")
"""What is replaced with a document."""


@dataclass(frozen=True, slots=True)
class LoadCounts:
    """What one load did, in rows."""

    documents: int
    pages: int
    regions: int
    attempts: int  # new ones
    replaced: int  # documents that were there before
    outranked: int  # documents of the batch left out, since a newer upload of them is there


def load_batch(warehouse: Warehouse, batch: str, tables: Source) -> LoadCounts:
    """Loads the rows of `batch`, in one transaction; conflicts with other loads are tried again.

    Loading the same rows again changes nothing; newer rows of the same batch (a second run) take the place of its own.
    Raises WarehouseError where `tables` lacks a table or holds rows of another batch.
    """

    def work(connection: duckdb.DuckDBPyConnection) -> LoadCounts:
        warehouse.use_one_thread(connection)
        return load_rows(connection, tables, batch=batch)

    counts = warehouse.run(work)
    if warehouse.is_motherduck:
        # There is no lock, so a deletion and a load at the same time do not see each other's rows. Both apply the marks
        # again after their commit: the later of the two sees the other.
        warehouse.run(lambda connection: apply_marks(connection, document_ids=_document_ids(connection, tables)))
    return counts


def mark_deleted(warehouse: Warehouse, deletions: Deletions) -> int:
    """Marks documents as deleted, or as there again; returns how many of them are hidden now.

    What a mark hides is hidden also where it is loaded later. A newer upload is shown.
    """
    _check_times(deletions)

    def applied(connection: duckdb.DuckDBPyConnection) -> int:
        apply_marks(connection, document_ids=list(deletions))
        return _hidden(connection, list(deletions))

    def work(connection: duckdb.DuckDBPyConnection) -> int:
        add_marks(connection, deletions)
        return applied(connection)

    hidden = warehouse.run(work)
    if warehouse.is_motherduck:
        warehouse.run(applied)
    return hidden


def outcome(incoming: Mapping[str, Rank], present: Mapping[str, Rank]) -> tuple[list[str], list[str]]:
    """Which incoming documents are to be written, and which of them have older rows that must be removed first."""
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
    check_complete(batch, tables)
    name = {table: f"ocr.{table}" for table in (*TABLES, "deletions")} | dict(into or {})
    source = {table: relation(connection, table, tables[table]) for table in TABLES}

    rows = connection.execute(
        f"SELECT document_id, uploaded_at, reason, batch, deleted_at FROM {source['documents']}"
    ).fetchall()
    incoming: dict[str, Rank] = {key: Rank(time, was_found(reason), of) for key, time, reason, of, _ in rows}
    _check_batch(batch, incoming)
    add_marks(connection, {key: at for key, _, _, _, at in rows if at is not None}, name["deletions"])

    winners, replaced = outcome(incoming, _ranks(connection, name["documents"], list(incoming)))
    if replaced:  # a scan of each table, so not for the usual batch, in which every document is new
        for table in DOCUMENT_TABLES:
            connection.execute(
                f"DELETE FROM {name[table]} WHERE document_id IN (SELECT unnest(CAST(? AS VARCHAR[])))", [replaced]
            )
    written = dict.fromkeys(TABLES, 0)
    if winners:
        written |= {table: _insert(connection, table, source[table], name, winners) for table in DOCUMENT_TABLES}
    written["attempts"] = _add_attempts(connection, name["attempts"], source["attempts"], list(incoming))
    return LoadCounts(**written, replaced=len(replaced), outranked=len(incoming) - len(winners))


def _check_batch(batch: str | None, incoming: Mapping[str, Rank]) -> None:
    """Raises WarehouseError where a document is of another batch; None: any batch will do."""
    others = {rank.batch for rank in incoming.values()} - {batch}
    if batch is not None and others:
        raise WarehouseError(f"batch {batch}: its documents are of the batch {', '.join(sorted(others))}")


def _insert(
    connection: duckdb.DuckDBPyConnection, table: str, source: str, name: Mapping[str, str], document_ids: list[str]
) -> int:
    """Inserts the table's rows of these documents; a document that a deletion hides gets its time. Returns how many."""
    rows = f"SELECT d.* FROM {source} d"
    if table == "documents":
        rows = f"""
            SELECT d.* REPLACE (m.deleted_at AS deleted_at)
            FROM {source} d LEFT JOIN {name["deletions"]} m ON m.document_id = d.document_id AND {_HIDES}
        """
    chosen = "d.document_id IN (SELECT unnest(CAST(? AS VARCHAR[])))"
    return count(connection, f"INSERT INTO {name[table]} BY NAME {rows} WHERE {chosen}", [document_ids])


def add_marks(connection: duckdb.DuckDBPyConnection, deletions: Deletions, table: str = "ocr.deletions") -> None:
    """Stores the marks of deletion; of two marks of one document the later one is kept."""
    if deletions:
        marks = [as_deletion(mark) for mark in deletions.values()]
        # DuckDB orders rows with NULLs last and never answers NULL, so this is a total order.
        connection.execute(
            f"""
            INSERT INTO {table} AS present (document_id, deleted_at, up_to, etags)
            SELECT unnest(CAST(? AS VARCHAR[])), unnest(CAST(? AS TIMESTAMPTZ[])), unnest(CAST(? AS TIMESTAMPTZ[])),
                unnest(CAST(? AS VARCHAR[][]))
            ON CONFLICT (document_id) DO UPDATE
            SET deleted_at = excluded.deleted_at, up_to = excluded.up_to, etags = excluded.etags
            WHERE row(excluded.deleted_at, excluded.up_to, excluded.etags)
                > row(present.deleted_at, present.up_to, present.etags)
            """,
            [
                list(deletions),
                [mark.deleted_at for mark in marks],
                [mark.up_to for mark in marks],
                [None if mark.etags is None else list(mark.etags) for mark in marks],
            ],
        )


def as_deletion(mark: Deletion | datetime) -> Deletion:
    """The mark as a `Deletion`, also where it is a time alone."""
    return Deletion(mark, mark) if isinstance(mark, datetime) else mark


def _ranks(connection: duckdb.DuckDBPyConnection, documents: str, document_ids: list[str]) -> dict[str, Rank]:
    rows = connection.execute(
        f"""
        SELECT document_id, uploaded_at, reason, batch FROM {documents}
        WHERE document_id IN (SELECT unnest(CAST(? AS VARCHAR[])))
        """,
        [document_ids],
    ).fetchall()
    return {key: Rank(uploaded_at, was_found(reason), batch) for key, uploaded_at, reason, batch in rows}


def _add_attempts(connection: duckdb.DuckDBPyConnection, attempts: str, source: str, document_ids: list[str]) -> int:
    """Adds the requests for pages of these documents that are not there yet, and numbers each page's by the time they
    were sent; returns how many are new."""
    old = "document_id IN (SELECT unnest(CAST($present AS VARCHAR[])))"
    found = connection.execute(f"SELECT DISTINCT document_id FROM {attempts} WHERE {old}", {"present": document_ids})
    present = [document_id for (document_id,) in found.fetchall()]
    # by name below an empty table: columns that an older file lacks are NULL
    source = f"(SELECT * FROM {attempts} WHERE false UNION ALL BY NAME SELECT * FROM {source})"
    if not present:  # the usual batch: every document is new
        return count(connection, f"INSERT INTO {attempts} BY NAME {_numbered(f'FROM {source}')}")
    added = count(
        connection,
        f"INSERT INTO {attempts} BY NAME {_numbered(f'FROM {source} WHERE NOT {old}')}",
        {"present": present},
    )
    before = f"SELECT * FROM {attempts} WHERE {old}"
    # of equal rows as many as the one side or the other has: a file that is loaded again brings nothing new
    both = f"""
        FROM (
            SELECT DISTINCT * EXCLUDE (attempt) FROM (
                SELECT *, {_COPY} FROM ({before}) UNION ALL SELECT *, {_COPY} FROM {source} WHERE {old}
            )
        )
    """
    merged = connection.execute(_numbered(both), {"present": present}).to_arrow_table()
    new = int(merged.num_rows) - count(connection, f"SELECT count(*) FROM ({before})", {"present": present})
    if new:
        connection.execute(f"DELETE FROM {attempts} WHERE {old}", {"present": present})
        connection.register("merged_attempts", merged)
        connection.execute(f"INSERT INTO {attempts} BY NAME FROM merged_attempts")
        connection.unregister("merged_attempts")
    return added + new


_SENT = [name for name in TABLES["attempts"].names if name != "attempt"]
"""What tells one request from another."""

_COPY = f"row_number() OVER (PARTITION BY {', '.join(_SENT)}) AS copy"


def _numbered(rows: str) -> str:
    """A query for these rows of `attempts` with their numbers."""
    key = PRIMARY_KEYS["attempts"]
    order = ["started_at", *(name for name in _SENT if name not in (*key, "started_at"))]
    return f"""
        SELECT {", ".join(_SENT)}, CAST(row_number() OVER (
            PARTITION BY {", ".join(name for name in key if name != "attempt")}
            ORDER BY {", ".join(f"{name} NULLS LAST" for name in order)}
        ) AS INTEGER) AS attempt
        {rows}
    """


def apply_marks(
    connection: duckdb.DuckDBPyConnection, documents: str = "ocr.documents", document_ids: Sequence[str] | None = None
) -> None:
    """Hides the documents of the table that a mark hides, and shows the others again. All of them (a rebuild, where
    marks are added after the rows), or those that are named."""
    named = "" if document_ids is None else "AND d.document_id IN (SELECT unnest(CAST(? AS VARCHAR[])))"
    connection.execute(
        f"""
        UPDATE {documents} AS d SET deleted_at = CASE WHEN {_HIDES} THEN m.deleted_at END FROM ocr.deletions m
        WHERE m.document_id = d.document_id {named}
            AND d.deleted_at IS DISTINCT FROM CASE WHEN {_HIDES} THEN m.deleted_at END
        """,
        [] if document_ids is None else [list(document_ids)],
    )


def _hidden(connection: duckdb.DuckDBPyConnection, ids: list[str]) -> int:
    """How many of these documents are hidden."""
    return count(
        connection,
        """
        SELECT count(*) FROM ocr.documents
        WHERE deleted_at IS NOT NULL AND document_id IN (SELECT unnest(CAST(? AS VARCHAR[])))
        """,
        [ids],
    )


def _document_ids(connection: duckdb.DuckDBPyConnection, tables: Source) -> list[str]:
    source = relation(connection, "documents", tables["documents"])
    return [key for (key,) in connection.execute(f"SELECT document_id FROM {source}").fetchall()]


def _check_times(deletions: Deletions) -> None:
    for document_id, mark in deletions.items():
        times = (as_deletion(mark).deleted_at, as_deletion(mark).up_to)
        if any(time is not None and time.tzinfo is None for time in times):
            raise WarehouseError(f"the deletion of {document_id} has a time without a time zone; times are UTC")
