"""Looks at the inbox: nothing that arrives is passed over, whatever the order, the clock and the time budget."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocr_pipeline.lake import listing
from ocr_pipeline.lake.listing import Cursor, InboxScan, ordered, sweep
from ocr_pipeline.lake.local import LocalStorage
from ocr_pipeline.lake.storage import ObjectInfo, Storage, Tell

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Bucket(LocalStorage):
    """A store that lists what it is told at the time it is told; everything else of a store is not used here."""

    def __init__(self) -> None:
        super().__init__(Path("/nonexistent"))
        self.objects: dict[str, ObjectInfo] = {}
        self.while_listing: Callable[[], object] = lambda: None
        self.asked: list[tuple[str, str | None]] = []
        self.listed = 0

    def put(self, key: str, modified: datetime) -> None:
        self.objects[key] = ObjectInfo(key, f"etag {modified}", 1, modified)

    def list(self, prefix: str, start_after: str | None = None, tell: Tell | None = None) -> Iterator[ObjectInfo]:
        self.asked.append((prefix, start_after))
        last = start_after or ""
        while True:
            self.while_listing()
            later = [key for key in self.objects if key.startswith(prefix) and key.encode() > last.encode()]
            if not later:
                return
            last = min(later, key=str.encode)
            self.listed += 1
            yield self.objects[last]


def given_keys(look: InboxScan) -> list[str]:
    return [upload.key for upload in look]


def after(looks: int) -> Callable[[], bool]:
    """Time that is up after so many objects."""
    steps = count(1)
    return lambda: next(steps) >= looks


# ------------------------------------------------------------------------------------------------------------- sweep


def test_the_first_sweep_shows_everything_and_the_next_only_what_is_newer_than_the_overlap() -> None:
    bucket = Bucket()
    bucket.put("inbox/old.pdf", NOW - timedelta(days=30))
    bucket.put("inbox/new.pdf", NOW - timedelta(minutes=30))
    first = sweep(bucket, "inbox/", {}, overlap=HOUR, now=NOW)
    assert given_keys(first) == ["inbox/new.pdf", "inbox/old.pdf"]
    assert first.finished
    second = sweep(bucket, "inbox/", first.next(), overlap=HOUR, now=NOW + timedelta(seconds=5))
    assert given_keys(second) == ["inbox/new.pdf"]
    third = sweep(bucket, "inbox/", second.next(), overlap=HOUR, now=NOW + 2 * HOUR)
    assert given_keys(third) == ["inbox/new.pdf"]
    assert given_keys(sweep(bucket, "inbox/", third.next(), overlap=HOUR, now=NOW + 3 * HOUR)) == []


def test_a_multipart_upload_that_is_dated_at_its_beginning_and_ends_late_is_not_missed() -> None:
    bucket = Bucket()
    first = sweep(bucket, "inbox/", {}, overlap=HOUR, now=NOW)
    assert given_keys(first) == []
    bucket.put("inbox/slow.pdf", NOW - timedelta(minutes=59))
    assert given_keys(sweep(bucket, "inbox/", first.next(), overlap=HOUR, now=NOW)) == ["inbox/slow.pdf"]


def test_a_store_whose_clock_is_behind_hides_no_upload() -> None:
    bucket = Bucket()
    first = sweep(bucket, "inbox/", {}, overlap=HOUR, now=NOW)
    assert given_keys(first) == []
    bucket.put("inbox/a.pdf", NOW - HOUR - timedelta(minutes=14))
    assert given_keys(sweep(bucket, "inbox/", first.next(), overlap=HOUR, now=NOW)) == ["inbox/a.pdf"]


def test_a_sweep_that_runs_out_of_time_goes_on_from_its_cursor() -> None:
    bucket = Bucket()
    names = [f"inbox/{number}.pdf" for number in range(7)]
    for name in names:
        bucket.put(name, NOW - HOUR)
    cursors: dict[str, Cursor] = {}
    seen: list[list[str]] = []
    for _ in range(4):
        look = sweep(bucket, "inbox/", cursors, overlap=HOUR, now=NOW, out_of_time=after(2))
        seen.append(given_keys(look))
        cursors = look.next()
    assert seen == [names[0:2], names[2:4], names[4:6], names[6:]]
    assert cursors == {"inbox/": Cursor(since=NOW - listing.CLOCKS)}


def test_known_objects_use_up_time_too() -> None:
    bucket = Bucket()
    for number in range(100):
        bucket.put(f"inbox/{number:03d}.pdf", NOW - 1000 * HOUR)
    look = sweep(bucket, "inbox/", {"inbox/": Cursor(since=NOW)}, overlap=HOUR, now=NOW, out_of_time=after(10))
    assert given_keys(look) == []
    assert (look.seen, look.given, look.finished) == (10, 0, False)
    assert look.next()["inbox/"].after == "inbox/009.pdf"


def test_what_arrives_behind_a_long_pass_is_found_by_the_next_one() -> None:
    bucket = Bucket()
    for number in range(3):
        bucket.put(f"inbox/m{number}.pdf", NOW - HOUR)
    look = sweep(bucket, "inbox/", {}, overlap=timedelta(0), now=NOW, out_of_time=after(1))
    given_keys(look)
    cursors = look.next()
    bucket.put("inbox/a.pdf", NOW + HOUR)  # behind the cursor
    bucket.put("inbox/z.pdf", NOW + 5 * HOUR)  # before it, and much later
    look = sweep(bucket, "inbox/", cursors, overlap=timedelta(0), now=NOW + 6 * HOUR)
    assert given_keys(look) == ["inbox/m1.pdf", "inbox/m2.pdf", "inbox/z.pdf"]
    look = sweep(bucket, "inbox/", look.next(), overlap=timedelta(0), now=NOW + 6 * HOUR)
    assert "inbox/a.pdf" in given_keys(look)


def test_an_upload_over_the_cap_keeps_the_watermark_behind_it() -> None:
    bucket = Bucket()
    bucket.put("inbox/a.pdf", NOW - 50 * HOUR)
    bucket.put("inbox/b.pdf", NOW - 40 * HOUR)
    look = sweep(bucket, "inbox/", {}, overlap=HOUR, now=NOW)
    given_keys(look)
    cursors = look.next(left_since=NOW - 40 * HOUR)
    assert given_keys(sweep(bucket, "inbox/", cursors, overlap=HOUR, now=NOW)) == ["inbox/b.pdf"]


def test_a_cap_in_an_unfinished_pass_is_remembered_to_its_end() -> None:
    bucket = Bucket()
    for number in range(3):
        bucket.put(f"inbox/{number}.pdf", NOW - 50 * HOUR)
    look = sweep(bucket, "inbox/", {}, overlap=HOUR, now=NOW, out_of_time=after(1))
    given_keys(look)
    look = sweep(bucket, "inbox/", look.next(left_since=NOW - 50 * HOUR), overlap=HOUR, now=NOW)
    assert given_keys(look) == ["inbox/1.pdf", "inbox/2.pdf"]
    assert given_keys(sweep(bucket, "inbox/", look.next(), overlap=HOUR, now=NOW))[0] == "inbox/0.pdf"


def test_a_caller_that_stops_early_gets_the_rest_next_time() -> None:
    bucket = Bucket()
    for number in range(4):
        bucket.put(f"inbox/{number}.pdf", NOW - HOUR)
    look = sweep(bucket, "inbox/", {}, overlap=HOUR, now=NOW)
    uploads = iter(look)
    assert [next(uploads).key, next(uploads).key] == ["inbox/0.pdf", "inbox/1.pdf"]
    assert given_keys(sweep(bucket, "inbox/", look.next(), overlap=HOUR, now=NOW)) == ["inbox/2.pdf", "inbox/3.pdf"]


def test_a_file_still_being_written_is_reported_and_taken_once_it_is_quiet(tmp_path: Path) -> None:
    lake = LocalStorage(tmp_path)
    lake.write("inbox/a.pdf", b"half")
    now = datetime.now(UTC)
    look = sweep(lake, "inbox/", {}, overlap=HOUR, settle=timedelta(seconds=10), now=now)
    assert given_keys(look) == []
    assert look.unsettled == ["inbox/a.pdf"]
    later = sweep(
        lake, "inbox/", look.next(), overlap=HOUR, settle=timedelta(seconds=10), now=now + timedelta(seconds=11)
    )
    assert given_keys(later) == ["inbox/a.pdf"]
    assert later.unsettled == []


@pytest.mark.parametrize("date", [1e9, 4e9])
def test_a_file_that_is_moved_in_with_a_date_of_long_ago_or_of_the_future_is_found(tmp_path: Path, date: float) -> None:
    lake = LocalStorage(tmp_path)
    now = datetime.now(UTC)
    lake.write("inbox/a.pdf", b"x")
    other = tmp_path / "other"
    other.write_bytes(b"x")
    os.utime(other, (date, date))
    other.rename(tmp_path / "inbox" / "moved.pdf")
    cursors = {"inbox/": Cursor(since=now)}
    look = sweep(lake, "inbox/", cursors, overlap=HOUR, settle=timedelta(seconds=1), now=now + timedelta(seconds=5))
    assert given_keys(look) == ["inbox/a.pdf", "inbox/moved.pdf"]
    cursor = look.next()["inbox/"]
    assert cursor.since is not None
    assert cursor.since <= now + timedelta(seconds=5)


times = st.integers(0, 4000).map(lambda minutes: NOW + timedelta(minutes=minutes))
arrivals = st.lists(
    st.tuples(st.integers(0, 30), times, st.integers(0, 60), st.integers(-15, 15)), min_size=1, max_size=15
)


@settings(max_examples=60)
@given(arrivals, st.lists(st.tuples(times, st.integers(1, 6)), max_size=20))
def test_every_upload_is_given_whenever_it_arrives_and_however_short_the_looks(
    uploads: list[tuple[int, datetime, int, int]], looks: list[tuple[datetime, int]]
) -> None:
    """Uploads end at a time, are dated up to the overlap earlier by a clock that is up to 15 minutes off."""
    bucket = Bucket()
    ends = sorted(
        ((end, f"inbox/{name:02d}.pdf", end - timedelta(minutes=took - clock)) for name, end, took, clock in uploads),
        key=lambda upload: upload[0],
    )
    final = {key: dated for _, key, dated in ends}
    cursors: dict[str, Cursor] = {}
    seen: set[tuple[str, datetime]] = set()
    last = max(end for end, _, _ in ends)
    # At the end time for all that is left: as many looks as the pass under way and one more may need.
    for now, objects in [*sorted(looks), (last, 100), (last, 100)]:
        while ends and ends[0][0] <= now:
            _, key, dated = ends.pop(0)
            bucket.put(key, dated)
        look = sweep(bucket, "inbox/", cursors, overlap=timedelta(minutes=60), now=now, out_of_time=after(objects))
        seen |= {(upload.key, upload.last_modified) for upload in look}
        cursors = listing.load(listing.dump(look.next()))
    assert set(final.items()) <= seen


def test_a_cursor_that_cannot_be_read_looks_at_everything_anew() -> None:
    for text in (None, "", "2026-11-22", "[1]", '{"inbox/": {"since": "yesterday"}}', '{"inbox/": 3}', "{}"):
        assert listing.load(text) == {}


# ----------------------------------------------------------------------------------------------------------- ordered


def worker_key(time: datetime, name: str = "a.pdf", prefix: str = "inbox/") -> str:
    return f"{listing.floor(prefix, time)}AAAAAAAAAAAAAAAA-{name}"


def test_keys_that_the_worker_makes_sort_after_the_floor_of_their_time_and_before_the_next() -> None:
    for time in (NOW, datetime(2026, 12, 31, 23, 59, 59, 999000, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)):
        key = worker_key(time)
        assert listing.floor("inbox/", time) < key
        assert key < listing.floor("inbox/", time + timedelta(milliseconds=1))
        assert listing.floor("inbox/", time - timedelta(milliseconds=1)) < key


def test_ordered_lists_only_the_end_of_each_prefix_and_urgent_first() -> None:
    bucket = Bucket()
    for day in range(100):
        bucket.put(worker_key(NOW - timedelta(days=day)), NOW - timedelta(days=day))
        bucket.put(worker_key(NOW - timedelta(days=day), prefix="inbox/urgent/"), NOW - timedelta(days=day))
    first = ordered(bucket, "inbox/", {}, look_back=HOUR, now=NOW)
    assert len(given_keys(first)) == 200
    bucket.listed = 0
    new = [worker_key(NOW + HOUR, prefix="inbox/urgent/"), worker_key(NOW + HOUR)]
    for key in new:
        bucket.put(key, NOW + HOUR)
    look = ordered(bucket, "inbox/", first.next(), look_back=HOUR, now=NOW + HOUR)
    today = [worker_key(NOW, prefix="inbox/urgent/"), worker_key(NOW)]
    assert given_keys(look) == [today[0], new[0], today[1], new[1]]
    # Two old, two new, and the one that shows that the years are over.
    assert bucket.listed == 5


def test_a_large_upload_that_ends_after_younger_keys_is_seen_by_the_look_back() -> None:
    bucket = Bucket()
    look = ordered(bucket, "inbox/", {}, look_back=HOUR, now=NOW)
    given_keys(look)
    slow = worker_key(NOW - timedelta(minutes=50), "slow.pdf")
    bucket.put(worker_key(NOW), NOW)
    bucket.put(slow, NOW)
    assert slow in given_keys(ordered(bucket, "inbox/", look.next(), look_back=HOUR, now=NOW))


def test_keys_beside_the_dated_ones_neither_stop_nor_carry_off_the_cursor() -> None:
    bucket = Bucket()
    for odd in (
        "inbox/zzz.pdf",
        "inbox/0.pdf",
        "inbox/9999/01/01/7ZZZZZZZZZ-x.pdf",
        "inbox/2026/x.pdf",
        "inbox/a/b.pdf",
    ):
        bucket.put(odd, NOW)
    bucket.put(worker_key(NOW), NOW)
    look = ordered(bucket, "inbox/", {}, look_back=HOUR, now=NOW)
    assert given_keys(look) == [worker_key(NOW), "inbox/9999/01/01/7ZZZZZZZZZ-x.pdf"]
    later = NOW + 2 * HOUR
    bucket.put(worker_key(later), later)
    assert worker_key(later) in given_keys(ordered(bucket, "inbox/", look.next(), look_back=HOUR, now=later))


def test_an_ordered_look_that_runs_out_of_time_goes_on_from_its_cursor() -> None:
    bucket = Bucket()
    wanted = [worker_key(NOW + timedelta(seconds=n), prefix=p) for p in ("inbox/urgent/", "inbox/") for n in range(5)]
    for key in wanted:
        bucket.put(key, NOW)
    cursors: dict[str, Cursor] = {}
    seen: list[str] = []
    for _ in range(6):
        look = ordered(bucket, "inbox/", cursors, look_back=timedelta(0), now=NOW + HOUR, out_of_time=after(3))
        seen += given_keys(look)
        cursors = listing.load(listing.dump(look.next()))
    assert set(seen) == set(wanted)


def test_both_strategies_work_on_each_store(storage: Storage) -> None:
    now = datetime.now(UTC)
    key, urgent = worker_key(now), worker_key(now, prefix="inbox/urgent/")
    storage.write_many([(key, b"x"), (urgent, b"x"), ("inbox/plain.pdf", b"x"), ("batches/x.json", b"x")])
    later = now + timedelta(minutes=1)
    look = sweep(storage, "inbox/", {}, overlap=HOUR, now=later)
    assert given_keys(look) == [key, "inbox/plain.pdf", urgent]
    assert given_keys(sweep(storage, "inbox/", look.next(), overlap=HOUR, now=later)) == [
        key,
        "inbox/plain.pdf",
        urgent,
    ]
    look = ordered(storage, "inbox/", {}, look_back=HOUR, now=later)
    assert given_keys(look) == [urgent, key]
    assert given_keys(ordered(storage, "inbox/", look.next(), look_back=HOUR, now=later)) == [urgent, key]
