"""What a retry takes over from the other batches that read the same upload.

A retry draws and reads only the pages that failed for one of its reasons or through no fault of theirs (`asks_again`),
even if the recipe has changed since. All other pages stay as they are: text, image, engine and recipe. If the
upload can no longer be read, the pages that were read before are kept.

Retries of one document can overlap: two that start at the same time know nothing of each other, and may end in any
order. In the tables, the rows of the batch with the highest rank win (`DocumentRecord.rank`). If a batch of lower rank
reads pages later than that one, its results would be missing there. So it writes the list of a follow-up: one more
batch of those documents, which combines the results of all batches and reads nothing itself. If a follow-up is run a
second time it behaves like any other batch, and asks again for pages that no server answered.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import chain, tee

from ocr_pipeline.flow import reading, rendered
from ocr_pipeline.flow.attempts import with_earlier
from ocr_pipeline.flow.pages import NOT_THE_PAGES_FAULT
from ocr_pipeline.flow.reading import PageReading, Reading
from ocr_pipeline.flow.rendered import RenderedDocument
from ocr_pipeline.flow.retries import DocumentRecord, PageRecord, Retries
from ocr_pipeline.lake import batches, keys, planner
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.records import Batch, Reason, Upload


@dataclass(frozen=True, slots=True)
class Kept:
    """What a batch takes over of one document. Empty for a batch that is no retry."""

    document: RenderedDocument | None = None
    pages: dict[int, PageRecord] = field(default_factory=dict)  # by page number: the pages that are not read again
    readings: dict[int, PageReading] = field(default_factory=dict)  # of all pages, also those that are read again
    anew: bool = False  # a backfill, which reads every page under a new recipe; or a retry of such a batch


NOTHING = Kept()


def kept(
    storage: Storage, batch: Batch, retries: Retries, upload: Upload, own: RenderedDocument | None, recipe_id: str
) -> Kept:
    """What the retry `batch` takes over of `upload`. `own`: its own record, where an earlier run of it has drawn it.

    If the batch is run again with the same recipe, it keeps its own results and takes what other batches have read with
    that recipe since. With another recipe (a backfill) it reads every page again.
    """
    if batch.repeated(upload) is None:
        return NOTHING
    mine = reading.read(storage, batch.name, keys.document_id(upload.key))
    if own is not None and mine is not None and mine.recipe_id != recipe_id:
        return Kept(own, anew=True)
    before = [DocumentRecord(batch.name, own, mine)] if own is not None and mine is not None else []
    others, candidates = tee(retries.others(upload))
    standing = next((record for record in chain(before, candidates) if record.drawn.reason is None), None)
    base = standing or next(chain(before, others), None)
    if base is None:
        return NOTHING
    whole = completed(base, others, recipe_id)
    asks = bool(batch.retry_reasons) or mine is not None  # not a follow-up's first run
    pages = {p.drawn.number: p for p in whole.pages() if not (asks and asks_again(p, batch.retry_reasons))}
    readings = {page.number: page for page in (whole.read.pages if whole.read else ())}
    return Kept(whole.drawn, pages, readings, anew=whole.read is not None and whole.read.anew)


def asks_again(page: PageRecord, reasons: Collection[Reason]) -> bool:
    """Whether a retry for `reasons` reads this page again: the engine gave no text, for one of these reasons or because
    of a fault that had nothing to do with the page."""
    if page.has_text:
        return False
    return page.reason in reasons or page.reason in NOT_THE_PAGES_FAULT or page.reason is Reason.IMAGE_GONE


def completed(record: DocumentRecord, others: Iterable[DocumentRecord], recipe_id: str) -> DocumentRecord:
    """The record, with its pages replaced by better ones from `others`: a page without text by any page with text, a
    page read with an earlier recipe by one read with `recipe_id`. A backfill, and a retry of one, takes no page of a
    recipe that none of its own pages has.

    Among equally good pages the first is taken. `others` is read only as far as needed. Returns the same object if
    nothing was replaced.
    """
    worth = {p.drawn.number: _worth(p, recipe_id) for p in record.pages() if not p.has_text or p.recipe_id is not None}
    if record.read is None or min(worth.values(), default=_CURRENT) == _CURRENT:
        return record
    recipes = {recipe_id, record.read.recipe_id, *(page.recipe_id for page in record.pages() if page.recipe_id)}
    taken: dict[int, PageRecord] = {}
    for other in others:
        if other.drawn.reason is not None or other.drawn.page_count != record.drawn.page_count:
            continue
        for page in other.pages():
            number, offered = page.drawn.number, _worth(page, recipe_id)
            allowed = not record.read.anew or page.recipe_id in recipes
            if allowed and offered > worth.get(number, _CURRENT):
                taken[number], worth[number] = page, offered
        if min(worth.values()) == _CURRENT:
            break
    if not taken:
        return record
    kept = tuple(page for page in record.read.pages if page.number not in taken)
    new = tuple(page.read for page in taken.values() if page.read is not None)
    pages = tuple(sorted((*kept, *new), key=lambda page: page.number))
    return replace(
        record,
        drawn=with_pages(record.drawn, taken),
        read=with_earlier(replace(record.read, pages=pages), record.read),
    )


_NO_TEXT, _EARLIER, _CURRENT = range(3)


def _worth(page: PageRecord, recipe_id: str) -> int:
    if not page.has_text:
        return _NO_TEXT
    return _CURRENT if page.recipe_id == recipe_id else _EARLIER


def with_pages(document: RenderedDocument, pages: Mapping[int, PageRecord]) -> RenderedDocument:
    """The document, with these pages in place of its own."""
    drawn = (pages[page.number].drawn if page.number in pages else page for page in document.pages)
    return replace(document, pages=tuple(drawn))


@dataclass(frozen=True, slots=True)
class Settled:
    """A document's records at the end of its run, after a look at the other batches."""

    drawn: RenderedDocument
    read: Reading
    overtaken: bool  # the rows and the markdown file are those of a later batch
    lacking: str | None  # that batch, where it lacks a text that this one has: a follow-up is needed


def settle(storage: Storage, batch: Batch, retries: Retries, drawn: RenderedDocument, read: Reading) -> Settled:
    """What a run does after it has written its records: it leaves its mark, and takes over what other batches have read
    since."""
    retries.mark_done(drawn.upload)
    others, highest = tee(retries.others(drawn.upload))
    record = DocumentRecord(batch.name, drawn, read)
    if batch.repeats and drawn.reason is None and (whole := completed(record, others, read.recipe_id)) is not record:
        rendered.write(storage, batch.name, whole.drawn)
        reading.write(storage, batch.name, whole.read or read)
        record = whole
    top = next(highest, None)
    if top is not None and top.rank < record.rank:
        top = None
    lacks = top is not None and _lacks(top, record)
    return Settled(record.drawn, record.read or read, top is not None, top.batch if top is not None and lacks else None)


def _lacks(top: DocumentRecord, record: DocumentRecord) -> bool:
    if record.drawn.reason is not None:
        return False
    if top.drawn.reason is not None:
        return True
    return top.read is not None and completed(top, [record], top.read.recipe_id) is not top


def follow_up(storage: Storage, overtaken: Mapping[Upload, str], now: datetime) -> Batch | None:
    """Writes the list of a follow-up, which combines the results of overlapping retries; the sensor runs it.

    `overtaken`: for each upload, the batch whose rows lack something or whose markdown file was overwritten. If a run
    is repeated before its follow-up is done it writes a second one, which does no harm.
    """
    if not overtaken:
        return None
    batch = planner.retry(overtaken, (), now)
    batches.write(storage, batch)
    return batch
