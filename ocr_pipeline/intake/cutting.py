"""From uploads to written batch lists: the one place where batches are cut.

The order is the rule "nothing seen is lost": the batch list is written before the cursor moves or an event is
acknowledged.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock

from ocr_pipeline.lake import batches, listing, planner
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.records import Batch, Upload

Announce = Callable[[Collection[str]], None]


@contextmanager
def alone(data: Path) -> Iterator[None]:
    """Holds the intake of this machine: between reading which uploads are taken and writing what is cut anew.

    Two at once would both be right (rows are keyed, transcripts shared) and cut some uploads twice.
    """
    data.mkdir(parents=True, exist_ok=True)
    with FileLock(data / "intake.lock", timeout=120):
        yield


def cut(
    storage: Storage,
    uploads: Collection[Upload],
    limits: planner.Limits,
    *,
    inbox: str,
    hold_partial: bool = False,
    announce: Announce = lambda names: None,
) -> planner.Plan:
    """Writes the batch lists of those `uploads` that are in none yet; returns the plan that was carried out.

    `announce` is told the names before the lists are written: who sees a list can know that somebody has it.
    """
    oldest = min((upload.last_modified for upload in uploads), default=None)
    taken = batches.taken(storage, oldest) if oldest is not None else set()
    plan = planner.plan(uploads, taken, limits, urgent_prefix=f"{inbox}{listing.URGENT}", hold_partial=hold_partial)
    announce([batch.name for batch in plan.batches])
    for batch in plan.batches:
        batches.write(storage, batch)
    return plan


def batches_of(storage: Storage, uploads: Iterable[Upload]) -> dict[Upload, Batch]:
    """For each upload the last batch that holds it, by name: the one whose rows count."""
    wanted = set(uploads)
    if not wanted:
        return {}
    found: dict[Upload, Batch] = {}
    for batch in batches.load(storage, min(upload.last_modified for upload in wanted)):
        for upload in batch.uploads:
            if upload in wanted and (upload not in found or found[upload].name < batch.name):
                found[upload] = batch
    return found


def mark_deleted(storage: Storage, keys: Collection[str], at: datetime, announce: Announce) -> tuple[Batch, ...]:
    """Marks `keys` deleted as of `at`, a time before anyone looked: an upload that came since must not be hidden."""
    if not keys:
        return ()
    batch = planner.deletion(keys, at)
    announce([batch.name])
    batches.write(storage, batch)
    return (batch,)
