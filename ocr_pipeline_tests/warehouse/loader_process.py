"""A process that loads batches, for tests of many at once: `python -m … FILE FOLDER die|live BATCH…`.

Prints "ready" and waits for a line on stdin, so that all start together; then the name of each batch that is loaded.
With `die` it stops inside its first load, rows written and nothing committed, says "inside", and waits to be killed.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pyarrow as pa

from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.load import load_batch, load_rows
from ocr_pipeline.warehouse.parquet import from_bytes
from ocr_pipeline.warehouse.schema import TABLES


def read_batch(folder: Path, batch: str) -> dict[str, pa.Table]:
    return {table: from_bytes(table, (folder / f"{batch}.{table}.parquet").read_bytes()) for table in TABLES}


def main(path: str, folder: str, fate: str, *batches: str) -> None:
    warehouse = Warehouse(path)
    print("ready", flush=True)
    sys.stdin.readline()
    for batch in batches:
        tables = read_batch(Path(folder), batch)
        if fate == "die":
            with warehouse.transaction() as connection:
                load_rows(connection, tables, batch=batch)
                print("inside", flush=True)
                time.sleep(600)
        load_batch(warehouse, batch, tables)
        print(batch, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
