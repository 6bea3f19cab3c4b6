"""Pieces of SQL text: the few places where a value cannot be a parameter.

Here belong quoting and the definition of a table. Values in queries are parameters, always.
"""

from __future__ import annotations

from collections.abc import Mapping

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
