"""What the batches that read one upload have made of it: the first one, and the retries of it that are done.

A retry that is done leaves a mark beside the records of the first batch (`keys.retry_done`): its own records stand
before the mark, and it looks for the others after it. So of two that end at once, at least one sees the other.
Not here: what a batch takes from the others (`repeating.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ocr_pipeline.flow import documents, reading, rendered
from ocr_pipeline.flow.reading import PageReading, Reading
from ocr_pipeline.flow.rendered import RenderedDocument, RenderedPage
from ocr_pipeline.lake import batches, keys
from ocr_pipeline.lake.storage import ObjectMissing, Storage
from ocr_pipeline.records import Batch, PageStatus, Reason, Upload
from ocr_pipeline.warehouse.load import NOT_FOUND


@dataclass(frozen=True, slots=True)
class PageRecord:
    """A page as it was drawn and read, and how it ended."""

    drawn: RenderedPage
    read: PageReading | None  # None where it was not the engine's turn
    status: PageStatus
    reason: Reason | None

    @property
    def has_text(self) -> bool:
        """Whether it is done: it has its text from the engine, or there is none on it."""
        return self.status in (PageStatus.OK, PageStatus.BLANK)


@dataclass(frozen=True, slots=True)
class DocumentRecord:
    """What one batch made of the upload."""

    batch: str
    drawn: RenderedDocument
    read: Reading | None  # None: rejected, and the run died before it said so

    @property
    def rank(self) -> tuple[bool, str]:
        """Of one upload the rows of the record with the highest rank are in the tables."""
        return self.drawn.reason not in NOT_FOUND, self.batch

    def pages(self) -> Iterator[PageRecord]:
        read = {page.number: page for page in (self.read.pages if self.read else ())}
        for page in self.drawn.pages:
            status, reason, _ = documents.page_outcome(page, read.get(page.number))
            yield PageRecord(page, read.get(page.number), status, reason)


class Retries:
    """The other batches of a batch's uploads. Made anew for each run; methods may be called from many threads."""

    def __init__(self, storage: Storage, batch: Batch) -> None:
        self._storage = storage
        self._batch = batch
        self._lists: dict[str, Batch | None] = {batch.name: batch}

    def mark_done(self, upload: Upload) -> None:
        """Says that this retry has its records of the upload. Nothing where the batch is no retry of it."""
        earlier = self._earlier(upload)
        if earlier:
            key = keys.retry_done(earlier[-1], keys.document_id(upload.key), self._batch.name)
            self._storage.write(key, self._batch.name.encode())

    def others(self, upload: Upload) -> list[DocumentRecord]:
        """The records of the other batches that are done with the upload, the highest rank first."""
        document_id = keys.document_id(upload.key)
        earlier = self._earlier(upload)
        first = earlier[-1] if earlier else self._batch.name
        done = keys.retries_done(first, document_id)
        names = {info.key.removeprefix(done) for info in self._storage.list(done)}.union(earlier) - {self._batch.name}
        found = (self._record(name, upload) for name in names)
        return sorted((record for record in found if record), key=lambda record: record.rank, reverse=True)

    def _earlier(self, upload: Upload) -> list[str]:
        """The batch that this one repeats for the upload, the one that that repeats, and so on: the first one last."""
        chain: list[str] = []
        batch: Batch | None = self._batch
        while batch is not None and (name := batch.repeated(upload)) is not None and name not in chain:
            chain.append(name)
            if name not in self._lists:
                self._lists[name] = self._list(name)
            batch = self._lists[name]
        return chain

    def _list(self, name: str) -> Batch | None:
        try:
            return batches.read(self._storage, name)
        except ObjectMissing:
            return None

    def _record(self, name: str, upload: Upload) -> DocumentRecord | None:
        document_id = keys.document_id(upload.key)
        drawn = rendered.read(self._storage, name, document_id)
        read = reading.read(self._storage, name, document_id)
        if drawn is None or drawn.upload != upload or (read is None and drawn.reason is None):
            return None  # not drawn and read to the end, or another upload's
        return DocumentRecord(name, drawn, read)
