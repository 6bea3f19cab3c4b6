"""Where is my document: what inbox, batch lists, page images and tables know of an upload. Runs are asked elsewhere."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from ocr_pipeline.flow import rendered
from ocr_pipeline.lake import batches, keys
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.records import Batch
from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.status import DocumentState, status

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

    pages_per_second: float | None  # over the last 1,000 pages; None before any
    pages_per_document: float

    def seconds_for(self, documents: int) -> float | None:
        return documents * self.pages_per_document / self.pages_per_second if self.pages_per_second else None


_PACE = """
    WITH lately AS (SELECT processed_at FROM ocr.pages WHERE engine IS NOT NULL ORDER BY processed_at DESC LIMIT 1000)
    SELECT (count(*) - 1) / nullif(epoch(max(processed_at)) - epoch(min(processed_at)), 0),
        coalesce((SELECT avg(page_count) FROM ocr.documents WHERE page_count > 0), 1)
    FROM lately
"""


def find(lake: Storage, warehouse: Warehouse, inbox: str, text: str) -> list[Whereabouts]:
    """Documents whose key is, or holds, `text`; at most `MOST`, exact matches first."""
    rows = {state.document_id: state for state in status(warehouse, text, MOST)}
    listed: dict[str, Batch] = {}
    for batch in sorted(batches.load(lake), key=lambda batch: batch.name):
        for upload in batch.uploads:
            if text.lower() in upload.key.lower() or keys.document_id(upload.key) in rows:
                listed[upload.key] = batch
    found = sorted(listed, key=lambda key: (key != text, not key.endswith("/" + text), key))[:MOST]
    if not found:
        objects = (info.key for info in lake.list(inbox) if text.lower() in info.key.lower())
        found = [key for key, _ in zip(objects, range(MOST), strict=False)]
    return [_one(lake, key, listed.get(key), rows.get(keys.document_id(key))) for key in found]


def _one(lake: Storage, key: str, batch: Batch | None, row: DocumentState | None) -> Whereabouts:
    document_id = keys.document_id(key)
    if batch is None:
        return Whereabouts(key, document_id, Stage.INBOX, None, 0, None, row)
    if row is not None and row.batch >= batch.name:
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
