"""From what a listing shows to written batch lists: the one place where batches are cut.

The order is the rule "nothing seen is lost": the batch list is written before the cursor moves or an event is
acknowledged. No Dagster.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from filelock import FileLock

from ocr_pipeline import wiring
from ocr_pipeline.lake import batches, listing, planner
from ocr_pipeline.lake.queue import QueuePull
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.records import Batch, Upload
from ocr_pipeline.settings import Listing, Settings

TICK_SECONDS = 25.0
"""Half of what Dagster gives a sensor's tick (60 s) is spent on listing; the next tick goes on from the cursor."""

RECENT = timedelta(minutes=15)
"""Batch lists as young are looked at again: a tick may have died between the list and the run request."""

OVERLAP_IN_A_LOCAL_FOLDER = timedelta(seconds=30)
"""A local file is whole when it is dated, so only clocks and coarse time stamps are between it and the watermark."""

MOST_GIVEN = 100_000
"""Uploads that one tick holds in memory (about 50 MB); the next one goes on behind them."""

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


@dataclass(frozen=True, slots=True)
class Look:
    """What one tick of the sensor found."""

    batches: tuple[Batch, ...]  # cut now
    recent: tuple[str, ...]  # young batch lists, which a tick that died may have left without a run
    cursor: str
    note: str  # for people: what was seen


def look(
    storage: Storage,
    settings: Settings,
    cursor: str | None,
    *,
    hold_partial: bool = False,
    queue: QueuePull | None = None,
    announce: Announce = lambda names: None,
) -> Look:
    """One tick: finds what is new, writes the batch lists, and only then gives the cursor to move to."""
    deadline = time.monotonic() + TICK_SECONDS
    limits = wiring.batch_limits(settings)
    with alone(settings.data):
        if queue is not None:
            cut_now, note = _pull(storage, settings, queue, limits, deadline, announce)
            moved = cursor or ""
        else:
            cut_now, note, moved = _list(storage, settings, cursor, limits, deadline, hold_partial, announce)
        recent = tuple(batches.names(storage, datetime.now(UTC) - RECENT))
    return Look(cut_now, recent, moved, note)


def _list(
    storage: Storage,
    settings: Settings,
    cursor: str | None,
    limits: planner.Limits,
    deadline: float,
    hold_partial: bool,
    announce: Announce,
) -> tuple[tuple[Batch, ...], str, str]:
    local = not settings.lake.startswith("s3://")
    settle = timedelta(seconds=settings.settle_seconds if local else 0)
    overlap = OVERLAP_IN_A_LOCAL_FOLDER if local else timedelta(seconds=settings.listing_overlap)
    cursors = listing.load(cursor)

    def listed() -> tuple[listing.Look, list[Upload]]:
        found: listing.Look

        def out_of_time() -> bool:
            return time.monotonic() > deadline or found.given >= MOST_GIVEN

        if settings.listing is Listing.ORDERED:
            found = listing.ordered(
                storage, settings.inbox, cursors, look_back=overlap, settle=settle, out_of_time=out_of_time
            )
        else:
            found = listing.sweep(
                storage, settings.inbox, cursors, overlap=overlap, settle=settle, out_of_time=out_of_time
            )
        return found, list(found)

    found, uploads = listed()
    if found.unsettled and settle:
        # look again in this tick instead of the next: a file that was just copied is whole by then
        time.sleep(settle.total_seconds() + 0.05)
        found, uploads = listed()
    plan = cut(storage, uploads, limits, inbox=settings.inbox, hold_partial=hold_partial, announce=announce)
    note = f"{found.seen} objects seen, {sum(len(b.uploads) for b in plan.batches)} new"
    note += f", {plan.left} wait" if plan.left else ""
    note += f", {len(found.unsettled)} still being written" if found.unsettled else ""
    return plan.batches, note, listing.dump(found.next(plan.left_since))


def _pull(
    storage: Storage,
    settings: Settings,
    queue: QueuePull,
    limits: planner.Limits,
    deadline: float,
    announce: Announce,
) -> tuple[tuple[Batch, ...], str]:
    began = datetime.now(UTC)
    pulled = queue.pull(
        storage,
        settings.inbox,
        out_of_time=lambda: time.monotonic() > deadline,
        most=limits.documents * limits.batches,
    )
    # every upload that was pulled is cut now: what is acknowledged does not come again
    everything = planner.Limits(limits.documents, limits.bytes, max(1, len(pulled.uploads)))
    plan = cut(storage, pulled.uploads, everything, inbox=settings.inbox, announce=announce)
    gone = _delete(storage, pulled.deleted, began, announce)
    queue.acknowledge(pulled)
    note = f"{len(pulled.uploads)} uploads and {len(pulled.deleted)} deletions pulled"
    return (*plan.batches, *gone), note


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
        gone = _delete(storage, missing, began, announce)
    fresh = (*plan.batches, *gone)
    return Swept(fresh, tuple(sorted({*names, *(batch.name for batch in fresh)})))


@dataclass(frozen=True, slots=True)
class Swept:
    """What a comparison of the whole inbox with all batch lists found."""

    batches: tuple[Batch, ...]  # cut now
    names: tuple[str, ...]  # of all batch lists


def _delete(storage: Storage, keys: Collection[str], at: datetime, announce: Announce) -> tuple[Batch, ...]:
    """Marks `keys` deleted as of `at`, a time before anyone looked: an upload that came since must not be hidden."""
    if not keys:
        return ()
    batch = planner.deletion(keys, at)
    announce([batch.name])
    batches.write(storage, batch)
    return (batch,)
