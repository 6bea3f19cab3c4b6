"""Which uploads make which batches: pure functions of a listing, a cursor and limits. No reading or writing here.

A batch's name is a function of its content, so that the same uploads always make the same batch, the same Dagster
partition and the same run key, whoever cuts them and however often.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ocr_pipeline.records import Batch, Reason, Upload

TIME_FORMAT = "%Y%m%dT%H%M%SZ"
TIME_EXAMPLE = "20261122T120000Z"
NAME = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{12}")
"""What `name` gives: every batch of uploads, deletions, returns and retries is called so."""


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How large a batch may grow, and how many are cut at once."""

    documents: int = 200
    bytes: int = 2 * 1024**3
    batches: int = 20


@dataclass(frozen=True, slots=True)
class Plan:
    """The batches to write, and what is left for the next listing."""

    batches: tuple[Batch, ...]
    left: int  # uploads seen that are in no batch yet: over the cap, or held back until a batch is full
    left_since: datetime | None  # last_modified of the oldest of them: a watermark must stay behind it


def _order(upload: Upload) -> tuple[datetime, str, str]:
    return (upload.last_modified, upload.key, upload.etag)


def name(uploads: Collection[Upload], at: datetime | None = None, extra: str = "") -> str:
    """`<UTC time of the newest upload>-<hash of keys and etags>`; sorts by time as text."""
    newest = at or max(upload.last_modified for upload in uploads)
    identity = [[u.key, u.etag, u.size, u.last_modified.isoformat()] for u in sorted(uploads, key=_order)]
    digest = hashlib.sha256(json.dumps([identity, extra]).encode()).hexdigest()[:12]
    return f"{newest.astimezone(UTC).strftime(TIME_FORMAT)}-{digest}"


def name_floor(since: datetime) -> str:
    """A text that sorts before the name of every batch with an upload at `since` or later."""
    return since.astimezone(UTC).strftime(TIME_FORMAT)


def groups(uploads: Iterable[Upload], limits: BatchLimits) -> list[list[Upload]]:
    """`uploads` in their order, cut so that each group keeps the limits on documents and bytes."""
    found: list[list[Upload]] = []
    size, keys = 0, set[str]()
    for upload in uploads:
        # two versions of one key would be two rows with one key
        if not found or len(found[-1]) >= limits.documents or size + upload.size > limits.bytes or upload.key in keys:
            found.append([])
            size, keys = 0, set()
        found[-1].append(upload)
        size += upload.size
        keys.add(upload.key)
    return found


def _cut(uploads: list[Upload], limits: BatchLimits, *, urgent: bool) -> list[Batch]:
    return [Batch(name(group), tuple(group), urgent=urgent) for group in groups(uploads, limits)]


def plan(
    listing: Iterable[Upload],
    taken: Collection[Upload],
    limits: BatchLimits,
    *,
    urgent_prefix: str = "inbox/urgent/",
    hold_partial: bool = False,
) -> Plan:
    """Cuts what is new into batches: urgent uploads first and by themselves, the rest oldest first.

    `taken` holds every upload of the listing that is in a written batch list. With `hold_partial` a batch that is not
    full waits (more uploads will fill it while the workers are busy anyway); urgent ones never wait.
    Memory is bounded by the limits, not by the listing: of a million new keys only the oldest are kept.
    """
    keep = limits.documents * limits.batches
    seen = 0
    urgent: list[Upload] = []

    def fresh() -> Iterable[Upload]:
        nonlocal seen
        for upload in listing:
            if upload not in taken:
                seen += 1
                yield upload

    # two streams from one: urgent uploads must not fall off the end of a long backlog
    def split() -> Iterable[Upload]:
        for upload in fresh():
            if upload.key.startswith(urgent_prefix):
                urgent.append(upload)
                if len(urgent) > 2 * keep:
                    urgent[:] = heapq.nsmallest(keep, urgent, key=_order)
            else:
                yield upload

    normal = heapq.nsmallest(keep, split(), key=_order)
    urgent = heapq.nsmallest(keep, urgent, key=_order)

    batches = _cut(urgent, limits, urgent=True)[: limits.batches]
    rest = _cut(normal, limits, urgent=False)
    if hold_partial and rest and _has_room(rest[-1], limits):
        rest = rest[:-1]
    batches += rest[: limits.batches - len(batches)]

    done = {upload for batch in batches for upload in batch.uploads}
    waiting = [upload.last_modified for upload in (*urgent, *normal) if upload not in done]
    left = seen - len(done)
    if left > len(waiting):  # some were not even kept: they are younger than the youngest kept of their kind
        waiting += [max(u.last_modified for u in kind) for kind in (urgent, normal) if kind]
    return Plan(tuple(batches), left, min(waiting, default=None))


def _has_room(batch: Batch, limits: BatchLimits) -> bool:
    return len(batch.uploads) < limits.documents and sum(u.size for u in batch.uploads) < limits.bytes


def retry(repeats: Mapping[Upload, str], reasons: Iterable[Reason], at: datetime) -> Batch:
    """A batch that asks again for those pages of some uploads that failed for one of `reasons`. Without reasons it is a
    follow-up, which only combines what other batches have read.

    `repeats`: for each upload, the batch that has its pages now. The retry is named by the time of the request, and
    always later than those batches, so that its rows win.
    """
    wanted = tuple(sorted(set(reasons)))
    uploads = tuple(sorted(repeats, key=_order))
    return Batch(
        name(uploads, later(at, repeats.values()), "retry:" + ",".join(wanted)),
        uploads,
        retry_reasons=wanted,
        repeats=tuple(repeats[upload] for upload in uploads),
        created_at=at.astimezone(UTC),
    )


def deletion(keys: Iterable[str], at: datetime, gone: Iterable[Upload] = (), after: Iterable[str] = ()) -> Batch:
    """A batch without uploads that marks the documents of `keys` deleted, as seen at `at`.

    `gone`: the newest uploads known of these keys, which are what the mark hides. `after`: the batches that name the
    keys; the deletion is named and dated later than each of them, so that deletions and returns have a clear order.
    """
    listed = tuple(sorted(set(keys)))
    at = later(at, after)
    identity = "deleted:" + json.dumps(listed)
    return Batch(name((), at, identity), (), deleted=listed, gone=tuple(sorted(set(gone))), created_at=at)


def returned(uploads: Collection[Upload], at: datetime, after: Iterable[str]) -> Batch:
    """A batch of uploads that were marked deleted and are there again unchanged: read once more, and shown.

    `after`: the batches that name their keys.
    """
    at = later(at, after)
    found = tuple(sorted(uploads, key=_order))
    return Batch(name(found, at, "returned"), found, returned=True, created_at=at)


def later(at: datetime, after: Iterable[str]) -> datetime:
    """`at` in UTC; but at least a second after the latest of the batches `after`, even if our clock is behind."""
    at = at.astimezone(UTC)
    for earlier in after:
        named = datetime.strptime(earlier[: len(TIME_EXAMPLE)], TIME_FORMAT).replace(tzinfo=UTC)
        at = max(at, named + timedelta(seconds=1))
    return at
