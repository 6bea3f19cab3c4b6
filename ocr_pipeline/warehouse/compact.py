"""A DuckDB file written anew, without the free parts in it.

Here belongs that one operation. DuckDB keeps the room of deleted rows for later ones and does not wipe it: after a
purge the words are in no table, and may still be in the file. A rebuild leaves the old tables' room behind, too.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.errors import WarehouseError
from ocr_pipeline.warehouse.rebuild import drop_leftovers
from ocr_pipeline.warehouse.search_index import has_search_index
from ocr_pipeline.warehouse.sql import identifier, literal


def compact(warehouse: Warehouse) -> int:
    """Copies all that is in the file into a new one and puts that in its place; returns the bytes it is smaller by.

    What a killed rebuild has left is not copied. Needs room on the disk for both. The file is locked meanwhile; a crash
    leaves the old one in place. On MotherDuck, and where there is no file yet, there is nothing to do: 0. Nor is there
    in a file with a full-text index, which could be copied only where the extension is installed: a purge takes the
    index away with the first row, so no row of a document was removed since it was made.
    """
    path = warehouse.path
    if path is None or not path.exists():
        return 0
    fresh = Path(f"{path}.compacted")
    with warehouse.exclusive() as connection:
        fresh.unlink(missing_ok=True)
        if has_search_index(connection):
            return 0
        try:
            drop_leftovers(connection)
            connection.execute("CHECKPOINT")
            connection.execute(f"ATTACH {literal(str(fresh))} AS compacted")
            (name,) = connection.execute("SELECT current_database()").fetchall()[0]
            connection.execute(f"COPY FROM DATABASE {identifier(name)} TO compacted")
            connection.execute("DETACH compacted")
            connection.close()
            log = Path(f"{path}.wal")
            if log.exists() and log.stat().st_size:
                raise WarehouseError(f"{path} was not compacted: another program writes to it: close it there")
            before = path.stat().st_size
            os.replace(fresh, path)
            return before - path.stat().st_size
        finally:
            with contextlib.suppress(OSError):
                fresh.unlink(missing_ok=True)
