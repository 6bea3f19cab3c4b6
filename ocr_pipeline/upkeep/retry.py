"""Retries: batches of only those documents that have failed pages, named by the time of the request.

Such a batch sorts after the one that it repeats, so its rows win. Pages that have their text keep it; a page is read
again only if it failed for one of the reasons, before the request, or through no fault of its own. That, and how the
results of overlapping retries are combined, is decided in `flow/repeating.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime

from ocr_pipeline.lake import batches, keys, planner
from ocr_pipeline.lake.current import current
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.records import Batch, Reason, Upload
from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.failed import failed_by_document


@dataclass(frozen=True, slots=True)
class RetryPlan:
    """What a request comes to."""

    batches: tuple[Batch, ...]
    documents: int
    pages: int  # failed for one of the reasons; 0 for documents that were rejected whole
    gone: int  # documents left out: their upload was replaced, deleted, or it or its batch list cannot be looked at


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
    intake: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> RetryPlan:
    """Writes the batch lists for every document with a page that failed for one of `reasons`, or of those `documents`.

    `since`: only what failed then or later. The caller runs the batches, or leaves them to the sensor.
    `intake`: the lock that a purge holds too. Whoever may work beside one gives it; else a list could bring back the
    name of a document that was purged meanwhile.
    """
    now = now or datetime.now(UTC)
    with warehouse.read() as connection:
        rows = failed_by_document(connection, [str(reason) for reason in reasons], documents=documents, since=since)
    there = current(lake, _failed(lake, rows))  # a question for each document: before the lock
    with intake():
        # a purge has taken the document out of its list
        failed = {upload: place for upload, place in _failed(lake, rows).items() if upload in there}
        made = []
        for group in planner.groups(sorted(failed), limits):
            batch = planner.retry({upload: failed[upload][0] for upload in group}, reasons, now)
            made.append(batch)
        announce([batch.name for batch in made])
        batches.write_many(lake, made)
    pages = sum(count for _, count in failed.values())
    return RetryPlan(tuple(made), len(failed), pages, len(rows) - len(failed))


def _failed(lake: Storage, rows: Sequence[tuple[str, str, int]]) -> dict[Upload, tuple[str, int]]:
    """Of (document, batch, failed pages) those that the batch's list holds now: by upload the batch and the pages."""
    named = batches.read_many(lake, sorted({batch_name for _, batch_name, _ in rows}), tell=lambda error: None)
    held = {(keys.document_id(upload.key), batch.name): upload for batch in named for upload in batch.uploads}
    return {held[document_id, name]: (name, n) for document_id, name, n in rows if (document_id, name) in held}


def follow_ups(lake: Storage, asked: Sequence[Batch], since: datetime) -> list[Batch]:
    """The follow-ups listed since then that combine the results of these batches with those of other retries (see
    `flow/repeating.py`). Where a sensor is running, it runs them too; the caller may be on a machine without one."""
    uploads = {upload for batch in asked for upload in batch.uploads}
    found = (
        batch
        for batch in batches.load(lake, since, tell=lambda error: None)
        if batch.repeats and not batch.retry_reasons
    )
    return [batch for batch in found if batch not in asked and not uploads.isdisjoint(batch.uploads)]
