"""The warehouse made again from the lake alone: every published batch, read from its Parquet files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager

from ocr_pipeline.flow.published import Manifest, addresses, read_manifest
from ocr_pipeline.lake.storage import ObjectMissing, ObjectUnreadable, Storage
from ocr_pipeline.upkeep.published import etags
from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.errors import NotAsPublished
from ocr_pipeline.warehouse.rebuild import PublishedBatch, RebuildCounts, rebuild

_WAITS = (0.5, 1.0, 2.0, 4.0)
"""Seconds between looks at a batch that is not whole: a run that publishes it again is between file and manifest."""


def rebuild_warehouse(
    lake: Storage,
    warehouse: Warehouse,
    on_batch: Callable[[str], None] = lambda name: None,
    *,
    on_r2: bool = False,
    force: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> RebuildCounts:
    """All four tables from the batches' manifests and files, in one swap; deletions are in the manifests too.

    `on_r2`: MotherDuck reads the files itself. Errors and `force` as in `rebuild`. A batch whose files are not those of
    its manifest is looked at again for some seconds (`sleep`), here and once more at the swap.
    """
    return rebuild(warehouse, _Lake(lake, on_batch, on_r2, sleep), force=force)


class _Lake:
    """What the lake has published, as `rebuild` asks for it."""

    def __init__(
        self, lake: Storage, on_batch: Callable[[str], None], on_r2: bool, sleep: Callable[[float], None]
    ) -> None:
        self._lake, self._on_batch, self._on_r2, self._sleep = lake, on_batch, on_r2, sleep

    def listing(self) -> Mapping[str, str]:
        return etags(self._lake)

    def batch(self, name: str) -> AbstractContextManager[PublishedBatch]:
        self._on_batch(name)
        return self._opened(name)

    @contextmanager
    def _opened(self, name: str) -> Iterator[PublishedBatch]:
        with ExitStack() as files:
            found = self._look(name, files)
            for wait in _WAITS:
                if found.fault is None:
                    break
                self._sleep(wait)
                found = self._look(name, files)
            yield found

    def _look(self, name: str, files: ExitStack) -> PublishedBatch:
        """The batch as it stands; its files can be read until `files` closes."""
        manifest: Manifest | None = None
        try:
            manifest = read_manifest(self._lake, name)
            found = files.enter_context(addresses(self._lake, manifest, on_r2=self._on_r2))
            return PublishedBatch(found or None, manifest.deleted)
        except NotAsPublished as error:
            fault = str(error)
        except ObjectMissing as error:
            fault = f"batch {name}: {error}: materialise ocr_parquet for the batch again"
        except ObjectUnreadable as error:
            fault = f"batch {name}: {error}"
        return PublishedBatch(None, manifest.deleted if manifest else {}, fault)
