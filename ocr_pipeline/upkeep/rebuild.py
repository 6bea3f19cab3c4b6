"""The warehouse made again from the lake alone: every published batch, read from its Parquet files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

from ocr_pipeline.flow.published import addresses, read_manifest
from ocr_pipeline.lake import keys
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.rebuild import PublishedBatch, RebuildCounts, rebuild


def rebuild_warehouse(
    lake: Storage,
    warehouse: Warehouse,
    on_batch: Callable[[str], None] = lambda name: None,
    *,
    on_r2: bool = False,
    force: bool = False,
) -> RebuildCounts:
    """All four tables from the batches' manifests and files, in one swap; deletions are in the manifests too.

    `on_r2`: MotherDuck reads the files itself. Errors and `force` as in `rebuild`.
    """
    return rebuild(warehouse, _Lake(lake, on_batch, on_r2), force=force)


class _Lake:
    """What the lake has published, as `rebuild` asks for it."""

    def __init__(self, lake: Storage, on_batch: Callable[[str], None], on_r2: bool) -> None:
        self._lake, self._on_batch, self._on_r2 = lake, on_batch, on_r2

    def listing(self) -> Mapping[str, str]:
        return {
            info.key.removeprefix(keys.MANIFESTS).removesuffix(".json"): info.etag
            for info in self._lake.list(keys.MANIFESTS)
            if info.key.endswith(".json")
        }

    def batch(self, name: str) -> AbstractContextManager[PublishedBatch]:
        self._on_batch(name)
        return self._opened(name)

    @contextmanager
    def _opened(self, name: str) -> Iterator[PublishedBatch]:
        manifest = read_manifest(self._lake, name)
        with addresses(self._lake, manifest, on_r2=self._on_r2) as files:
            yield PublishedBatch(files or None, manifest.deleted)
