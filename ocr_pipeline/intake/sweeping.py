"""The whole inbox against all batch lists: cuts what was missed, and marks what is gone as deleted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ocr_pipeline import wiring
from ocr_pipeline.intake.cutting import Announce, alone, mark_deleted
from ocr_pipeline.lake import batches, listing, planner
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.records import Batch, Upload
from ocr_pipeline.settings import Settings


@dataclass(frozen=True, slots=True)
class Swept:
    """What a comparison of the whole inbox with all batch lists found."""

    batches: tuple[Batch, ...]  # cut now
    names: tuple[str, ...]  # of all batch lists


def sweep_everything(storage: Storage, settings: Settings, announce: Announce = lambda names: None) -> Swept:
    """Compares the whole inbox with all batch lists: cuts what was missed, and marks what is gone as deleted."""
    local = not settings.lake.startswith("s3://")
    settle = timedelta(seconds=settings.settle_seconds if local else 0)
    limits = wiring.batch_limits(settings)
    began = datetime.now(UTC)
    with alone(settings.data):
        taken: set[Upload] = set()
        known: dict[str, bool] = {}  # upload key -> whether it is there, by the batches in the order of their names
        names = []
        for batch in sorted(batches.load(storage), key=lambda batch: batch.name):
            names.append(batch.name)
            taken.update(batch.uploads)
            known.update((upload.key, True) for upload in batch.uploads)
            known.update((key, False) for key in batch.deleted)
        found = listing.sweep(storage, settings.inbox, {}, overlap=timedelta(0), settle=settle)
        there = []
        for upload in found:
            known.pop(upload.key, None)
            if upload not in taken:
                there.append(upload)
        for key in found.unsettled:
            known.pop(key, None)
        plan = planner.plan(there, taken, limits, urgent_prefix=f"{settings.inbox}{listing.URGENT}")
        announce([batch.name for batch in plan.batches])
        for batch in plan.batches:
            batches.write(storage, batch)
        # asked once more, each: a listing that left something out must not hide a document
        missing = [key for key, present in known.items() if present and storage.stat(key) is None]
        gone = mark_deleted(storage, missing, began, announce)
    fresh = (*plan.batches, *gone)
    return Swept(fresh, tuple(sorted({*names, *(batch.name for batch in fresh)})))
