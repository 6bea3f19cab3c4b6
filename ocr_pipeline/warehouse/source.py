"""Where the rows of a batch come from, as something that can stand after FROM.

Here belongs the step from Arrow tables or addresses of Parquet files to a relation of the database. Not here: what is
done with it (`load.py`, `differences.py`).
"""

from __future__ import annotations

from collections.abc import Mapping

import duckdb
import pyarrow as pa

from ocr_pipeline.warehouse.errors import WarehouseError
from ocr_pipeline.warehouse.schema import FOLDER_COLUMN, TABLES
from ocr_pipeline.warehouse.sql import literal

Source = Mapping[str, pa.Table] | Mapping[str, str]
"""The rows of the four tables: as Arrow tables, or as addresses of Parquet files that the database reads itself
(a path, or `r2://bucket/…` on MotherDuck with the secret of `motherduck.py`), each in its folder
`ingest_date=2026-11-01`."""


def relation(connection: duckdb.DuckDBPyConnection, table: str, rows: pa.Table | str) -> str:
    """What stands after FROM for these rows; a file of an older version has fewer columns."""
    if isinstance(rows, str):
        # the folder's name is a column of documents and pages, and of nothing else
        if FOLDER_COLUMN in TABLES[table].names:
            hive = f"hive_partitioning = true, hive_types = {{'{FOLDER_COLUMN}': DATE}}"
        else:
            hive = "hive_partitioning = false"
        return f"read_parquet({literal(rows)}, {hive})"
    if not rows.schema.equals(TABLES[table]):
        raise WarehouseError(f"table {table}: these columns are not those of `to_tables` or `from_bytes`")
    connection.register(f"staged_{table}", rows)
    return f"staged_{table}"


def check_complete(batch: str | None, tables: Source) -> None:
    """Raises WarehouseError where a table has no rows and no address."""
    missing = TABLES.keys() - tables.keys()
    if missing:
        raise WarehouseError(f"batch {batch}: no rows were given for the tables {', '.join(sorted(missing))}")
