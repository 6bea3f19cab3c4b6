"""From uploads to written batch lists: the one place where batches are cut.

The order is the rule "nothing seen is lost": the batch list is written before the cursor moves or an event is
acknowledged.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock

from ocr_pipeline.intake.inbox import overtaken
from ocr_pipeline.intake.options import IntakeOptions
from ocr_pipeline.lake import batches, listing, planner
from ocr_pipeline.lake.batch_index import BatchIndex, Known
from ocr_pipeline.lake.current import stat_many
from ocr_pipeline.lake.storage import Storage, StorageError
from ocr_pipeline.records import Batch, Upload

Announce = Callable[[Collection[str]], None]


@contextmanager
def intake_lock(data: Path) -> Iterator[None]:
    """The lock of this machine's intake, held from reading which uploads are in a batch until new lists are written.

    Two processes cutting at once would do no harm to the tables (rows are keyed, transcripts shared), but would put
    some uploads into two batches. Other machines are not held up: with two sensors on one inbox, some uploads are in
    two batches, are drawn twice, and are read twice if both batches run at the same time.
    """
    data.mkdir(parents=True, exist_ok=True)
    with FileLock(data / "intake.lock", timeout=120):
        yield


def cut(
    storage: Storage,
    uploads: Collection[Upload],
    limits: planner.BatchLimits,
    index: BatchIndex,
    *,
    inbox: str,
    hold_partial: bool = False,
    announce: Announce = lambda names: None,
) -> planner.Plan:
    """Writes the batch lists of those `uploads` that are in none yet; returns the plan that was carried out.

    Uploads that a list has marked deleted and that are there again unchanged get a list of their own.
    `announce` is called with the names before the lists are written: whoever sees a list can know that somebody has it.
    `index` knows every list since the oldest of `uploads`.
    """
    if not uploads:
        return planner.Plan((), 0, None)
    known = index.known(upload.key for upload in uploads)
    taken = {upload for upload in uploads if upload.key in known and upload in known[upload.key].uploads}
    plan = planner.plan(uploads, taken, limits, urgent_prefix=f"{inbox}{listing.URGENT}", hold_partial=hold_partial)
    plan = _with_returned([known[upload.key] for upload in taken], taken, limits, plan)
    announce([batch.name for batch in plan.batches])
    batches.write_many(storage, plan.batches)
    for batch in plan.batches:  # one that could not be read is mended by its own content
        index.unreadable.pop(batch.name, None)
    return plan


def cut_all(
    storage: Storage,
    uploads: Collection[Upload],
    options: IntakeOptions,
    announce: Announce = lambda names: None,
    tell: Callable[[str], None] = lambda error: None,
) -> dict[Upload, Batch]:
    """Puts all `uploads` into batch lists, with no cap on batches; returns for each upload the batch whose rows count.

    The sensor and other commands wait for the lock, so everything that takes longer with more uploads is done before
    it. An upload that another ingest has replaced meanwhile is returned as it is now. An upload whose list cannot be
    read is cut into a new batch; `tell` gets what is wrong with such lists. Raises SourceError for an upload that is
    gone, StorageError if lists are taken away meanwhile.
    """
    if not uploads:
        return {}
    since = min(upload.last_modified for upload in uploads)
    with BatchIndex(storage, options.index) as index:
        index.refresh(since)
        limits = replace(options.limits, batches=max(1, len(uploads)))
        for _ in range(2):
            with intake_lock(options.data):
                index.refresh(since)  # what others have cut meanwhile
                replaced = overtaken(storage, uploads, index)
                uploads = [replaced.get(upload, upload) for upload in uploads]
                cut(storage, uploads, limits, index, inbox=options.inbox, announce=announce)
            index.refresh(since)
            held, spoiled = _held(storage, uploads, index)
            if not spoiled:
                break
            index.forget(spoiled)  # a disk that lost their bytes has not changed their etags
        for error in index.unreadable.values():
            tell(error)
        return _complete(storage, uploads, held)


def _with_returned(
    known: Iterable[Known], taken: set[Upload], limits: planner.BatchLimits, plan: planner.Plan
) -> planner.Plan:
    """The plan, and batches of those of `taken` that are marked deleted, as far as the cap on batches allows."""
    lists = {upload: entry.lists for entry in known for upload in entry.uploads & taken if not entry.taken(upload)}
    if not lists:
        return plan
    groups = planner.groups(sorted(lists), limits)
    room = max(0, limits.batches - len(plan.batches))
    now = datetime.now(UTC)
    back = [planner.returned(group, now, {name for u in group for name in lists[u]}) for group in groups[:room]]
    left = [upload for group in groups[room:] for upload in group]
    since = [upload.last_modified for upload in left] + ([plan.left_since] if plan.left_since else [])
    return replace(
        plan, batches=(*plan.batches, *back), left=plan.left + len(left), left_since=min(since, default=None)
    )


def _held(
    storage: Storage, uploads: Collection[Upload], index: BatchIndex
) -> tuple[dict[Upload, Batch], Collection[str]]:
    """For each upload the last batch that holds it, by name, whose rows are the ones that count; and the names of
    lists that cannot be read any more. `index` knows every list since the oldest of the uploads."""
    names = {name for entry in index.known(upload.key for upload in uploads).values() for name in entry.lists}
    read = dict(batches.read_each(storage, sorted(names)))
    held = _last_of(set(uploads), (batch for batch in read.values() if isinstance(batch, Batch)))
    return held, [name for name, batch in read.items() if not isinstance(batch, Batch)]


def _complete(storage: Storage, uploads: Collection[Upload], held: dict[Upload, Batch]) -> dict[Upload, Batch]:
    """`held`, which has every one of the uploads. Raises StorageError when one of them is in no list."""
    wanted = set(uploads)
    if len(held) < len(wanted):
        # a process of another release may just have made the index anew: the lists themselves are the truth
        since = min(upload.last_modified for upload in wanted)
        held = _last_of(wanted, batches.load(storage, since, tell=lambda error: None))
    if missing := sorted(wanted - held.keys()):
        raise StorageError(
            f"{len(missing)} of {len(wanted)} uploads, first {storage.uri_of(missing[0].key)}, are in no batch list "
            "right after they were cut: something else takes lists out of the lake's batches/; "
            "run the same command again"
        )
    return held


def _last_of(wanted: Collection[Upload], lists: Iterable[Batch]) -> dict[Upload, Batch]:
    """For each of `wanted` that one of the lists holds, the last that does."""
    return {upload: batch for batch in lists for upload in batch.uploads if upload in wanted}


def mark_deleted(
    storage: Storage, keys: Collection[str], index: BatchIndex, announce: Announce = lambda names: None
) -> tuple[Batch, ...]:
    """Marks those of `keys` as deleted that the batch lists know and that are not in the store now.

    `index` knows every list. So a deletion that is reported five times makes one batch, and a key that was never in a
    batch makes none. A file that is uploaded again meanwhile is not hidden, since the mark names the uploads it hides.
    """
    known = {key: entry for key, entry in index.known(keys).items() if entry.there}
    gone = stat_many(storage, sorted(known)).missing
    if not gone:
        return ()
    hidden = [upload for key in gone for upload in known[key].newest]
    batch = planner.deletion(gone, datetime.now(UTC), hidden, {name for key in gone for name in known[key].lists})
    announce([batch.name])
    batches.write(storage, batch)
    return (batch,)
