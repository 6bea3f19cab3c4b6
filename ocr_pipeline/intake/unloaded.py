"""Batches whose rows are not in the warehouse, whatever Dagster's history says of their runs.

The tables may be lost, or OCR_WAREHOUSE may name others than those a batch was loaded into: then its run is done again,
which asks for no page. Not here: what the history says (`runs/history.py`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping

import duckdb

from ocr_pipeline.intake.options import IntakeOptions
from ocr_pipeline.lake import keys
from ocr_pipeline.lake.batch_index import BatchIndex
from ocr_pipeline.lake.current import any_current
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.records import Batch, Upload
from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.present import Loadable, not_there, present_batches

LOOKED_AT = 500
"""Batches without a row that one call takes up. Of 200 documents each, none of them in the tables, beside a million
uploads in the index: 1.1 s and 140 MB until the lake is asked."""

POSITION = "the search for lost batches goes on behind"


def not_in_tables(warehouse: Warehouse, held: Mapping[Upload, Batch]) -> set[str]:
    """Names of the batches that hold one of these uploads of which the tables have neither its row nor a newer one.

    Raises WarehouseError.
    """
    if not held:
        return set()
    with warehouse.read() as connection:
        return set(missing_uploads(connection, ((upload, batch.name) for upload, batch in held.items())))


def lost(
    storage: Storage,
    warehouse: Warehouse,
    options: IntakeOptions,
    names: Iterable[str],
    most: int,
    out_of_time: Callable[[], bool] = lambda: False,
) -> list[str]:
    """Of `names`, batches of which the tables have no row and should; at most `most`.

    A batch is left alone when newer uploads took the place of all of its own, or when its uploads are gone from the
    inbox: what people deleted must not come back. Such batches only grow in number, so each call takes up some of
    them, and the next one goes on behind: the lists are those of the index, the tables are asked once, and the lake
    only for what they do not have. Raises WarehouseError, and StorageError where the index cannot be used.
    """
    if out_of_time():
        return []
    found: list[str] = []
    with BatchIndex(storage, options.index) as index:
        place = index.get_note(POSITION)
        # the connection is closed before the lake is asked: nobody can load into a DuckDB file meanwhile
        with warehouse.read() as connection:
            turn = _behind(place, sorted(set(names) - present_batches(connection)))[:LOOKED_AT]
            uploads = index.uploads_of(turn)
            missing = missing_uploads(connection, ((upload, name) for name in uploads for upload in uploads[name]))
        for name in turn:
            place = name
            if name not in missing:
                continue
            # anew: a purge in another process may have taken some of them out since
            known = index.known(upload.key for upload in missing[name])
            taken = [upload for upload in missing[name] if (of := known.get(upload.key)) and of.taken(upload)]
            if any_current(storage, taken):
                found.append(name)
            if len(found) == most or out_of_time():  # asked after a batch: each call comes a step further
                break
        index.set_note(POSITION, place)
    return found


def _behind(place: str | None, names: list[str]) -> list[str]:
    """The sorted names in a circle, from the first one behind `place`."""
    start = bisect_right(names, place or "")
    return names[start:] + names[:start]


def missing_uploads(
    connection: duckdb.DuckDBPyConnection, held: Iterable[tuple[Upload, str]]
) -> dict[str, list[Upload]]:
    """Of (upload, batch that holds it): by batch, the uploads for which the tables have neither the batch's row nor
    one that goes before it."""
    asked = {
        Loadable(keys.document_id(upload.key), upload.last_modified, upload.etag, name): upload for upload, name in held
    }
    found: dict[str, list[Upload]] = {}
    for document in not_there(connection, asked.keys()):
        found.setdefault(document.batch, []).append(asked[document])
    return found
