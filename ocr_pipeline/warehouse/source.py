"""Where the rows of a batch come from, as something that can stand after FROM.

Here belongs the step from Arrow tables or addresses of Parquet files to a relation of the database. Not here: what is
done with it (`load.py`, `differences.py`).
"""

# ruff: noqa: S608  the names of columns put into SQL here are ours; addresses are quoted, dates are parsed

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

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
        # hive_partitioning would make a column of every folder above that is named x=y, and prefer it to the file's
        file = f"read_parquet({literal(rows)}, hive_partitioning = false)"
        if FOLDER_COLUMN not in TABLES[table].names:
            return file
        columns = f"COLUMNS(lambda name: name <> '{FOLDER_COLUMN}')"  # files of version 1 have it inside too
        return f"(SELECT {columns}, DATE '{_date_of_folder(rows)}' AS {FOLDER_COLUMN} FROM {file})"
    if not rows.schema.equals(TABLES[table]):
        raise WarehouseError(f"table {table}: these columns are not those of `rows.to_table` or `parquet.from_bytes`")
    connection.register(f"staged_{table}", rows)
    return f"staged_{table}"


def _date_of_folder(address: str) -> date:
    """The date in the name of the folder that a file is in."""
    folder = address.split("/")[-2] if "/" in address else ""
    try:
        return date.fromisoformat(folder.removeprefix(f"{FOLDER_COLUMN}="))
    except ValueError:
        raise WarehouseError(
            f"{address}: a Parquet file of documents or pages is in a folder named {FOLDER_COLUMN}=<date>, such as "
            f"{FOLDER_COLUMN}=2026-11-01; its rows have their date from there"
        ) from None


def check_complete(batch: str | None, tables: Source) -> None:
    """Raises WarehouseError where a table has no rows and no address."""
    missing = TABLES.keys() - tables.keys()
    if missing:
        raise WarehouseError(f"batch {batch}: no rows were given for the tables {', '.join(sorted(missing))}")
