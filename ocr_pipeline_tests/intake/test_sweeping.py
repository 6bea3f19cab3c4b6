"""The whole inbox against all batch lists: what is missed, gone or there again, in pieces of time, in flat memory."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ocr_pipeline.intake import sweeping
from ocr_pipeline.intake.options import IntakeOptions
from ocr_pipeline.lake import batches, deletions, planner
from ocr_pipeline.lake.local import LocalStorage
from ocr_pipeline.lake.planner import BatchLimits
from ocr_pipeline.lake.storage import ObjectInfo, Storage, StorageError, Tell
from ocr_pipeline.records import Batch, Upload
from ocr_pipeline_tests.intake.conftest import Sweep, lists, taken

local = pytest.mark.parametrize("lake", ["local"], indirect=True)


def test_what_was_missed_is_cut_and_what_is_taken_is_left_alone(lake: Storage, sweep: Sweep) -> None:
    lake.write_many([("inbox/a.pdf", b"a"), ("inbox/b/c.pdf", b"c"), ("pages/x.jpg", b"x")])
    assert sorted(upload.key for batch in sweep().batches for upload in batch.uploads) == [
        "inbox/a.pdf",
        "inbox/b/c.pdf",
    ]
    assert sweep().batches == ()
    lake.write("inbox/b.pdf", b"b")
    assert [upload.key for batch in sweep().batches for upload in batch.uploads] == ["inbox/b.pdf"]


def test_what_is_gone_is_marked_once_with_the_upload_that_it_hides(lake: Storage, sweep: Sweep) -> None:
    lake.write("inbox/a.pdf", b"a")
    (first,) = sweep().batches
    lake.delete(["inbox/a.pdf"])
    (gone,) = sweep().batches
    assert (gone.deleted, gone.gone, gone.uploads) == (("inbox/a.pdf",), first.uploads, ())
    assert gone.name > first.name
    assert sweep().batches == ()


@local
def test_a_folder_where_a_file_was_and_a_file_where_a_folder_was_are_a_deletion_and_an_upload(
    lake: Storage, sweep: Sweep
) -> None:
    for there in ("inbox/a.pdf", "inbox/a.pdf/b.pdf", "inbox/a.pdf"):
        lake.delete([info.key for info in lake.list("inbox/")])
        lake.write(there, b"%PDF-1.7")
        lake.write("inbox/other.pdf", there.encode() * len(lists(lake)))
        assert {upload.key for batch in sweep().batches for upload in batch.uploads} == {there, "inbox/other.pdf"}
    assert {key for batch in lists(lake) for key in batch.deleted} == {"inbox/a.pdf", "inbox/a.pdf/b.pdf"}


def test_a_file_that_was_uploaded_again_in_the_second_of_its_deletion_is_not_hidden(
    lake: Storage, sweep: Sweep
) -> None:
    lake.write("inbox/a.pdf", b"a")
    (first,) = sweep().batches
    lake.delete(["inbox/a.pdf"])
    (gone,) = sweep().batches
    lake.write("inbox/a.pdf", b"other")
    (again,) = sweep().batches
    mark = deletions.marks(gone)["inbox/a.pdf"]
    assert deletions.hides(mark, first.uploads[0])
    assert not deletions.hides(mark, again.uploads[0])
    assert not deletions.hides(mark, replace(again.uploads[0], last_modified=first.uploads[0].last_modified))
    assert sweep().batches == ()


@local
def test_a_file_that_is_there_again_unchanged_is_taken_up_once_more(
    lake: Storage, sweep: Sweep, tmp_path: Path
) -> None:
    """An inbox that was not mounted for one tick."""
    lake.write_many([("inbox/a.pdf", b"a"), ("inbox/b.pdf", b"b")])
    (first,) = sweep().batches
    (tmp_path / "lake" / "inbox").rename(tmp_path / "away")
    (gone,) = sweep().batches
    assert gone.deleted == ("inbox/a.pdf", "inbox/b.pdf")
    (tmp_path / "away").rename(tmp_path / "lake" / "inbox")
    (back,) = sweep().batches
    assert (back.uploads, back.returned) == (first.uploads, True)
    assert back.name > gone.name
    assert [deletions.hides(mark, first.uploads[0]) for mark in deletions.marks(back).values()] == [False, False]
    assert sweep().batches == ()
    lake.delete(["inbox/a.pdf"])
    (once_more,) = sweep().batches
    assert once_more.deleted == ("inbox/a.pdf",)
    assert once_more.name > back.name


@local
def test_a_deletion_that_an_older_version_wrote_is_undone_too(lake: Storage, sweep: Sweep) -> None:
    lake.write("inbox/a.pdf", b"a")
    (first,) = sweep().batches
    batches.write(lake, planner.deletion(["inbox/a.pdf"], datetime.now(UTC) + timedelta(minutes=1)))
    (back,) = sweep().batches
    assert (back.uploads, back.returned) == (first.uploads, True)
    assert sweep().batches == ()


@local
def test_a_clock_of_ours_that_is_behind_orders_deletions_and_returns_all_the_same(lake: Storage, sweep: Sweep) -> None:
    lake.write("inbox/a.pdf", b"a")
    (first,) = sweep().batches
    ahead = datetime.now(UTC) + timedelta(minutes=10)
    batches.write(lake, planner.deletion(["inbox/a.pdf"], ahead, first.uploads))
    (back,) = sweep().batches
    assert back.created_at is not None
    assert back.created_at > ahead
    lake.delete(["inbox/a.pdf"])
    (gone,) = sweep().batches
    assert gone.created_at is not None
    assert gone.created_at > back.created_at


@local
def test_an_object_that_the_store_refuses_is_not_taken_for_gone(lake: Storage, options: IntakeOptions) -> None:
    class Refusing(LocalStorage):
        def list(self, prefix: str, start_after: str | None = None, tell: Tell | None = None) -> object:  # type: ignore[override]
            return (info for info in super().list(prefix, start_after, tell) if not info.key.startswith("inbox/a"))

        def stat(self, key: str) -> ObjectInfo | None:
            if key == "inbox/a.pdf":
                raise StorageError("no right")
            return super().stat(key)

    lake.write_many([("inbox/a.pdf", b"a"), ("inbox/a2.pdf", b"b")])
    sweeping.sweep_everything(lake, options)
    lake.delete(["inbox/a2.pdf"])
    assert isinstance(lake, LocalStorage)
    (gone,) = sweeping.sweep_everything(Refusing(Path(lake.root)), options).batches
    assert gone.deleted == ("inbox/a2.pdf",)


# ---------------------------------------------------------------------------------------------------------- in pieces


class Slow(LocalStorage):
    """A store whose listing takes all the time of a sweep after so many objects."""

    def __init__(self, root: Path, clock: list[float], objects: int) -> None:
        super().__init__(root)
        self.clock, self.objects = clock, objects
        self.read_lists = 0

    def list(self, prefix: str, start_after: str | None = None, tell: Tell | None = None):  # type: ignore[no-untyped-def]
        for number, info in enumerate(super().list(prefix, start_after, tell), 1):
            if prefix == "inbox/" and number == self.objects:
                self.clock[0] += 1000
            yield info

    def read(self, key: str) -> bytes:
        self.read_lists += key.startswith("batches/")
        return super().read(key)


@local
def test_a_sweep_stops_when_its_time_is_over_and_the_next_one_goes_on(
    lake: Storage, options: IntakeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("ocr_pipeline.intake.sweeping.time.monotonic", lambda: clock[0])
    slow = Slow(tmp_path / "lake", clock, 3)
    names = [f"inbox/{number}.pdf" for number in range(8)]
    lake.write_many((name, b"x") for name in names)
    swept = [sweeping.sweep_everything(slow, options) for _ in range(3)]
    assert [sorted(u.key for b in one.batches for u in b.uploads) for one in swept] == [
        names[:3],
        names[3:6],
        names[6:],
    ]
    assert [one.finished for one in swept] == [False, False, True]
    lake.delete([names[0], names[5], names[7]])
    gone = [key for _ in range(3) for b in sweeping.sweep_everything(slow, options).batches for key in b.deleted]
    assert gone == [names[0], names[5], names[7]]


@local
def test_batch_lists_are_read_once_and_a_sweep_waits_until_all_are(
    lake: Storage, options: IntakeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ocr_pipeline.lake.batch_index.LISTS_AT_ONCE", 2)
    small = replace(options, limits=BatchLimits(documents=1, batches=5))
    lake.write_many((f"inbox/{number}.pdf", b"x") for number in range(5))
    sweeping.sweep_everything(lake, small)
    steps = count()
    monkeypatch.setattr("ocr_pipeline.intake.sweeping.time.monotonic", lambda: float(next(steps)))
    slow = Slow(tmp_path / "lake", [0.0], -1)
    fresh = replace(small, data=tmp_path / "another machine")
    first = sweeping.sweep_everything(slow, fresh, seconds=0)
    assert (first.batches, first.finished, len(first.lists), slow.read_lists) == ((), False, 5, 2)
    done = sweeping.sweep_everything(slow, fresh, seconds=1000)
    assert (done.batches, done.finished, slow.read_lists) == ((), True, 5)
    sweeping.sweep_everything(slow, fresh, seconds=1000)
    assert slow.read_lists == 5


@local
def test_what_is_over_the_cap_comes_with_the_next_sweeps(lake: Storage, options: IntakeOptions) -> None:
    small = replace(options, limits=BatchLimits(documents=10, bytes=2, batches=2))
    lake.write_many((f"inbox/{number}.pdf", b"xy") for number in range(5))
    sizes = [len(sweeping.sweep_everything(lake, small).batches) for _ in range(4)]
    assert sizes == [2, 2, 1, 0]
    assert len(taken(lake)) == 5


# ------------------------------------------------------------------------------------------------ against a plain model

KEYS = ("a", "b/c", "b.pdf", "Ü", "\U0001f4c4", "b")
changes = st.lists(
    st.tuples(st.sampled_from(["put", "put", "delete", "sweep"]), st.sampled_from(KEYS)), min_size=1, max_size=25
)


class InMemory(LocalStorage):
    """A bucket with times in whole seconds, which the test moves: what changes within one is told apart by its etag."""

    def __init__(self) -> None:
        super().__init__(Path("/nonexistent"))
        self.objects: dict[str, tuple[bytes, ObjectInfo]] = {}
        self.now = datetime(2026, 11, 22, 12, tzinfo=UTC)

    def write(self, key: str, data: bytes) -> None:
        self.objects[key] = (data, ObjectInfo(key, f"{hash(data):x}", len(data), self.now))

    def create(self, key: str, data: bytes) -> bool:
        if key in self.objects:
            return False
        self.write(key, data)
        return True

    def read(self, key: str) -> bytes:
        return self.objects[key][0]

    def stat(self, key: str) -> ObjectInfo | None:
        return self.objects[key][1] if key in self.objects else None

    def list(self, prefix: str, start_after: str | None = None, tell: Tell | None = None):  # type: ignore[no-untyped-def]
        for key in sorted(self.objects, key=str.encode):
            if key.startswith(prefix) and key.encode() > (start_after or "").encode():
                yield self.objects[key][1]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes, st.integers(1, 3))
def test_after_two_sweeps_every_upload_is_in_a_list_and_hidden_exactly_where_it_is_gone(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str]], per_second: int
) -> None:
    bucket = InMemory()
    options = IntakeOptions(tmp_path_factory.mktemp("data"))
    ever: set[Upload] = set()
    for number, (what, name) in enumerate([*steps, ("sweep", ""), ("sweep", "")]):
        if number % per_second == 0:
            bucket.now += timedelta(seconds=1)
        key = f"inbox/{name}"
        if what == "put":
            bucket.write(key, b"%d" % number)
        elif what == "delete":
            bucket.objects.pop(key, None)
        else:
            sweeping.sweep_everything(bucket, options)
            ever |= {_upload(info) for _, info in bucket.objects.values() if info.key.startswith("inbox/")}
    here = {_upload(info) for _, info in bucket.objects.values() if info.key.startswith("inbox/")}
    found = lists(bucket)
    assert {upload for batch in found for upload in batch.uploads} == ever
    for upload in ever:
        mark = max((m[upload.key] for m in map(deletions.marks, found) if upload.key in m), key=_at, default=None)
        newest = max(u.last_modified for u in ever if u.key == upload.key)
        if upload in here:
            assert not deletions.hides(mark, upload)
        elif not any(other.key == upload.key for other in here) and upload.last_modified == newest:
            assert deletions.hides(mark, upload)
    assert sweeping.sweep_everything(bucket, options).batches == ()


def _upload(info: ObjectInfo) -> Upload:
    return info.as_upload()


def _at(mark: object) -> datetime:
    at: datetime = mark.deleted_at  # type: ignore[attr-defined]
    return at


def test_old_batch_lists_are_still_read() -> None:
    old = b'{"name": "n", "uploads": [], "urgent": false, "retry_reasons": [], "deleted": ["inbox/a.pdf"]}'
    assert batches.parse("n", old) == Batch("n", (), deleted=("inbox/a.pdf",))
