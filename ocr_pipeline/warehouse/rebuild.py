"""The four tables made again from Parquet alone: beside the present ones, batch by batch, then swapped.

Here belongs the rebuild and nothing else; rows get in by the same rules as in a load (`load.py`).
"""

# ruff: noqa: S608  the names of tables put into SQL here are ours; values are parameters

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import duckdb

from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.errors import WarehouseError
from ocr_pipeline.warehouse.load import DOCUMENT_TABLES, Deletions, add_marks, apply_marks, load_rows
from ocr_pipeline.warehouse.retry import with_retries
from ocr_pipeline.warehouse.schema import TABLES
from ocr_pipeline.warehouse.source import Source, relation
from ocr_pipeline.warehouse.sql import count, create_table, in_transaction

_FRESH = {table: f"ocr.rebuilt_{table}" for table in TABLES}
_READ = "ocr.rebuilt_batches"
"""A table with the batches whose rows were read. It exists from the beginning of a rebuild to its very end, after late
batches were loaded: as long as it exists, rows that were read earlier may still get into the tables."""


class RebuildRefused(WarehouseError):
    """What was found cannot take the place of the present tables; they are as they were."""


@dataclass(frozen=True, slots=True)
class PublishedBatch:
    """What one batch has published."""

    rows: Source | None  # None: a batch of deletions, with no files
    deletions: Deletions = field(default_factory=dict)
    """What was seen of documents' deletions."""
    fault: str | None = None
    """What is wrong and what mends it, where its rows cannot be read now (`rows` is None)."""


class Published(Protocol):
    """All that is published, as it stands at each call: batches come and change while a rebuild runs."""

    def listing(self) -> Mapping[str, str]:
        """Every published batch by name, with a mark that changes when it is published again."""
        ...

    def batch(self, name: str) -> AbstractContextManager[PublishedBatch]:
        """One of them; its rows can be read until the block ends."""
        ...


@dataclass(frozen=True, slots=True)
class RebuildCounts:
    """The tables after a rebuild, in rows."""

    batches: int
    documents: int
    pages: int
    regions: int
    attempts: int
    missing_batches: tuple[str, ...] = field(default=())
    """Batches whose Parquet could not be read: not there for rows of before, or not as published (`force`).

    Without `force` only what was published again, and not to its end, while the tables were swapped.
    """


def rebuild(warehouse: Warehouse, published: Published, *, force: bool = False) -> RebuildCounts:
    """Makes the four tables from the rows of all batches and swaps them for the present ones, in one transaction.

    A mark of deletion in the warehouse is kept if it is later than the published one. On MotherDuck readers see the old
    tables until the swap, and other processes can load meanwhile: batches published since the start are added before
    the swap, and those published during the swap right after it. A DuckDB file is held open the whole time, and no
    other process can load or read it.

    Raises RebuildRefused, before anything is swapped, if nothing is published, if a batch cannot be read, or if batches
    that have rows now would have none. `force` takes what there is: of a batch that cannot be read, its deletions.
    A rebuild that fails leaves the old tables as they were.
    """
    done: dict[str, str] = {}
    with warehouse.session() as connection:
        try:
            _make_fresh(connection)
            _add_new(connection, published, done)  # what cannot be read yet has its second chance at the swap
            unread = with_retries(
                lambda: _swap(connection, published, done, force=force), remote=warehouse.is_motherduck
            )
            # A load that went into the old tables while they were swapped had its files published before: it is listed.
            if late := _changed(published.listing(), done):
                unread = (unread - set(late)) | _load_late(warehouse, connection, published, late, done)
            rows = _count_rows(connection)
        finally:
            with contextlib.suppress(duckdb.Error):  # the connection may be what failed
                drop_leftovers(connection)
    return RebuildCounts(batches=len(done), **rows, missing_batches=tuple(sorted(unread)))


def _load_late(
    warehouse: Warehouse,
    connection: duckdb.DuckDBPyConnection,
    published: Published,
    late: Sequence[str],
    done: dict[str, str],
) -> set[str]:
    """Loads what was published during the swap into the new tables; returns the batches that could not be read."""
    unread = set()
    for name in late:
        fault = with_retries(partial(_load, connection, published, name), remote=warehouse.is_motherduck)
        if fault is None:
            done[name] = ""
        else:
            unread.add(name)
    with_retries(partial(_apply_marks, connection), remote=warehouse.is_motherduck)
    return unread


def is_rebuilding(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether a rebuild is at work, or was killed. Never at work where the connection is one for writing to a DuckDB
    file: a rebuild would hold that."""
    return not {*_FRESH.values(), _READ}.isdisjoint(_there(connection))


def rebuilt_tables(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Tables of rows that a rebuild has made and not put in place."""
    return [table for table in _FRESH.values() if table in _there(connection)]


def _there(connection: duckdb.DuckDBPyConnection) -> set[str]:
    found = connection.execute(
        "SELECT 'ocr.' || table_name FROM duckdb_tables()"
        " WHERE database_name = current_database() AND schema_name = 'ocr'"
    ).fetchall()
    return {name for (name,) in found}


def drop_leftovers(connection: duckdb.DuckDBPyConnection) -> None:
    """Removes what a rebuild that was killed has left."""
    for table in (*_FRESH.values(), _READ):
        connection.execute(f"DROP TABLE IF EXISTS {table}")


def _make_fresh(connection: duckdb.DuckDBPyConnection) -> None:
    drop_leftovers(connection)
    connection.execute(f"CREATE TABLE {_READ} (batch VARCHAR)")
    for table in TABLES:
        connection.execute(create_table(table, _FRESH[table]))


def _add_new(connection: duckdb.DuckDBPyConnection, published: Published, done: dict[str, str]) -> None:
    """Adds every batch that `done` does not hold in its present state, each in a transaction of its own, and notes in
    `done` those that could be read."""
    listing = published.listing()
    for name in _changed(listing, done):
        with in_transaction(connection):
            fault = _add(connection, published, name, again=name in done)
        if fault is None:
            done[name] = listing[name]


def _add(connection: duckdb.DuckDBPyConnection, published: Published, name: str, *, again: bool) -> str | None:
    """Puts in what can be read of the batch; returns its fault. `again`: its rows of before are there."""
    with published.batch(name) as batch:
        add_marks(connection, batch.deletions)
        if batch.rows is not None:
            documents = relation(connection, "documents", batch.rows["documents"])
            if again:
                _forget_dropped(connection, name, documents)
            load_rows(connection, batch.rows, into=_FRESH)
            connection.execute(f"INSERT INTO {_READ} SELECT DISTINCT batch FROM {documents}")
        return batch.fault


def _forget_dropped(connection: duckdb.DuckDBPyConnection, name: str, documents: str) -> None:
    """Removes the new tables' rows of documents that are no longer in the batch. Only a purge takes a document out of a
    batch, and it takes it out of all batches: so its attempts go too, whichever batch they were read from."""
    dropped = connection.execute(
        f"SELECT document_id FROM {_FRESH['documents']} WHERE batch = ?"
        f" AND document_id NOT IN (SELECT document_id FROM {documents})",
        [name],
    ).fetchall()
    if dropped:
        for table in (*DOCUMENT_TABLES, "attempts"):
            connection.execute(
                f"DELETE FROM {_FRESH[table]} WHERE document_id IN (SELECT unnest(CAST(? AS VARCHAR[])))",
                [[key for (key,) in dropped]],
            )


def _load(connection: duckdb.DuckDBPyConnection, published: Published, name: str) -> str | None:
    """Loads a batch into the new tables; returns its fault."""
    with published.batch(name) as batch:
        with in_transaction(connection):
            if batch.rows is not None:
                load_rows(connection, batch.rows, batch=name)
            add_marks(connection, batch.deletions)
        return batch.fault


def _apply_marks(connection: duckdb.DuckDBPyConnection) -> None:
    with in_transaction(connection):
        apply_marks(connection)


def _changed(listing: Mapping[str, str], done: Mapping[str, str]) -> list[str]:
    return [name for name, mark in listing.items() if done.get(name) != mark]


def _swap(
    connection: duckdb.DuckDBPyConnection, published: Published, done: dict[str, str], *, force: bool
) -> set[str]:
    """Puts the fresh tables in place; returns the batches that could not be read (`force`)."""
    with in_transaction(connection):
        listing = published.listing()
        late = _changed(listing, done)
        faults = {
            name: fault for name in late if (fault := _add(connection, published, name, again=name in done)) is not None
        }
        missing = _missing(connection)
        if not force:
            _refuse(len(listing), missing, faults)
        apply_marks(connection, _FRESH["documents"])
        for table in TABLES:
            connection.execute(f"DROP TABLE ocr.{table}")
            connection.execute(f"ALTER TABLE {_FRESH[table]} RENAME TO {table}")
    done.update({name: listing[name] for name in late if name not in faults})
    return {*missing, *faults}


def _missing(connection: duckdb.DuckDBPyConnection) -> tuple[str, ...]:
    """Batches that have rows in the present tables, and of which nothing was read."""
    rows = connection.execute(
        f"SELECT DISTINCT batch FROM ocr.documents WHERE batch NOT IN (SELECT batch FROM {_READ}) ORDER BY 1"
    ).fetchall()
    return tuple(batch for (batch,) in rows)


def _refuse(found: int, missing: tuple[str, ...], faults: Mapping[str, str]) -> None:
    if faults:
        others = f" (and {len(faults) - 1} more batches that cannot be read)" if len(faults) > 1 else ""
        raise RebuildRefused(f"{next(iter(faults.values()))}{others}, or use --force to go on without its rows")
    if missing:
        raise RebuildRefused(
            f"{len(missing)} batches have rows now and no Parquet was found for them ({', '.join(missing[:5])}"
            f"{', …' if len(missing) > 5 else ''}): is OCR_LAKE the right lake? Materialise ocr_parquet for them, or "
            "use --force to go on without their rows"
        )
    if not found:
        raise RebuildRefused(
            "no published batch was found: is OCR_LAKE the right lake? Use --force to make the tables empty"
        )


def _count_rows(connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
    return {table: count(connection, f"SELECT count(*) FROM ocr.{table}") for table in TABLES}
