"""Whether a database can be worked with: what doctor asks of a MotherDuck, step by step. Each leaves nothing behind.

Here belong the questions that only the database can answer: may this token write, does it read a Parquet file of the
lake, does it take rows for the same that this machine's DuckDB does. Not here: the file, the mends (doctor's).
"""

# ruff: noqa: S608  the names of tables put into SQL here are ours; addresses are quoted

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator

import duckdb

from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.differences import row_hash
from ocr_pipeline.warehouse.errors import WarehouseError
from ocr_pipeline.warehouse.retry import with_retries
from ocr_pipeline.warehouse.source import relation
from ocr_pipeline.warehouse.sql import count, create_table


def check_connection(warehouse: Warehouse) -> None:
    """Opens the database, and makes it on MotherDuck where it is not there. Raises WarehouseError."""

    def once() -> None:
        with warehouse.exclusive() as connection:
            connection.execute("SELECT 1")

    with _told("does not answer"):
        with_retries(once, remote=warehouse.is_motherduck, attempts=3)


def check_tables(warehouse: Warehouse) -> int:
    """Makes the schema, its tables and its views, or finds them; returns the documents in them. Raises
    WarehouseError."""
    with _told("does not make the tables, or does not read them"):
        return warehouse.run(lambda connection: count(connection, "SELECT count(*) FROM ocr.documents"))


def check_load(warehouse: Warehouse, address: str) -> None:
    """Loads the pages of a Parquet file as a batch's are loaded, into a table that is dropped afterwards, and compares
    both as a load is compared. `address` as in `Source`. Raises WarehouseError."""
    table = f"ocr.doctor_{uuid.uuid4().hex}"

    def load(connection: duckdb.DuckDBPyConnection) -> int:
        connection.execute(create_table("pages", table))
        rows = relation(connection, "pages", address)
        return count(connection, f"INSERT INTO {table} BY NAME SELECT * FROM {rows}")

    def equal(connection: duckdb.DuckDBPyConnection) -> int:
        rows = relation(connection, "pages", address)
        held, published = (f"SELECT {row_hash('pages')} FROM {place}" for place in (table, rows))
        return count(connection, f"SELECT count(*) FROM ({published} INTERSECT ALL {held})")

    try:
        with _told(f"does not load {address}"):
            loaded = warehouse.run(load)
        with _told("does not give back what was loaded"):
            same = warehouse.ask(equal)
    finally:
        with contextlib.suppress(duckdb.Error, WarehouseError):  # what failed before is the news
            warehouse.run(lambda connection: connection.execute(f"DROP TABLE IF EXISTS {table}"))
    if same != loaded or not loaded:
        raise WarehouseError(
            f"of {loaded} rows of {address} {same} are the same in the table: a load would be refused as one that lost "
            f"rows (this machine's DuckDB is {duckdb.__version__})"
        )


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        raise WarehouseError(f"{what}: {str(error).splitlines()[0]}") from error
