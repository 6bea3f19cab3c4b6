"""One tick of the sensor: what is new in the inbox, by the listing strategy that is set, and the cursor to move to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ocr_pipeline.intake.cutting import cut, intake_lock, mark_deleted
from ocr_pipeline.intake.options import IntakeOptions
from ocr_pipeline.lake import listing, planner
from ocr_pipeline.lake.batch_index import BatchIndex
from ocr_pipeline.lake.queue import QueuePull
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.records import Batch, Upload

TICK_SECONDS = 25.0
"""Half of what Dagster gives a sensor's tick (60 s) is spent on listing; the next tick goes on from the cursor."""

RECENT = timedelta(minutes=15)
"""Batch lists this young are looked at again: a tick may have died between the list and the run request."""

MOST_GIVEN = 100_000
"""Uploads that one tick holds in memory (about 50 MB); the next one goes on behind them."""


NOT_READ = "the batch lists are not all read yet: the next tick goes on"

LISTS_FIRST = "events were given back for want of time to read the batch lists"


@dataclass(frozen=True, slots=True)
class TickResult:
    """What one tick of the sensor found."""

    batches: tuple[Batch, ...]  # cut now
    recent: tuple[str, ...]  # young batch lists, which a tick that died may have left without a run
    cursor: str
    note: str  # for people: what was seen
    unreadable: tuple[str, ...] = ()  # batch lists and folders of the inbox: what is wrong with each, and what to do


def run_tick(
    storage: Storage,
    options: IntakeOptions,
    cursor: str | None,
    *,
    hold_partial: bool = False,
    queue: QueuePull | None = None,
    seconds: float = TICK_SECONDS,
) -> TickResult:
    """One tick: finds what is new, writes the batch lists, and only then gives the cursor to move to."""
    deadline = time.monotonic() + seconds

    def out_of_time() -> bool:
        return time.monotonic() > deadline

    with BatchIndex(storage, options.index) as index:
        if queue is not None:
            return _pull(storage, options, queue, index, cursor or "", out_of_time)
        return _list(storage, options, index, cursor, hold_partial, out_of_time)


def _list(
    storage: Storage,
    options: IntakeOptions,
    index: BatchIndex,
    cursor: str | None,
    hold_partial: bool,
    out_of_time: Callable[[], bool],
) -> TickResult:
    found, uploads = _listed(storage, options, cursor, out_of_time)
    if found.unsettled and options.settle:
        # scan again in this tick instead of the next: a file that was just copied is whole by then
        time.sleep(options.settle.total_seconds() + 0.05)
        found, uploads = _listed(storage, options, cursor, out_of_time)
    with intake_lock(options.data):
        if not index.refresh(_since(uploads), out_of_time):
            return TickResult((), (), cursor or "", NOT_READ)
        plan = cut(storage, uploads, options.limits, index, inbox=options.inbox, hold_partial=hold_partial)
    note = f"{found.seen} objects seen, {sum(len(b.uploads) for b in plan.batches)} new"
    note += f", {plan.left} wait" if plan.left else ""
    note += f", {len(found.unsettled)} still being written" if found.unsettled else ""
    cursors = listing.dump(found.next(plan.left_since))
    return TickResult(plan.batches, _recent(index), cursors, note, (*found.unreadable, *index.unreadable.values()))


def _listed(
    storage: Storage, options: IntakeOptions, cursor: str | None, out_of_time: Callable[[], bool]
) -> tuple[listing.InboxScan, list[Upload]]:
    found: listing.InboxScan

    def enough() -> bool:
        return out_of_time() or found.given >= MOST_GIVEN

    cursors, settle = listing.load(cursor), options.settle
    if options.ordered:
        found = listing.ordered(
            storage, options.inbox, cursors, look_back=options.overlap, settle=settle, out_of_time=enough
        )
    else:
        found = listing.sweep(
            storage, options.inbox, cursors, overlap=options.overlap, settle=settle, out_of_time=enough
        )
    return found, list(found)


def _pull(
    storage: Storage,
    options: IntakeOptions,
    queue: QueuePull,
    index: BatchIndex,
    cursor: str,
    out_of_time: Callable[[], bool],
) -> TickResult:
    limits = options.limits
    if index.get_note(LISTS_FIRST):
        # Events given back again and again end in the dead-letter queue: none is pulled until all lists are read.
        if not index.refresh(out_of_time=out_of_time):
            return TickResult((), (), cursor, NOT_READ)
        index.set_note(LISTS_FIRST, None)
    pulled = queue.pull(storage, options.inbox, out_of_time=out_of_time, most=limits.documents * limits.batches)
    # every upload that was pulled is cut now: what is acknowledged does not come again
    everything = planner.BatchLimits(limits.documents, limits.bytes, 2 * max(1, len(pulled.uploads)))
    with intake_lock(options.data):
        # whether a deleted key was ever taken, any list may say
        complete = index.refresh(None if pulled.deleted else _since(pulled.uploads), out_of_time)
        if not complete:
            pulled.give_back([*pulled.deleted, *(upload.key for upload in pulled.uploads)])
            queue.acknowledge(pulled)
            index.set_note(LISTS_FIRST, "yes")
            return TickResult((), (), cursor, NOT_READ)
        plan = cut(storage, pulled.uploads, everything, index, inbox=options.inbox)
        gone = mark_deleted(storage, pulled.deleted, index)
    queue.acknowledge(pulled)
    note = f"{len(pulled.uploads)} uploads and {len(pulled.deleted)} deletions pulled"
    note += f", {len(pulled.refused_keys)} refused by the store" if pulled.refused_keys else ""
    note += f", {pulled.foreign} events of other buckets or folders" if pulled.foreign else ""
    note += f", {pulled.undecodable} messages that are no events" if pulled.undecodable else ""
    return TickResult((*plan.batches, *gone), _recent(index), cursor, note, tuple(index.unreadable.values()))


def _since(uploads: Iterable[Upload]) -> datetime:
    """From where batch lists are looked at: for those that may hold one of `uploads`, and for the young ones."""
    return min([datetime.now(UTC) - RECENT, *(upload.last_modified for upload in uploads)])


def _recent(index: BatchIndex) -> tuple[str, ...]:
    floor = planner.name_floor(datetime.now(UTC) - RECENT)
    return tuple(name for name in index.listed if name > floor)
