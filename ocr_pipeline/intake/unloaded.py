"""Batches whose rows are not in the warehouse, whatever Dagster's history says of their runs.

The tables may be lost, or OCR_WAREHOUSE may name others than those a batch was loaded into: then its run is done again,
which asks for no page. Not here: what the history says (`runs/history.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ocr_pipeline.lake import batches, keys
from ocr_pipeline.lake.storage import ObjectMissing, Storage
from ocr_pipeline.records import Batch, Upload
from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.present import Loadable, not_there, present_batches


def not_in_tables(warehouse: Warehouse, held: Mapping[Upload, Batch]) -> set[str]:
    """Names of the batches that hold one of these uploads of which the tables have neither its row nor a newer one.

    Raises WarehouseError.
    """
    if not held:
        return set()
    documents = {
        keys.document_id(upload.key): Loadable(upload.last_modified, upload.etag, batch.name)
        for upload, batch in held.items()
    }
    with warehouse.read() as connection:
        missing = not_there(connection, documents)
    return {batch.name for upload, batch in held.items() if keys.document_id(upload.key) in missing}


def lost(storage: Storage, warehouse: Warehouse, names: Iterable[str], most: int) -> list[str]:
    """Of `names`, batches of which the tables have no row and should; at most `most`, the oldest first.

    A batch is left alone when newer uploads took the place of all of its own, or when its uploads are gone from the
    inbox: what people deleted must not come back. Raises WarehouseError.
    """
    with warehouse.read() as connection:
        here = present_batches(connection)
    found: list[str] = []
    for name in sorted(set(names) - here):
        if len(found) == most:
            break
        try:
            batch = batches.read(storage, name)
        except ObjectMissing:
            continue
        if not_in_tables(warehouse, {upload: batch for upload in batch.uploads if _stands(storage, upload)}):
            found.append(name)
    return found


def _stands(storage: Storage, upload: Upload) -> bool:
    now = storage.stat(upload.key)
    return now is not None and now.etag == upload.etag
