"""Compares the whole inbox with all batch lists: cuts what the sensor missed, marks files that are gone, and takes up
those that have come back.

This is the safety net under the sensor. Inbox and lists are walked in parallel in the order of their keys, so memory
does not grow with either. When time runs out, the next sweep goes on behind the last key.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ocr_pipeline.intake.cutting import Announce, cut, intake_lock, mark_deleted
from ocr_pipeline.intake.options import IntakeOptions
from ocr_pipeline.lake.batch_index import BatchIndex, Known
from ocr_pipeline.lake.storage import ObjectInfo, Storage, Tell
from ocr_pipeline.records import Batch, Upload

SWEEP_SECONDS = 25.0
"""Dagster gives a schedule 60 s; the rest is for cutting and for asking what became of the batches."""

MOST_GONE = 2000
"""Keys that are asked for once more, each, in one sweep: 6 s at 50 ms a request."""

POSITION = "sweep goes on behind"


@dataclass(frozen=True, slots=True)
class Swept:
    """What a comparison of the inbox, or a part of it, with all batch lists found."""

    batches: tuple[Batch, ...]  # cut now
    lists: dict[str, datetime]  # every batch list, by name, and when it was written
    finished: bool  # the end of the inbox was reached; else the next sweep goes on
    note: str  # for people
    unreadable: tuple[str, ...] = ()  # batch lists and folders of the inbox: what is wrong with each, and what to do


def sweep_everything(
    storage: Storage,
    options: IntakeOptions,
    announce: Announce = lambda names: None,
    *,
    seconds: float = SWEEP_SECONDS,
) -> Swept:
    """One sweep, from where the last one stopped."""
    deadline = time.monotonic() + seconds

    def out_of_time() -> bool:
        return time.monotonic() > deadline

    with BatchIndex(storage, options.index) as index:
        complete = index.refresh(out_of_time=out_of_time)
        lists = {name: info.last_modified for name, info in index.listed.items()}
        if not complete:
            return Swept((), lists, False, f"{len(lists)} batch lists: not all are read yet, the next sweep goes on")
        behind = index.get_note(POSITION)
        compared = _compare(storage, options, index, behind, out_of_time)
        cut_now, left = list[Batch](), 0
        if compared.fresh or compared.gone:
            with intake_lock(options.data):
                index.refresh()  # what others have cut meanwhile
                plan = cut(storage, compared.fresh, options.limits, index, inbox=options.inbox, announce=announce)
                cut_now += [*plan.batches, *mark_deleted(storage, compared.gone, index, announce)]
                left = plan.left
        finished = compared.stopped_at is None and not left
        # what is left over the cap is found by going there once more
        index.set_note(POSITION, behind if left else compared.stopped_at)
    written = datetime.now(UTC)
    lists |= {batch.name: written for batch in cut_now}
    end = "to the end" if finished else "the next sweep goes on"
    note = f"{compared.seen} uploads compared with {len(lists)} batch lists, {end}"
    unreadable = (*compared.closed, *index.unreadable.values())
    return Swept(tuple(cut_now), dict(sorted(lists.items())), finished, note, unreadable)


@dataclass(slots=True)
class _Compared:
    """A part of the inbox, compared with what the batch lists say."""

    fresh: list[Upload] = field(default_factory=list)  # in no list, or marked deleted and there again
    gone: list[str] = field(default_factory=list)  # keys that are in a list and not in the inbox
    closed: list[str] = field(default_factory=list)  # folders that may not be read: what is wrong with each
    seen: int = 0  # uploads in the inbox
    stopped_at: str | None = None  # the last key that was compared; None: the end was reached


def _compare(
    storage: Storage,
    options: IntakeOptions,
    index: BatchIndex,
    behind: str | None,
    out_of_time: Callable[[], bool],
) -> _Compared:
    """From the key `behind` on, to the end or until there is enough to do, or no time left."""
    most = options.limits.documents * options.limits.batches
    settled_before = datetime.now(UTC) - options.settle
    compared = _Compared()
    for key, known, info in _merged(storage, index, options.inbox, behind, compared.closed.append):
        if info is None:
            if known is not None and known.there:
                compared.gone.append(key)
        else:
            compared.seen += 1
            upload = info.as_upload()
            is_settled = info.last_modified <= settled_before or not options.settle
            if is_settled and (known is None or not known.taken(upload)):
                compared.fresh.append(upload)
        if len(compared.fresh) >= most or len(compared.gone) >= MOST_GONE or out_of_time():
            compared.stopped_at = key
            break
    return compared


def _merged(
    storage: Storage, index: BatchIndex, inbox: str, behind: str | None, tell: Tell
) -> Iterator[tuple[str, Known | None, ObjectInfo | None]]:
    """Every key that is in the inbox or in a batch list, in the order of keys."""
    listed, indexed = storage.list(inbox, start_after=behind, tell=tell), index.in_order(inbox, behind)
    info, known = next(listed, None), next(indexed, None)
    while info is not None or known is not None:
        if info is not None and known is not None and info.key == known.key:
            yield info.key, known, info
            info, known = next(listed, None), next(indexed, None)
        elif known is None or (info is not None and info.key.encode() < known.key.encode()):
            assert info is not None  # noqa: S101  for the type checker
            yield info.key, None, info
            info = next(listed, None)
        else:
            yield known.key, known, None
            known = next(indexed, None)
