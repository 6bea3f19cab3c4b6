"""What a retry takes from the other batches of the same upload: the pages that have their text, or failed for another
reason than its own.

Only the failed pages are drawn and asked again, also after the recipe has changed: the others keep their text, and with
it their image, their engine and their recipe. Nothing that stands is lost when the upload can no longer be read.

Retries of one document overlap: two that are asked for at once know nothing of each other, and may end in any order.
The rows of the highest one count. What a lower one reads after that is brought together by a follow-up: one more batch
of those documents, which asks for nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from ocr_pipeline.flow import reading, rendered
from ocr_pipeline.flow.pages import NOT_THE_PAGES_FAULT
from ocr_pipeline.flow.reading import PageReading, Reading
from ocr_pipeline.flow.rendered import RenderedDocument
from ocr_pipeline.flow.retries import DocumentRecord, PageRecord, Retries
from ocr_pipeline.lake import batches, keys, planner
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.records import Batch, Reason, Upload


@dataclass(frozen=True, slots=True)
class Kept:
    """What stands of one document. Empty for a batch that repeats none."""

    document: RenderedDocument | None = None
    pages: dict[int, PageRecord] = field(default_factory=dict)  # by page number: those that are not asked again
    readings: dict[int, PageReading] = field(default_factory=dict)  # of all pages, those to be asked again too
    anew: bool = False  # a backfill: every page is read under the new recipe


NOTHING = Kept()


def kept(
    storage: Storage, batch: Batch, retries: Retries, upload: Upload, own: RenderedDocument | None, recipe_id: str
) -> Kept:
    """What the retry `batch` keeps of `upload`. `own`: what it has drawn of it itself, in an earlier run.

    Made again under its own recipe it keeps what it has; under another one (a backfill) it reads every page anew.
    """
    if batch.repeated(upload) is None:
        return NOTHING
    mine = reading.read(storage, batch.name, keys.document_id(upload.key))
    if own is not None and mine is not None and mine.recipe_id != recipe_id:
        return Kept(own, anew=True)
    others = retries.others(upload)
    before = [DocumentRecord(batch.name, own, mine)] if own is not None and mine is not None else others
    base = next((record for record in (*before, *others) if record.drawn.reason is None), None)
    base = base or next(iter(before), None)
    if base is None:
        return NOTHING
    whole = completed(base, others)
    pages = {page.drawn.number: page for page in whole.pages() if not asks_again(page, batch.retry_reasons)}
    readings = {page.number: page for page in (whole.read.pages if whole.read else ())}
    return Kept(whole.drawn, pages, readings, anew=mine is not None and mine.anew)


def asks_again(page: PageRecord, reasons: Collection[Reason]) -> bool:
    """Whether a retry for `reasons` asks for this page: it has no text of the engine's for one of them, or for a fault
    that was not the page's own."""
    if page.has_text:
        return False
    return page.reason in reasons or page.reason in NOT_THE_PAGES_FAULT or page.reason is Reason.IMAGE_GONE


def completed(record: DocumentRecord, others: Iterable[DocumentRecord]) -> DocumentRecord:
    """The record with the pages that lack their text taken from the first of `others` that has it.

    A backfill takes no text of another recipe. The same object comes back where nothing is taken.
    """
    lacking = {page.drawn.number for page in record.pages() if not page.has_text}
    taken: dict[int, PageRecord] = {}
    for other in others:
        if not lacking:
            break
        if other.drawn.reason is None and other.drawn.page_count == record.drawn.page_count:
            found = {p.drawn.number: p for p in other.pages() if p.drawn.number in lacking and _is_for(record, p)}
            taken.update(found)
            lacking -= found.keys()
    if not taken or record.read is None:
        return record
    read = {page.number: page for page in record.read.pages if page.number not in taken}
    read.update((number, page.read) for number, page in taken.items() if page.read is not None)
    return replace(
        record,
        drawn=with_pages(record.drawn, taken),
        read=replace(record.read, pages=tuple(read[number] for number in sorted(read))),
    )


def _is_for(record: DocumentRecord, page: PageRecord) -> bool:
    if not page.has_text or record.read is None or not record.read.anew:
        return page.has_text
    transcript = page.read.transcript if page.read else None
    return transcript is not None and transcript.recipe_id == record.read.recipe_id


def with_pages(document: RenderedDocument, pages: Mapping[int, PageRecord]) -> RenderedDocument:
    """The document with these of its pages as they were drawn there."""
    drawn = (pages[page.number].drawn if page.number in pages else page for page in document.pages)
    return replace(document, pages=tuple(drawn))


@dataclass(frozen=True, slots=True)
class Settled:
    """A document's records at the end of its run, among those of the other batches."""

    drawn: RenderedDocument
    read: Reading
    overtaken: bool  # the rows and the markdown file are those of a later batch
    lacking: str | None  # that batch, where it lacks a text that this one has: a follow-up is needed


def settle(storage: Storage, batch: Batch, retries: Retries, drawn: RenderedDocument, read: Reading) -> Settled:
    """What a run does once it has written its records: says so, and takes from the other batches what came since."""
    retries.mark_done(drawn.upload)
    others = retries.others(drawn.upload)
    record = DocumentRecord(batch.name, drawn, read)
    if batch.repeats and drawn.reason is None and (whole := completed(record, others)) is not record:
        rendered.write(storage, batch.name, whole.drawn)
        reading.write(storage, batch.name, whole.read or read)
        record = whole
    top = others[0] if others and others[0].rank > record.rank else None
    lacks = top is not None and _lacks(top, record)
    return Settled(record.drawn, record.read or read, top is not None, top.batch if top is not None and lacks else None)


def overtaken_by(batch: Batch, retries: Retries, drawn: RenderedDocument, read: Reading) -> str | None:
    """The later batch that was done while this one wrote the markdown file, which is that batch's: a follow-up is
    needed, which writes it once more."""
    others = retries.others(drawn.upload)
    return others[0].batch if others and others[0].rank > DocumentRecord(batch.name, drawn, read).rank else None


def _lacks(top: DocumentRecord, record: DocumentRecord) -> bool:
    if record.drawn.reason is not None:
        return False
    if top.drawn.reason is not None:
        return True
    if top.read is not None and record.read is not None and top.read.recipe_id != record.read.recipe_id:
        return False  # a backfill: a follow-up would put pages of the old recipe above the new ones
    return completed(top, [record]) is not top


def follow_up(storage: Storage, overtaken: Mapping[Upload, str], now: datetime) -> Batch | None:
    """Writes the list of the batch that brings together what overlapping retries have read; the sensor runs it.

    `overtaken`: for each upload the batch whose rows lack something. A run that is repeated before the follow-up is
    done writes another one, which does no harm.
    """
    if not overtaken:
        return None
    batch = planner.retry(overtaken, (), now)
    batches.write(storage, batch)
    return batch
