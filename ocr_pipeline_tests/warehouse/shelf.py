"""What batches have published, as a rebuild asks for it, without a lake."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

import pyarrow as pa

from ocr_pipeline.warehouse.rebuild import PublishedBatch


class Shelf:
    """Batches as they are published, kept as Arrow tables."""

    def __init__(
        self, batches: Sequence[Mapping[str, pa.Table]], deletions: Mapping[str, datetime] | None = None
    ) -> None:
        self._batches: dict[str, PublishedBatch] = {}
        self._versions: dict[str, int] = {}
        for rows in batches:
            self.publish(rows)
        if deletions:
            self._batches["deletions"], self._versions["deletions"] = PublishedBatch(None, deletions), 1

    def publish(self, rows: Mapping[str, pa.Table]) -> None:
        """Publishes a batch, or publishes it again."""
        names = rows["documents"]["batch"].to_pylist()
        name = names[0] if names else "empty"
        self._batches[name] = PublishedBatch(rows)
        self._versions[name] = self._versions.get(name, 0) + 1

    def listing(self) -> dict[str, str]:
        return {name: str(version) for name, version in self._versions.items()}

    @contextlib.contextmanager
    def batch(self, name: str) -> Iterator[PublishedBatch]:
        yield self._batches[name]
