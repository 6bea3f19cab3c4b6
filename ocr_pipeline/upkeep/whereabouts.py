"""Where is my document: what inbox, batch lists, page images and tables know of an upload. Runs are asked elsewhere."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from ocr_pipeline.flow import rendered
from ocr_pipeline.lake import batches, keys
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.records import Batch, Upload
from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.status import DocumentState, states, status

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
class Pace:
    """How fast pages have lately been read, and how many documents wait."""

    pages_per_second: float | None  # of all backends, in the last 3 hours with work; None before any
    pages_per_document: float

    def seconds_for(self, documents: int) -> float | None:
        return documents * self.pages_per_document / self.pages_per_second if self.pages_per_second else None


_PACE = """
    WITH hours AS (SELECT DISTINCT hour FROM ocr.backend_speed ORDER BY hour DESC LIMIT 3),
    lately AS (SELECT * FROM ocr.backend_speed WHERE hour IN (FROM hours)),
    each AS (SELECT sum(pages) / nullif(sum(busy_seconds), 0) AS rate FROM lately GROUP BY backend)
    SELECT nullif(sum(rate), 0),
        coalesce((SELECT avg(page_count) FROM ocr.documents WHERE page_count > 0), 1)
    FROM each
"""
"""By the seconds in which each backend had something to do: nights without uploads must not make it look slow."""


def find(lake: Storage, warehouse: Warehouse, inbox: str, text: str) -> list[Whereabouts]:
    """Documents whose key is, or holds, `text`, also those that only stand in the inbox; at most `MOST`, exact matches
    first. Reads all batch lists and lists the inbox."""
    by_name = {state.document_id for state in status(warehouse, text, MOST)}
    newest: dict[str, tuple[Upload, Batch]] = {}
    listed: set[Upload] = set()
    for batch in batches.load(lake):
        for upload in batch.uploads:
            if text.lower() in upload.key.lower() or keys.document_id(upload.key) in by_name:
                listed.add(upload)
                known = newest.get(upload.key)
                if known is None or _rank(*known) < _rank(upload, batch):
                    newest[upload.key] = (upload, batch)
    fresh = {
        info.key
        for info in lake.list(inbox)
        if (text.lower() in info.key.lower() or info.key in newest)
        and Upload(info.key, info.etag, info.size, info.last_modified) not in listed
    }
    found = sorted(newest.keys() | fresh, key=lambda key: (key != text, not key.endswith("/" + text), key))[:MOST]
    rows = states(warehouse, [keys.document_id(key) for key in found])
    return [_one(lake, key, None if key in fresh else newest[key], rows.get(keys.document_id(key))) for key in found]


def _rank(upload: Upload, batch: Batch) -> tuple[datetime, str]:
    """Of two places of one document the higher one's rows count, as in the tables."""
    return upload.last_modified, batch.name


def _one(lake: Storage, key: str, place: tuple[Upload, Batch] | None, row: DocumentState | None) -> Whereabouts:
    document_id = keys.document_id(key)
    if place is None:
        return Whereabouts(key, document_id, Stage.INBOX, None, 0, None, row)
    batch = place[1]
    if row is not None and (row.uploaded_at, row.batch) >= _rank(*place):
        done = sum(row.pages.values())
        return Whereabouts(key, document_id, Stage.TABLES, row.batch, done, row.page_count, row)
    drawn = rendered.read(lake, batch.name, document_id)
    if drawn is not None:
        return Whereabouts(key, document_id, Stage.READ, batch.name, drawn.page_count, drawn.page_count, row)
    images = sum(info.key.endswith(".jpg") for info in lake.list(f"{keys.PAGES}{batch.name}/{document_id}/"))
    return Whereabouts(key, document_id, Stage.PAGES if images else Stage.BATCH, batch.name, images, None, row)


def pace(warehouse: Warehouse) -> Pace:
    with warehouse.read() as connection:
        row = connection.execute(_PACE).fetchone()
    return Pace(row[0], float(row[1])) if row else Pace(None, 1.0)


def documents_before(lake: Storage, waiting: Collection[str], batch_name: str) -> int:
    """Documents in the batches of `waiting` that come no later than `batch_name`."""
    return sum(len(batches.read(lake, name).uploads) for name in waiting if name <= batch_name)
