"""Estimates how long it takes until a batch is read: the pages that come before it, divided by the recent speed.

Here belongs the estimate. Which batches are waiting and which are running, only Dagster knows: the caller says so.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ocr_pipeline.flow import rendered
from ocr_pipeline.lake import batches, keys
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.records import Batch
from ocr_pipeline.warehouse.connection import Warehouse


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast pages have lately been read, and how many a document has."""

    pages_per_second: float | None  # of all backends, in the last 3 hours with work; None before any
    pages_per_document: float

    def seconds_for(self, pages: float) -> float | None:
        return pages / self.pages_per_second if self.pages_per_second else None


_PACE = """
    WITH hours AS (SELECT DISTINCT hour FROM ocr.backend_speed ORDER BY hour DESC LIMIT 3),
    lately AS (SELECT * FROM ocr.backend_speed WHERE hour IN (FROM hours)),
    each AS (SELECT sum(pages) / nullif(sum(busy_seconds), 0) AS rate FROM lately GROUP BY backend)
    SELECT nullif(sum(rate), 0),
        coalesce((SELECT avg(page_count) FROM ocr.documents WHERE page_count > 0), 1)
    FROM each
"""
"""Speed counts only the seconds in which a backend had work: nights without uploads must not make it look slow."""


def pace(warehouse: Warehouse) -> Pace:
    with warehouse.read() as connection:
        row = connection.execute(_PACE).fetchone()
    return Pace(row[0], float(row[1])) if row else Pace(None, 1.0)


def pages_until_read(
    lake: Storage, waiting: Collection[str], at_work: Collection[str], pages_per_document: float
) -> dict[str, float]:
    """For each batch of `waiting`: the pages that are still to be read until it is, its own among them.

    `at_work`: those whose runs have begun; they share the machines, and come before all others. Of the rest urgent ones
    come first, then the earlier names. Reads the lists of all of them, and lists the pages of those at work. One
    whose list cannot be read is left out: its run fails at once.
    """
    lists = list(batches.read_many(lake, sorted(waiting), tell=lambda error: None))
    begun = [batch for batch in lists if batch.name in at_work]
    so_far = sum(_pages_left(lake, batch, pages_per_document) for batch in begun)
    found = {batch.name: so_far for batch in begun}
    for batch in sorted(lists, key=lambda batch: (not batch.urgent, batch.name)):
        if batch.name not in found:
            so_far += len(batch.uploads) * pages_per_document
            found[batch.name] = so_far
    return found


def _pages_left(lake: Storage, batch: Batch, pages_per_document: float) -> float:
    """Of a batch at work. A page that is drawn counts as read: both happen side by side."""
    drawn: dict[str, int] = {}
    done, counted = set(), []
    for info in lake.list(keys.pages_of_batch(batch.name)):
        document_id = info.key.removeprefix(keys.pages_of_batch(batch.name)).partition("/")[0]
        if keys.is_page_image(info.key):
            drawn[document_id] = drawn.get(document_id, 0) + 1
        elif info.key == keys.reading(batch.name, document_id):
            done.add(document_id)
        elif info.key == keys.page_count(batch.name, document_id):
            counted.append(info.key)
    pages = {
        key.split("/")[2]: count
        for key, data in lake.read_many(counted)
        if (count := rendered.page_count(data)) is not None
    }
    ids = (keys.document_id(upload.key) for upload in batch.uploads)
    return sum(max(0.0, pages.get(key, pages_per_document) - drawn.get(key, 0)) for key in ids if key not in done)
