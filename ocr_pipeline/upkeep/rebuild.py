"""The warehouse made again from the lake alone: every published batch, read from its Parquet files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pyarrow as pa

from ocr_pipeline.flow import tables
from ocr_pipeline.lake import keys
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.records import Deletion
from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.load import as_deletion
from ocr_pipeline.warehouse.rebuild import RebuildCounts, rebuild


def rebuild_warehouse(
    lake: Storage, warehouse: Warehouse, on_batch: Callable[[str], None] = lambda name: None
) -> RebuildCounts:
    """All four tables from the batches' manifests and files, in one swap; deletions are in the manifests too."""
    names = [
        info.key.removeprefix(keys.MANIFESTS).removesuffix(".json")
        for info in lake.list(keys.MANIFESTS)
        if info.key.endswith(".json")
    ]
    manifests = [tables.read_manifest(lake, name) for name in names]
    deletions: dict[str, Deletion] = {}
    for manifest in manifests:
        for document_id, mark in manifest.deleted.items():
            seen = as_deletion(mark)
            if document_id not in deletions or deletions[document_id].deleted_at < seen.deleted_at:
                deletions[document_id] = seen

    def published() -> Iterator[Mapping[str, pa.Table]]:
        for manifest in manifests:
            if manifest.tables:
                on_batch(manifest.batch)
                yield tables.read_tables(lake, manifest)

    return rebuild(warehouse, published(), deletions)
