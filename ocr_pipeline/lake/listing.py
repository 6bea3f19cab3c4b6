"""How new uploads are found by listing the inbox: two strategies, their cursors, and when a scan stops.

Here: which objects a scan gives, and from where the next one starts. Not here: which of them are in a batch list
already (the caller knows), events (`queue.py`), and how a store lists.

A scan gives every upload that may be new, and some that are known already. The caller first writes batch lists for the
new ones, and only then stores the cursors of `InboxScan.next()`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta

from ocr_pipeline.lake.storage import ObjectInfo, Storage, Tell
from ocr_pipeline.records import Upload

URGENT = "urgent/"
"""Below the inbox: uploads that go first."""

CLOCKS = timedelta(minutes=15)
"""How far the store's clock may be from ours: S3 refuses requests beyond it (RequestTimeTooSkewed)."""

CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_DATED = re.compile(r"\d{4}/\d{2}/\d{2}/")


@dataclass(frozen=True, slots=True)
class Cursor:
    """From where one prefix is to be scanned again.

    A pass is one walk over all keys of the prefix; if time runs out it is spread over several scans. What arrives at
    keys that the pass has left behind is found by the next pass, whose watermark is the time at which this one began.
    """

    since: datetime | None = None  # all that arrived before is in a batch list; None: nothing is known
    began: datetime | None = None  # when the pass under way began; None: there is none
    held: datetime | None = None  # the oldest upload that this pass gave and that is in no batch list yet
    after: str | None = None  # the pass under way goes on behind this key


Cursors = Mapping[str, Cursor]
"""A cursor a prefix: the inbox alone for `sweep`, the inbox and its urgent part for `ordered`."""


def dump(cursors: Cursors) -> str:
    """The cursors as JSON, for Dagster to keep."""
    return json.dumps({prefix: asdict(cursor) for prefix, cursor in cursors.items()}, default=datetime.isoformat)


def load(text: str | None) -> dict[str, Cursor]:
    """The cursors that `dump` wrote. A text that is no such thing is no cursor: the whole inbox is scanned anew."""

    def time(value: str | None) -> datetime | None:
        return None if value is None else datetime.fromisoformat(value).astimezone(UTC)

    try:
        return {
            prefix: Cursor(time(c["since"]), time(c["began"]), time(c["held"]), c["after"])
            for prefix, c in json.loads(text or "{}").items()
        }
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}


class InboxScan:
    """One scan of the inbox: iterate it for the uploads, once, then ask for `next`."""

    def __init__(
        self,
        parts: Mapping[str, tuple[Cursor, Iterator[tuple[ObjectInfo, bool]]]],
        *,
        now: datetime,
        settle: timedelta,
        out_of_time: Callable[[], bool],
        unreadable: list[str],
    ) -> None:
        self.unsettled: list[str] = []
        """Keys of files that something may still write to."""
        self.unreadable = unreadable
        """Folders of a local inbox that could not be looked into: what is wrong with each, and what to do."""
        self.seen = 0
        """Objects listed, known ones and others included."""
        self.given = 0
        """Uploads given. A caller that keeps them all may end the scan at a number of them, by `out_of_time`."""
        self._objects = {prefix: objects for prefix, (_, objects) in parts.items()}
        self._cursors = {prefix: replace(cursor, began=cursor.began or now) for prefix, (cursor, _) in parts.items()}
        self._after = {prefix: cursor.after for prefix, (cursor, _) in parts.items()}
        self._ended: set[str] = set()
        self._now = now
        self._settled_before = now - settle if settle else datetime.max.replace(tzinfo=UTC)
        self._out_of_time = out_of_time

    @property
    def finished(self) -> bool:
        """Whether every prefix was listed to its end; False while the caller has not taken all uploads."""
        return len(self._ended) == len(self._objects)

    def __iter__(self) -> Iterator[Upload]:
        for prefix, objects in self._objects.items():
            for info, wanted in objects:
                self.seen += 1
                self._after[prefix] = info.key
                if wanted and info.last_modified > self._settled_before:
                    # It arrived after this pass began (or a moment before): the next pass sees it.
                    self.unsettled.append(info.key)
                elif wanted:
                    self.given += 1
                    yield info.as_upload()
                if self._out_of_time():
                    return
            self._ended.add(prefix)

    def next(self, left_since: datetime | None = None) -> dict[str, Cursor]:
        """The cursors for the next scan, once what this one gave is in batch lists.

        `left_since`: the `last_modified` of the oldest upload that this scan gave and that is still in none (over a
        cap): the next pass looks back that far.
        """
        cursors = {}
        for prefix, cursor in self._cursors.items():
            held = min((time for time in (cursor.held, left_since) if time is not None), default=None)
            if prefix not in self._ended:
                cursors[prefix] = replace(cursor, held=held, after=self._after[prefix])
                continue
            since = (cursor.began or self._now) - CLOCKS
            if cursor.since is not None:
                since = max(since, cursor.since)
            cursors[prefix] = Cursor(since if held is None else min(since, held))
        return cursors


def sweep(
    storage: Storage,
    inbox: str,
    cursors: Cursors,
    *,
    overlap: timedelta,
    settle: timedelta = timedelta(0),
    now: datetime | None = None,
    out_of_time: Callable[[], bool] = lambda: False,
) -> InboxScan:
    """The whole inbox, and of it what arrived since the watermark less `overlap`. Any keys; memory stays flat.

    `overlap` must be longer than the slowest upload: S3 dates a multipart upload at its beginning. `settle`: an
    object that arrived less than this ago is not given yet (a file may still be written; a bucket's objects are
    whole, give zero there). `out_of_time` is asked after each object; when it says so, the next scan goes on there.
    """
    cursor = cursors.get(inbox, Cursor())
    since = None if cursor.since is None else cursor.since - overlap
    unreadable: list[str] = []
    listed = storage.list(inbox, start_after=cursor.after, tell=unreadable.append)
    return InboxScan(
        {inbox: (cursor, ((info, since is None or info.arrived >= since) for info in listed))},
        now=now or datetime.now(UTC),
        settle=settle,
        out_of_time=out_of_time,
        unreadable=unreadable,
    )


def ordered(
    storage: Storage,
    inbox: str,
    cursors: Cursors,
    *,
    look_back: timedelta,
    settle: timedelta = timedelta(0),
    now: datetime | None = None,
    out_of_time: Callable[[], bool] = lambda: False,
) -> InboxScan:
    """Only the end of the inbox, where keys sort by time: `<inbox>[urgent/]YYYY/MM/DD/<ULID>…`, as the Worker makes.

    Two short listings however much the inbox holds, urgent first. Other keys below the inbox are not seen: they are
    left to the reconcile run. `look_back` must be longer than the time from the making of a key to the end of its
    upload. The other arguments as for `sweep`.
    """
    parts, unreadable = {}, list[str]()
    for prefix in (inbox + URGENT, inbox):
        cursor = cursors.get(prefix, Cursor())
        parts[prefix] = (cursor, _dated(storage, prefix, cursor, look_back, unreadable.append))
    return InboxScan(parts, now=now or datetime.now(UTC), settle=settle, out_of_time=out_of_time, unreadable=unreadable)


def _dated(
    storage: Storage, prefix: str, cursor: Cursor, look_back: timedelta, tell: Tell
) -> Iterator[tuple[ObjectInfo, bool]]:
    start = cursor.after
    if start is None and cursor.since is not None:
        start = floor(prefix, cursor.since - look_back)
    for info in storage.list(prefix, start_after=start, tell=tell):
        below = info.key[len(prefix) :]
        if below > "9:":  # past the years: urgent/ and whatever people put beside it
            return
        yield info, _DATED.match(below) is not None


def floor(prefix: str, time: datetime) -> str:
    """A key that sorts before those made at `time` or later: date and the ten time characters of a ULID."""
    time = time.astimezone(UTC)
    rest, characters = int(time.timestamp() * 1000), ""
    for _ in range(10):
        rest, digit = divmod(rest, 32)
        characters = CROCKFORD[digit] + characters
    return f"{prefix}{time:%Y/%m/%d}/{characters}"
