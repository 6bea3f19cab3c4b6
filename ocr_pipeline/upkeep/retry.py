"""Asking again for pages that failed: batches of just those documents, named by the time of the request.

Such a batch sorts after what it repeats, so its rows win. Pages that have their text keep it: a transcript is asked
for again only when it failed for one of the reasons, before the request.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ocr_pipeline.lake import batches, keys, planner
from ocr_pipeline.lake.current import is_current
from ocr_pipeline.lake.storage import ObjectMissing, Storage
from ocr_pipeline.records import Batch, Reason, Upload
from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.failed import failed_by_document


@dataclass(frozen=True, slots=True)
class RetryPlan:
    """What a request comes to."""

    batches: tuple[Batch, ...]
    documents: int
    pages: int  # failed for one of the reasons; 0 for documents that were rejected whole
    gone: int  # documents left out, since their upload was replaced, deleted, or cannot be looked at


def ask_again(
    lake: Storage,
    warehouse: Warehouse,
    reasons: Collection[Reason],
    *,
    since: datetime | None = None,
    documents: Sequence[str] | None = None,
    limits: planner.BatchLimits,
    now: datetime | None = None,
    announce: Callable[[Collection[str]], None] = lambda names: None,
) -> RetryPlan:
    """Writes the batch lists for every document with a page that failed for one of `reasons`, or of those `documents`.

    `since`: only what failed then or later. The caller runs the batches, or leaves them to the sensor.
    """
    now = now or datetime.now(UTC)
    with warehouse.read() as connection:
        rows = failed_by_document(connection, [str(reason) for reason in reasons], documents=documents, since=since)
    uploads: dict[Upload, str] = {}
    gone, pages = 0, 0
    lists: dict[str, Batch | None] = {}
    for document_id, batch_name, count in rows:
        if batch_name not in lists:
            lists[batch_name] = _list(lake, batch_name)
        upload = _upload_of(lists[batch_name], document_id)
        if upload is None or not is_current(lake, upload):
            gone += 1
            continue
        uploads[upload] = batch_name
        pages += count
    made = []
    for group in planner.groups(sorted(uploads), limits):
        batch = planner.retry({upload: uploads[upload] for upload in group}, reasons, now)
        made.append(batch)
    announce([batch.name for batch in made])
    for batch in made:
        batches.write(lake, batch)
    return RetryPlan(tuple(made), len(uploads), pages, gone)


def _list(lake: Storage, name: str) -> Batch | None:
    try:
        return batches.read(lake, name)
    except ObjectMissing:
        return None


def _upload_of(batch: Batch | None, document_id: str) -> Upload | None:
    return next((u for u in (batch.uploads if batch else ()) if keys.document_id(u.key) == document_id), None)
