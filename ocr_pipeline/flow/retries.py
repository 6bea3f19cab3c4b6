"""The records of all batches that have read one upload: the first batch, and the retries that are done.

A retry first writes its own records, then leaves a mark beside the records of the first batch (`keys.retry_done`), and
only then looks for other retries. So if two retries end at the same time, at least one of them sees the other.
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
from ocr_pipeline.warehouse.ranking import Rank, was_found


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

    @property
    def recipe_id(self) -> str | None:
        """The recipe of its transcript. None where the engine was not asked."""
        return self.read.transcript.recipe_id if self.read is not None and self.read.transcript is not None else None


@dataclass(frozen=True, slots=True)
class DocumentRecord:
    """What one batch made of the upload."""

    batch: str
    drawn: RenderedDocument
    read: Reading | None  # None: rejected, and the run died before it said so

    @property
    def rank(self) -> Rank:
        """Of all records of one upload, the tables hold the rows of the one with the highest rank."""
        return Rank(self.drawn.upload.last_modified, was_found(self.drawn.reason), self.batch)

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
        self._unmarked: dict[Upload, frozenset[str]] = {}

    def mark_done(self, upload: Upload) -> None:
        """Leaves the mark that this retry has written its records of the upload. No effect for other batches."""
        earlier = self._earlier(upload)
        if earlier:
            key = keys.retry_done(earlier[-1], keys.document_id(upload.key), self._batch.name)
            self._storage.write(key, self._batch.name.encode())

    def others(self, upload: Upload) -> Iterator[DocumentRecord]:
        """The records of the other batches that are done with the upload, highest rank first.

        Each record is read only when the caller gets to it: a document may have many retries, and most callers need
        only the first record.
        """
        document_id = keys.document_id(upload.key)
        earlier = self._earlier(upload)
        first = earlier[-1] if earlier else self._batch.name
        done = keys.retries_done(first, document_id)
        names = {info.key.removeprefix(done) for info in self._storage.list(done)}
        names |= {*earlier, *self._without_mark(first, upload)}
        last: list[DocumentRecord] = []
        for name in sorted(names - {self._batch.name}, reverse=True):
            record = self._record(name, upload)
            if record is not None and record.rank.found:
                yield record
            elif record is not None:
                last.append(record)
        yield from last

    def _without_mark(self, first: str, upload: Upload) -> frozenset[str]:
        """Retries made by an older release, which left no marks. It wrote the name of a retry beside the records of the
        batch that the retry repeats.

        Nothing writes such objects any more, so it is enough to look for them once in a run.
        """
        if upload not in self._unmarked:
            names: set[str] = set()
            to_look_at = [first, self._batch.name]
            while to_look_at:
                key = keys.repeated_by(to_look_at.pop(), keys.document_id(upload.key))
                try:
                    name = self._storage.read(key).decode()
                except ObjectMissing:
                    continue
                if name not in names:
                    names.add(name)
                    to_look_at.append(name)
            self._unmarked[upload] = frozenset(names)
        return self._unmarked[upload]

    def _earlier(self, upload: Upload) -> list[str]:
        """The batch that this one repeats for the upload, the batch that that one repeats, and so on; the first batch
        that read the upload comes last."""
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
