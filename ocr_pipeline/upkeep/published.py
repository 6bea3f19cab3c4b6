"""What the batches of the lake have published, without loading it: their manifests, and single columns of Parquet."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from ocr_pipeline.flow.published import Manifest, read_manifest
from ocr_pipeline.lake import keys
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.warehouse import parquet


def manifests(lake: Storage) -> Iterator[Manifest]:
    for info in lake.list(keys.MANIFESTS):
        if info.key.endswith(".json"):
            yield read_manifest(lake, info.key.removeprefix(keys.MANIFESTS).removesuffix(".json"))


def columns(lake: Storage, manifest: Manifest, table: str, *names: str) -> pa.Table | None:
    """These columns of one table of the batch, in this order, no others decoded; None where it has no such file."""
    file = manifest.tables.get(table)
    return parquet.from_bytes(table, lake.read(file.key), names).select(list(names)) if file is not None else None
