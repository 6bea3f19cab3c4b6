"""One tick of the sensor: what is new in the inbox, by the listing strategy that is set, and the cursor to move to."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ocr_pipeline import wiring
from ocr_pipeline.intake.cutting import Announce, alone, cut, mark_deleted
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
    gone = mark_deleted(storage, _ever_listed(storage, pulled.deleted), began, announce)
    queue.acknowledge(pulled)
    note = f"{len(pulled.uploads)} uploads and {len(pulled.deleted)} deletions pulled"
    return (*plan.batches, *gone), note


def _ever_listed(storage: Storage, keys: Collection[str]) -> list[str]:
    """Those of the deleted `keys` that a batch list names: a deletion of any other hides nothing, and a purge's own
    comes back as an event too: written down, it would keep the name that was to be forgotten."""
    if not keys:
        return []
    wanted = set(keys)
    named = {upload.key for batch in batches.load(storage) for upload in batch.uploads if upload.key in wanted}
    return sorted(named)
