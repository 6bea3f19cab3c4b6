"""What a retry keeps of the batch that it repeats: the pages that have their text, or failed for another reason.

Only the failed pages are drawn and asked again, also after the recipe has changed: the others keep their text, and with
it their image, their engine and their recipe. Nothing that stands is lost when the upload cannot be had any more.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from ocr_pipeline.flow import documents, reading, rendered
from ocr_pipeline.flow.pages import NOT_THE_PAGES_FAULT
from ocr_pipeline.flow.reading import PageReading, Reading
from ocr_pipeline.flow.rendered import RenderedDocument, RenderedPage
from ocr_pipeline.lake import keys
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.records import Batch, Page, PageStatus, Reason, Upload


@dataclass(frozen=True, slots=True)
class KeptPage:
    """A page that is not asked again, as it was drawn and read."""

    drawn: RenderedPage
    read: PageReading | None  # None where it was not the engine's turn
    status: PageStatus
    reason: Reason | None


@dataclass(frozen=True, slots=True)
class Kept:
    """What stands of one document. Empty for a batch that repeats none."""

    document: RenderedDocument | None = None
    pages: dict[int, KeptPage] = field(default_factory=dict)  # by page number
    readings: dict[int, PageReading] = field(default_factory=dict)  # of all pages, those to be asked again too


NOTHING = Kept()


def kept(storage: Storage, batch: Batch, upload: Upload, own: RenderedDocument | None, recipe_id: str) -> Kept:
    """What the retry `batch` keeps of `upload`. `own`: what it has drawn of it itself, in an earlier run.

    Made again under its own recipe it keeps what it has; under another one (a backfill) it reads every page anew.
    """
    repeated = batch.repeated(upload)
    if repeated is None:
        return NOTHING
    document_id = keys.document_id(upload.key)
    mine = reading.read(storage, batch.name, document_id)
    if own is not None and mine is not None:
        return _of(batch, own, mine) if mine.recipe_id == recipe_id else Kept(own)
    drawn = rendered.read(storage, repeated, document_id)
    read = reading.read(storage, repeated, document_id)
    if drawn is None or drawn.upload != upload or (read is None and drawn.reason is None):
        return NOTHING
    return _of(batch, drawn, read)


def _of(batch: Batch, drawn: RenderedDocument, read: Reading | None) -> Kept:
    found = {page.number: page for page in (read.pages if read else ())}
    images = {page.number: page for page in drawn.pages}
    rows = documents.result(batch, drawn, read, read.recipe_id if read else "", str).pages
    pages = {
        row.page_number: KeptPage(images[row.page_number], found.get(row.page_number), row.status, row.reason)
        for row in rows
        if not asks_again(row, batch.retry_reasons)
    }
    return Kept(drawn, pages, found)


def asks_again(page: Page, reasons: Collection[Reason]) -> bool:
    """Whether a retry for `reasons` asks for this page: it has no text of the engine's for one of them, or for a fault
    that was not the page's own."""
    if page.status in (PageStatus.OK, PageStatus.BLANK):
        return False
    return page.reason in reasons or page.reason in NOT_THE_PAGES_FAULT or page.reason is Reason.IMAGE_GONE


def mark_repeated(storage: Storage, batch: Batch, upload: Upload) -> None:
    """Leaves word beside the repeated batch's records: its own text of this upload is not the newest any more."""
    if (repeated := batch.repeated(upload)) is not None:
        storage.write(keys.repeated(repeated, keys.document_id(upload.key)), batch.name.encode())


def was_repeated(storage: Storage, batch_name: str, upload: Upload) -> bool:
    return storage.stat(keys.repeated(batch_name, keys.document_id(upload.key))) is not None
