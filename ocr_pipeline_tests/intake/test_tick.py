"""One tick of the sensor: what it reads, and that nothing seen is lost whatever fails or dies in between."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ocr_pipeline.intake import sweeping, tick
from ocr_pipeline.intake.options import IntakeOptions
from ocr_pipeline.lake import batches, deletions, keys, listing
from ocr_pipeline.lake.batch_index import MOST_UNREADABLE
from ocr_pipeline.lake.listing import floor
from ocr_pipeline.lake.local import LocalStorage
from ocr_pipeline.lake.opening import open_storage
from ocr_pipeline.lake.planner import BatchLimits
from ocr_pipeline.lake.queue import QueueError, QueueOptions, QueuePull
from ocr_pipeline.lake.storage import ObjectInfo, Storage, StorageError
from ocr_pipeline_tests.intake.conftest import lists, taken
from ocr_pipeline_tests.queue_stand_in import StandIn
from ocr_pipeline_tests.s3_stand_in import s3_stand_in

local = pytest.mark.parametrize("lake", ["local"], indirect=True)


def worker_key(time: datetime, name: str = "a.pdf", prefix: str = "inbox/") -> str:
    return f"{floor(prefix, time)}AAAAAAAAAAAAAAAA-{name}"


# ------------------------------------------------------------------------------------------------------------- listing


def test_ordered_finds_what_the_worker_put_and_moves_its_cursors(lake: Storage, options: IntakeOptions) -> None:
    ordered = replace(options, ordered=True)
    now = datetime.now(UTC)
    lake.write(worker_key(now), b"%PDF-")
    lake.write(worker_key(now, prefix="inbox/urgent/"), b"%PDF-")
    lake.write("inbox/not-dated.pdf", b"%PDF-")
    first = tick.run_tick(lake, ordered, None)
    assert [batch.urgent for batch in first.batches] == [True, False]
    assert taken(lake) == [worker_key(now), worker_key(now, prefix="inbox/urgent/")]
    assert sorted(json.loads(first.cursor)) == ["inbox/", "inbox/urgent/"]
    later = worker_key(now + timedelta(seconds=1), "b.pdf")
    lake.write(later, b"%PDF-")
    second = tick.run_tick(lake, ordered, first.cursor)
    assert [upload.key for batch in second.batches for upload in batch.uploads] == [later]
    assert tick.run_tick(lake, ordered, second.cursor).batches == ()
    assert [b.uploads[0].key for b in sweeping.sweep_everything(lake, ordered).batches] == ["inbox/not-dated.pdf"]


@pytest.mark.parametrize(("ordered", "most"), [(True, 3), (False, 2)])
def test_a_tick_lists_three_times_at_most_and_reads_no_batch_list_twice(
    tmp_path: Path, ordered: bool, most: int
) -> None:
    options = IntakeOptions(tmp_path, ordered=ordered, limits=BatchLimits(documents=1))
    with s3_stand_in() as store:
        lake = open_storage("s3://b/lake", store.options)
        now = datetime.now(UTC)
        for number in range(5):
            store.objects[f"lake/{worker_key(now + timedelta(milliseconds=number))}"] = b"x"
        cursor = tick.run_tick(lake, options, None).cursor
        tick.run_tick(lake, options, cursor)  # reads what the one before has written
        store.requests.clear()
        store.objects[f"lake/{worker_key(now + timedelta(seconds=1))}"] = b"x"
        # the stand-in dates everything long ago, behind the watermark of a sweep
        assert len(tick.run_tick(lake, options, cursor).batches) == int(ordered)
        listings = [path for method, path in store.requests if "list-type=2" in path]
        reads = [path for method, path in store.requests if method == "GET" and "list-type" not in path]
        assert len(listings) <= most
        assert reads == []


class NoLists(LocalStorage):
    """A store that takes no batch list."""

    def create(self, key: str, data: bytes) -> bool:
        if key.startswith(keys.BATCHES):
            raise StorageError("the disk is full")
        return super().create(key, data)


@local
def test_a_tick_that_cannot_write_its_list_moves_no_cursor(lake: Storage, options: IntakeOptions) -> None:
    assert isinstance(lake, LocalStorage)
    lake.write("inbox/a.pdf", b"x")
    with pytest.raises(StorageError, match="full"):
        tick.run_tick(NoLists(Path(lake.root)), options, None)
    assert [u.key for b in tick.run_tick(lake, options, None).batches for u in b.uploads] == ["inbox/a.pdf"]


@pytest.fixture
def lists_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocr_pipeline.lake.batch_index.LISTS_AT_ONCE", 1)


@local
def test_a_look_that_has_no_time_for_the_batch_lists_cuts_nothing_and_the_next_ones_get_through(
    lake: Storage, options: IntakeOptions, tmp_path: Path, lists_one_by_one: None
) -> None:
    for name in ("a", "b", "c"):
        lake.write(f"inbox/{name}.pdf", b"x")
        cursor = tick.run_tick(lake, options, None).cursor
    lake.write("inbox/d.pdf", b"x")
    elsewhere = replace(options, data=tmp_path / "another machine")
    for _ in range(2):
        found = tick.run_tick(lake, elsewhere, cursor, seconds=-1)
        assert (found.batches, found.cursor, found.note) == ((), cursor, tick.NOT_READ)
    assert len(lists(lake)) == 3
    found = tick.run_tick(lake, elsewhere, cursor, seconds=-1)
    assert found.note != tick.NOT_READ
    for _ in range(4):  # the listing is cut short, too, and goes on from the cursor
        found = tick.run_tick(lake, elsewhere, found.cursor, seconds=-1)
    assert taken(lake) == ["inbox/a.pdf", "inbox/b.pdf", "inbox/c.pdf", "inbox/d.pdf"]


# --------------------------------------------------------------------------------------------------------------- queue


@pytest.fixture
def puller(queue: StandIn) -> Iterator[QueuePull]:
    with QueuePull(QueueOptions(queue.url, queue.account_id, queue.queue_id, queue.token, bucket="docs")) as opened:
        yield opened


@local
def test_an_event_is_acknowledged_when_its_upload_is_in_a_list_and_not_before(
    lake: Storage, options: IntakeOptions, queue: StandIn, puller: QueuePull
) -> None:
    assert isinstance(lake, LocalStorage)
    lake.write("inbox/a.pdf", b"x")
    queue.send_event("docs", "inbox/a.pdf")
    with pytest.raises(StorageError, match="full"):
        tick.run_tick(NoLists(Path(lake.root)), options, None, queue=puller)
    assert (len(queue.waiting), lists(lake)) == (1, [])
    queue.now += 601
    assert len(tick.run_tick(lake, options, None, queue=puller).batches) == 1
    assert (queue.waiting, taken(lake)) == ([], ["inbox/a.pdf"])


@local
def test_a_tick_that_dies_before_it_acknowledges_is_told_again_and_cuts_nothing_twice(
    lake: Storage, options: IntakeOptions, queue: StandIn, puller: QueuePull
) -> None:
    lake.write("inbox/a.pdf", b"x")
    queue.send_event("docs", "inbox/a.pdf")
    real = puller.acknowledge

    def dies(pulled: object) -> None:
        raise QueueError("the process was killed")

    puller.acknowledge = dies  # type: ignore[method-assign]
    with pytest.raises(QueueError):
        tick.run_tick(lake, options, None, queue=puller)
    assert len(queue.waiting) == 1
    puller.acknowledge = real  # type: ignore[method-assign]
    queue.now += 601
    again = tick.run_tick(lake, options, None, queue=puller)
    assert (again.batches, len(again.recent)) == ((), 1)  # the list without a run is taken up by the sensor
    assert (queue.waiting, taken(lake)) == ([], ["inbox/a.pdf"])


def test_a_deletion_told_five_times_is_one_batch_and_keeps_its_time(
    lake: Storage, options: IntakeOptions, queue: StandIn, puller: QueuePull
) -> None:
    lake.write("inbox/a.pdf", b"x")
    for _ in range(5):
        queue.send_event("docs", "inbox/a.pdf")
        tick.run_tick(lake, options, None, queue=puller)
    lake.delete(["inbox/a.pdf"])
    for _ in range(5):
        queue.send_event("docs", "inbox/a.pdf", "DeleteObject")
        tick.run_tick(lake, options, None, queue=puller)
    cut, gone = lists(lake)
    assert (cut.deleted, gone.deleted, gone.gone) == ((), ("inbox/a.pdf",), cut.uploads)
    assert sweeping.sweep_everything(lake, options).batches == ()
    assert queue.waiting == []


@local
def test_events_of_keys_that_were_never_taken_and_are_gone_make_no_batch(
    lake: Storage, options: IntakeOptions, queue: StandIn, puller: QueuePull
) -> None:
    queue.send_event("docs", "inbox/never-seen.tmp", "DeleteObject")
    queue.send_event("docs", "inbox/short-lived.pdf")
    assert tick.run_tick(lake, options, None, queue=puller).batches == ()
    assert (queue.waiting, lists(lake)) == ([], [])


@local
def test_deletion_and_upload_in_any_order_of_their_events_end_as_the_store_is(
    lake: Storage, options: IntakeOptions, queue: StandIn, puller: QueuePull
) -> None:
    lake.write("inbox/a.pdf", b"x")
    tick.run_tick(lake, options, None)
    lake.delete(["inbox/a.pdf"])
    queue.send_event("docs", "inbox/a.pdf", "DeleteObject")
    tick.run_tick(lake, options, None, queue=puller)
    lake.write("inbox/a.pdf", b"new")
    for action in ("PutObject", "DeleteObject"):  # the older event comes last
        queue.send_event("docs", "inbox/a.pdf", action)
        tick.run_tick(lake, options, None, queue=puller)
    mark = max((deletions.marks(b)["inbox/a.pdf"] for b in lists(lake) if b.deleted), key=lambda m: m.deleted_at)
    info = lake.stat("inbox/a.pdf")
    assert info is not None
    assert [u.etag for b in lists(lake) for u in b.uploads if not deletions.hides(mark, u)] == [info.etag]


@local
def test_one_object_that_the_store_refuses_does_not_hold_up_the_events_beside_it(
    lake: Storage, options: IntakeOptions, queue: StandIn, puller: QueuePull
) -> None:
    class Refusing(LocalStorage):
        def stat(self, key: str) -> ObjectInfo | None:
            if key == "inbox/ssec.pdf":
                raise StorageError("it answers 400 InvalidRequest")
            return super().stat(key)

    assert isinstance(lake, LocalStorage)
    for name in ("a", "ssec", "b"):
        lake.write(f"inbox/{name}.pdf", b"x")
        queue.send_event("docs", f"inbox/{name}.pdf")
    found = tick.run_tick(Refusing(Path(lake.root)), options, None, queue=puller)
    assert taken(lake) == ["inbox/a.pdf", "inbox/b.pdf"]
    assert "1 refused by the store" in found.note
    assert len(queue.waiting) == 1
    queue.now += 61  # given back, not held for the ten minutes of the lease
    tick.run_tick(lake, options, None, queue=puller)
    assert (queue.waiting, len(taken(lake))) == ([], 3)


@local
def test_a_tick_says_how_many_messages_of_the_queue_were_none_of_its_own(
    lake: Storage, options: IntakeOptions, queue: StandIn, puller: QueuePull
) -> None:
    lake.write("inbox/a.pdf", b"x")
    queue.send_event("docs", "inbox/a.pdf")
    queue.send_event("another-bucket", "inbox/a.pdf", times=2)
    queue.send({"said": "no event"})
    found = tick.run_tick(lake, options, None, queue=puller)
    assert found.note == (
        "1 uploads and 0 deletions pulled, 2 events of other buckets or folders, 1 messages that are no events"
    )


@local
def test_events_that_found_no_time_for_the_batch_lists_come_again_once_these_are_read(
    lake: Storage, options: IntakeOptions, queue: StandIn, puller: QueuePull, tmp_path: Path, lists_one_by_one: None
) -> None:
    for name in ("a", "b", "c", "d", "e", "f"):
        lake.write(f"inbox/{name}.pdf", b"x")
        tick.run_tick(lake, options, None)
    lake.delete(["inbox/a.pdf"])
    queue.send_event("docs", "inbox/a.pdf", "DeleteObject")
    elsewhere = replace(options, data=tmp_path / "another machine")
    for _ in range(5):
        found = tick.run_tick(lake, elsewhere, None, queue=puller, seconds=-1)
        assert (found.batches, found.note) == ((), tick.NOT_READ)
        queue.now += 61
    # given back once, and then left in the queue: what comes again too often is a dead letter
    assert [message.attempts for message in queue.waiting] == [1]
    (gone,) = tick.run_tick(lake, elsewhere, None, queue=puller, seconds=-1).batches
    assert gone.deleted == ("inbox/a.pdf",)
    assert (queue.waiting, queue.dead) == ([], [])


# --------------------------------------------------------------------------------------------------------------- races


def keep_looking(root: str, data: str, stop: str) -> None:
    """A sensor in a process of its own, until the file `stop` is there; one look more after that."""
    lake, options = open_storage(root), IntakeOptions(Path(data), overlap=timedelta(seconds=30))
    cursor, last = None, False
    while not last:
        last = os.path.exists(stop)
        cursor = tick.run_tick(lake, options, cursor).cursor


@pytest.mark.parametrize("machines", [1, 2])
def test_two_sensors_on_one_inbox_lose_nothing_and_on_one_machine_cut_nothing_twice(
    tmp_path: Path, machines: int
) -> None:
    """On two machines an upload may be in two lists: its rows are keyed by document, its text by its page's image."""
    root, stop = str(tmp_path / "lake"), str(tmp_path / "stop")
    context = multiprocessing.get_context("spawn")
    sensors = [
        context.Process(target=keep_looking, args=(root, str(tmp_path / f"data{number % machines}"), stop))
        for number in range(2)
    ]
    lake = open_storage(root)
    for sensor in sensors:
        sensor.start()
    try:
        names = [f"inbox/{number:03d}.pdf" for number in range(60)]
        for name in names:
            lake.write(name, name.encode())
    finally:
        Path(stop).touch()
        for sensor in sensors:
            sensor.join(60)
    assert [sensor.exitcode for sensor in sensors] == [0, 0]
    assert sorted(set(taken(lake))) == names
    if machines == 1:
        assert taken(lake) == names
    assert sweeping.sweep_everything(lake, IntakeOptions(tmp_path / "third")).batches == ()


@local
@pytest.mark.parametrize("cut_off", [False, True])
def test_a_copy_of_a_batch_list_stops_no_intake_and_is_nothing_to_run(
    lake: Storage, options: IntakeOptions, cut_off: bool
) -> None:
    lake.write("inbox/a.pdf", b"x")
    (batch,) = tick.run_tick(lake, options, None).batches
    lake.write(keys.batch(f"{batch.name} (1)"), b"" if cut_off else batches.dump(batch))
    lake.write("inbox/b.pdf", b"x")
    found = tick.run_tick(lake, options, None)
    assert [upload.key for new in found.batches for upload in new.uploads] == ["inbox/b.pdf"]
    assert found.recent == (batch.name,)
    assert set(sweeping.sweep_everything(lake, options).lists) == {batch.name, found.batches[0].name}


@pytest.mark.parametrize("torn", [b"", b'{"name": "20', b"<html>", b'{"uploads": 1}'])
def test_a_batch_list_that_cannot_be_read_stops_no_intake_and_loses_no_upload(
    lake: Storage, options: IntakeOptions, torn: bytes
) -> None:
    for name in ("a", "gone"):
        lake.write(f"inbox/{name}.pdf", name.encode())
    (batch,) = tick.run_tick(lake, options, None).batches
    lake.write("inbox/b.pdf", b"b")
    sweeping.sweep_everything(lake, options)
    lake.delete(["inbox/gone.pdf"])
    lake.write(keys.batch(batch.name), torn)
    lake.write("inbox/c.pdf", b"c")
    found = tick.run_tick(lake, options, None)
    assert {upload.key for new in found.batches for upload in new.uploads} == {"inbox/a.pdf", "inbox/c.pdf"}
    for unreadable in (found.unreadable, sweeping.sweep_everything(lake, options).unreadable):
        (error,) = unreadable
        assert keys.batch(batch.name) in error
        assert "your copy of batches/, or delete it" in error
    assert tick.run_tick(lake, options, None).batches == ()
    lake.write(keys.batch(batch.name), batches.dump(batch))
    back = sweeping.sweep_everything(lake, options)
    assert ([new.deleted for new in back.batches], back.unreadable) == ([("inbox/gone.pdf",)], ())


def test_a_batch_list_that_cannot_be_read_is_mended_where_the_same_uploads_are_cut_again(
    lake: Storage, options: IntakeOptions
) -> None:
    lake.write("inbox/a.pdf", b"x")
    (batch,) = tick.run_tick(lake, options, None).batches
    lake.write(keys.batch(batch.name), b"")
    found = tick.run_tick(lake, options, None)
    assert (found.batches, found.unreadable) == ((batch,), ())
    assert batches.read(lake, batch.name) == batch
    assert tick.run_tick(lake, options, None).batches == ()


def test_nothing_is_cut_where_so_many_lists_cannot_be_read_that_the_store_is_at_fault(
    lake: Storage, options: IntakeOptions
) -> None:
    for number in range(MOST_UNREADABLE + 1):
        lake.write(f"inbox/{number}.pdf", b"x")
        tick.run_tick(lake, options, None)
    for info in list(lake.list(keys.BATCHES)):
        lake.write(info.key, b"<html>")
    lake.write("inbox/new.pdf", b"x")
    for look in (lambda: tick.run_tick(lake, options, None), lambda: sweeping.sweep_everything(lake, options)):
        with pytest.raises(StorageError, match=f"{MOST_UNREADABLE + 1} batch lists .* does {lake.uri} give"):
            look()


@pytest.mark.parametrize("ordered", [False, True])
def test_a_folder_of_the_inbox_that_may_not_be_read_stops_no_intake_and_nothing_in_it_is_taken_for_gone(
    bound_by_rights: Path, ordered: bool
) -> None:
    lake = LocalStorage(bound_by_rights / "lake")
    options = IntakeOptions(bound_by_rights, ordered=ordered)
    lake.write("inbox/2026/11/closed/a.pdf", b"x")
    sweeping.sweep_everything(lake, options)
    folder = Path(lake.uri_of("inbox/2026/11/closed"))
    folder.chmod(0)
    key = worker_key(datetime.now(UTC))
    lake.write(key, b"x")
    found = tick.run_tick(lake, options, None)
    assert [upload.key for batch in found.batches for upload in batch.uploads] == [key]
    swept = sweeping.sweep_everything(lake, options)
    assert (swept.batches, swept.finished) == ((), True)
    for (error,) in (found.unreadable, swept.unreadable):
        assert f"{folder}/: Permission denied" in error
    folder.chmod(0o755)
    assert sweeping.sweep_everything(lake, options).unreadable == ()


@local
def test_a_first_look_at_an_old_bucket_reads_the_lists_that_others_wrote(
    lake: Storage, options: IntakeOptions, tmp_path: Path
) -> None:
    lake.write("inbox/a.pdf", b"x")
    (batch,) = tick.run_tick(lake, options, None).batches
    elsewhere = replace(options, data=tmp_path / "another machine")
    assert tick.run_tick(lake, elsewhere, None).batches == ()
    assert list(batches.names(lake)) == [batch.name]
    assert listing.load(tick.run_tick(lake, elsewhere, None).cursor).keys() == {"inbox/"}
