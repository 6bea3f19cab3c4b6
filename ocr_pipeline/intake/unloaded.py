"""Batches whose rows are not in the warehouse, although Dagster's history may say that they were loaded.

The tables may be lost, or OCR_WAREHOUSE may name other tables than those that a batch was loaded into. Such a batch is
run again, which reads no page a second time. Not here: what the history says (`runs/history.py`).
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
    """Names of the batches with an upload for which the tables have neither the batch's row nor one that wins over it.

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
    """Those of `names` that should have rows in the tables and have none; at most `most`.

    A batch is left alone if newer uploads have replaced all of its own, or if its uploads are no longer in the inbox:
    what people deleted must not come back. The number of such batches only grows, so each call looks at some of them
    and the next call goes on from there. Lists are taken from the index, the tables are asked once, and the lake is
    asked only about uploads that the tables lack. Raises WarehouseError, and StorageError if the index cannot be used.
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
    """The sorted names, rotated so that they begin with the first one after `place`."""
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
