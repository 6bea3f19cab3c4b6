"""What the batches of the lake have published, without loading it: their manifests, and single columns of Parquet.

Also which Parquet files there are that no manifest names: a run that was killed before its manifest has left them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import pyarrow as pa

from ocr_pipeline.flow.published import FILES_AT_ONCE, Manifest, read_manifest, read_table
from ocr_pipeline.lake import keys
from ocr_pipeline.lake.storage import ObjectMissing, ObjectUnreadable, Storage, Tell, parallel_map
from ocr_pipeline.warehouse import parquet
from ocr_pipeline.warehouse.errors import WarehouseError
from ocr_pipeline.warehouse.schema import TABLES

T = TypeVar("T")


def etags(lake: Storage) -> dict[str, str]:
    """Every published batch by name, with the etag of its manifest: another one once it is published again."""
    listed = (info for info in lake.list(keys.MANIFESTS) if info.key.endswith(".json"))
    return {keys.batch_of_manifest(info.key): info.etag for info in listed}


def of_each(lake: Storage, work: Callable[[Manifest], T], tell: Tell | None = None) -> Iterator[T]:
    """What `work` makes of each published batch, by name; side by side, in threads, with few files held at once.

    Raises StorageError or WarehouseError with the key of what cannot be read. With `tell` a batch whose manifest cannot
    be is left out, and `tell` gets what is wrong with it.
    """

    def one(name: str) -> list[T]:
        try:
            manifest = read_manifest(lake, name)
        except (ObjectUnreadable, WarehouseError) as error:
            if tell is None:
                raise
            tell(str(error))
            return []
        return [work(manifest)]

    return (made for some in parallel_map(one, etags(lake), FILES_AT_ONCE) for made in some)


def parquet_files(lake: Storage) -> dict[str, str]:
    """The batch of every Parquet file, by key, whether its manifest names the file or not.

    Ask before the manifests are read: a run writes the files first, so what is not named then is not published.
    """
    places = ((info.key, keys.parse_table(info.key)) for info in lake.list(keys.TABLES))
    return {key: place[2] for key, place in places if place is not None and place[0] in TABLES}


def columns(lake: Storage, manifest: Manifest, table: str, *names: str) -> pa.Table | None:
    """These columns of one table of the batch, in this order, no others decoded; None where it has no such file."""
    if table not in manifest.tables:
        return None
    return read_table(lake, manifest, table, list(names), verified=False).select(list(names))


def readable_columns(lake: Storage, manifest: Manifest, table: str, *names: str, tell: Tell) -> pa.Table | None:
    """`columns`; None too where the file is gone, or cannot be read: `tell` gets what is wrong with it."""
    try:
        return columns(lake, manifest, table, *names)
    except ObjectMissing:
        return None
    except (ObjectUnreadable, WarehouseError) as error:
        tell(str(error))
        return None


def unnamed_columns(lake: Storage, key: str, *names: str) -> pa.Table:
    """Those of these columns that are its table's, of a Parquet file that no manifest names. Raises as `of_each`."""
    table = key.split("/")[1]
    wanted = [name for name in names if name in TABLES[table].names]
    try:
        return parquet.from_bytes(table, lake.read(key), wanted).select(wanted)
    except WarehouseError as error:
        raise WarehouseError(
            f"{key}: {error}: no manifest names the file: materialise ocr_parquet for its batch again, or delete it"
        ) from error
