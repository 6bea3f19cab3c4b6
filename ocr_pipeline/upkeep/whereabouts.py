"""Where is my document: what inbox, batch lists, page images and tables know about an upload. Not here: Dagster's runs
(`runs/history.py`)."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum

from ocr_pipeline.flow import rendered
from ocr_pipeline.intake.unloaded import missing_uploads
from ocr_pipeline.lake import batches, keys
from ocr_pipeline.lake.storage import ObjectUnreadable, Storage, Tell
from ocr_pipeline.records import Batch, Upload
from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.ranking import Rank
from ocr_pipeline.warehouse.status import DocumentState, states

MOST = 20


class Stage(StrEnum):
    INBOX = "inbox"  # uploaded, in no batch list yet
    BATCH = "batch"  # in a batch list, its run has not begun to draw it
    PAGES = "pages"  # being drawn and read
    READ = "read"  # drawn and read, its rows are not loaded yet
    TABLES = "tables"  # done


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """One document on its way."""

    key: str
    document_id: str
    stage: Stage
    batch: str | None
    pages_done: int  # page images in the lake, or rows in the table
    pages: int | None  # in the PDF; None while nobody has opened it
    row: DocumentState | None  # what the tables say, of an earlier upload too


@dataclass(frozen=True, slots=True)
class Found:
    """The documents that were asked for."""

    documents: list[Whereabouts]
    more: int  # that the text fits too, and that are left out
    unreadable: tuple[str, ...]  # lists, folders of the inbox, records: what is wrong with each, and what to do


def find(lake: Storage, warehouse: Warehouse, inbox: str, text: str) -> Found:
    """Documents whose key contains `text`, or whose id is `text`, including those that are only in the inbox so far.

    `text` may also begin with a part of the lake's URI, as in a path that a shell has completed. Exact matches come
    first; at most `MOST` are returned. Case makes no difference, nor whether an accent is a character of its own (as
    macOS writes it). Reads all batch lists and lists the inbox.
    """
    wanted = _folded(text)
    # in a URI: what begins further left ends before the key, and is in every one
    leftmost = max(0, len(_folded(lake.uri_of(""))) + 1 - len(wanted))

    def fits(key: str) -> bool:
        return wanted in _folded(lake.uri_of(key))[leftmost:] or text == keys.document_id(key)

    def inexact(key: str) -> tuple[bool, bool]:
        return _folded(key) != wanted, not f"/{_folded(lake.uri_of(key))}".endswith(f"/{wanted}")

    unreadable: list[str] = []
    here = {info.as_upload() for info in lake.list(inbox, tell=unreadable.append) if fits(info.key)}
    newest, listed = _newest(lake, fits, here, unreadable.append)
    fresh = {upload.key for upload in here - listed}
    matching = sorted(newest.keys() | fresh, key=lambda key: (inexact(key), key))
    found = matching[:MOST]
    rows = states(warehouse, [keys.document_id(key) for key in found])
    places = {key: newest[key] for key in found if key not in fresh}
    with warehouse.read() as connection:
        held = ((upload, batch.name) for upload, batch in places.values())
        waiting = {upload.key for uploads in missing_uploads(connection, held).values() for upload in uploads}
    documents = [
        _one(lake, key, places.get(key), rows.get(keys.document_id(key)), key not in waiting, unreadable.append)
        for key in found
    ]
    return Found(documents, len(matching) - len(found), tuple(unreadable))


def _newest(
    lake: Storage, fits: Callable[[str], bool], here: Collection[Upload], tell: Tell
) -> tuple[dict[str, tuple[Upload, Batch]], set[Upload]]:
    """Of the keys that fit: by key the upload and the batch whose rows count, and all uploads in a batch list. `tell`
    is told of lists that cannot be read."""

    def rank(upload: Upload, batch: Batch) -> Rank:
        return Rank(upload.last_modified, upload in here, batch.name)

    newest: dict[str, tuple[Upload, Batch]] = {}
    lists = batches.load(lake, tell=tell)
    listed = [(upload, batch) for batch in lists for upload in batch.uploads if fits(upload.key)]
    for place in listed:
        known = newest.get(place[0].key)
        if known is None or rank(*known) < rank(*place):
            newest[place[0].key] = place
    return newest, {upload for upload, _ in listed}


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", text).lower()


def _one(
    lake: Storage,
    key: str,
    place: tuple[Upload, Batch] | None,
    row: DocumentState | None,
    loaded: bool,
    tell: Tell,
) -> Whereabouts:
    document_id = keys.document_id(key)
    if place is None:
        return Whereabouts(key, document_id, Stage.INBOX, None, 0, None, row)
    batch = place[1]
    if row is not None and loaded:
        done = sum(row.pages.values())
        return Whereabouts(key, document_id, Stage.TABLES, row.batch, done, row.page_count, row)
    try:
        drawn = rendered.read(lake, batch.name, document_id)
    except ObjectUnreadable as error:
        drawn = None
        tell(str(error))
    if drawn is not None:
        return Whereabouts(key, document_id, Stage.READ, batch.name, drawn.page_count, drawn.page_count, row)
    there = [info.key for info in lake.list(keys.pages_of_document(batch.name, document_id))]
    images = sum(map(keys.is_page_image, there))
    counted = keys.page_count(batch.name, document_id)
    pages = rendered.page_count(lake.read(counted)) if counted in there else None
    stage = Stage.PAGES if images or pages else Stage.BATCH
    return Whereabouts(key, document_id, stage, batch.name, images, pages, row)
