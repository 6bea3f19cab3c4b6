"""What the batches of the lake have published, without loading it: their manifests, and single columns of Parquet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import pyarrow as pa

from ocr_pipeline.flow.published import FILES_AT_ONCE, Manifest, read_manifest, read_table
from ocr_pipeline.lake import keys
from ocr_pipeline.lake.storage import Storage, parallel_map

T = TypeVar("T")


def of_each(lake: Storage, work: Callable[[Manifest], T]) -> Iterator[T]:
    """What `work` makes of each published batch, by name; side by side, in threads, with few files held at once.

    Raises StorageError or WarehouseError with the key of what cannot be read.
    """
    return parallel_map(lambda name: work(read_manifest(lake, name)), _names(lake), FILES_AT_ONCE)


def manifests(lake: Storage) -> Iterator[Manifest]:
    """The manifest of each published batch, by name. Raises as `of_each` does."""
    return parallel_map(lambda name: read_manifest(lake, name), _names(lake))


def columns(lake: Storage, manifest: Manifest, table: str, *names: str) -> pa.Table | None:
    """These columns of one table of the batch, in this order, no others decoded; None where it has no such file."""
    if table not in manifest.tables:
        return None
    return read_table(lake, manifest, table, list(names), verified=False).select(list(names))


def _names(lake: Storage) -> Iterator[str]:
    return (keys.batch_of_manifest(info.key) for info in lake.list(keys.MANIFESTS) if info.key.endswith(".json"))
