"""What every module that speaks SQL needs: quoting, the definition of a table, one number, one transaction.

Quoting is for the few places where a value cannot be a parameter. Values in queries are parameters, always.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from ocr_pipeline.warehouse.schema import PRIMARY_KEYS, TABLES

_TYPES: Mapping[pa.DataType, str] = {
    pa.string(): "VARCHAR",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
    pa.date32(): "DATE",
    pa.timestamp("us", tz="UTC"): "TIMESTAMPTZ",
}


def literal(value: str) -> str:
    """The value as an SQL string. DuckDB knows no escapes in it but the doubled quote."""
    if "\x00" in value:
        raise ValueError("a NUL character cannot stand in an SQL string")
    return "'" + value.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """The name as a quoted SQL identifier."""
    if "\x00" in name:
        raise ValueError("a NUL character cannot stand in an SQL name")
    return '"' + name.replace('"', '""') + '"'


def create_table(table: str, name: str) -> str:
    """SQL that makes an empty table `name` (schema and name) with the columns and the key of `table`."""
    columns = [
        f"{field.name} {_TYPES[field.type]}" + ("" if field.nullable else " NOT NULL") for field in TABLES[table]
    ]
    return f"CREATE TABLE {name} ({', '.join(columns)}, PRIMARY KEY ({', '.join(PRIMARY_KEYS[table])}))"


def count(
    connection: duckdb.DuckDBPyConnection, statement: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None
) -> int:
    """The number in the answer: of a `SELECT count(*)`, or how many rows an INSERT or DELETE changed."""
    row = connection.execute(statement, parameters).fetchone()
    return int(row[0]) if row else 0


@contextlib.contextmanager
def in_transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """A transaction around the block: committed at its end, rolled back on any exception."""
    connection.begin()
    try:
        yield
        connection.commit()
    except BaseException:
        with contextlib.suppress(duckdb.Error):  # a failed commit has rolled back already
            connection.rollback()
        raise
