"""The sensor and the schedule: nothing seen is lost, nothing is run twice, whatever dies between."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterRunStatus

from ocr_pipeline import schedules, wiring
from ocr_pipeline.definitions import build_defs
from ocr_pipeline.intake.tick import run_tick
from ocr_pipeline.lake import batches, keys, listing
from ocr_pipeline.lake.listing import floor
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.runs import history
from ocr_pipeline.runs.reruns import MAX_FAILED_RUNS
from ocr_pipeline.schedules import YOUNG, reconcile
from ocr_pipeline.sensors import upload_sensor
from ocr_pipeline.settings import Settings
from ocr_pipeline_tests.dagster.conftest import Put, RunBatch
from ocr_pipeline_tests.pdfs import numbered


@pytest.fixture(autouse=True)
def no_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCR_SETTLE_SECONDS", "0")


def tick(instance: dg.DagsterInstance, cursor: str | None = None, *, dies_before: str = "") -> dg.SensorResult:
    """One tick of the sensor; what it asks of the daemon is done here unless the daemon dies before."""
    with dg.build_sensor_context(instance=instance, cursor=cursor) as context:
        result = upload_sensor(Settings())(context)
    assert isinstance(result, dg.SensorResult)
    if dies_before != "partitions":
        for asked in result.dynamic_partitions_requests or []:
            instance.add_dynamic_partitions("batches", list(asked.partition_keys))
    return result


def requested(result: dg.SensorResult) -> list[str]:
    return [str(request.partition_key) for request in result.run_requests or []]


def test_new_uploads_become_a_batch_list_a_partition_and_a_run_request(
    settings: Settings, lake: Storage, instance: dg.DagsterInstance
) -> None:
    lake.write("inbox/a.pdf", numbered(1))
    lake.write("inbox/.hidden/b.pdf".replace(".hidden", "deep"), numbered(1))
    result = tick(instance)
    (name,) = requested(result)
    assert [upload.key for upload in batches.read(lake, name).uploads] == ["inbox/a.pdf", "inbox/deep/b.pdf"]
    assert (result.run_requests or [])[0].run_key == name
    assert instance.has_dynamic_partition("batches", name)
    assert len(result.cursor or "") < 1000
    assert requested(tick(instance, result.cursor)) == []


def test_keys_that_sort_by_time_are_found_from_their_end_where_that_is_set(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, lake: Storage, instance: dg.DagsterInstance
) -> None:
    monkeypatch.setenv("OCR_LISTING", "ordered")
    now = datetime.now(UTC)
    lake.write(f"{floor('inbox/', now)}AAAAAAAAAAAAAAAA-a.pdf", numbered(1))
    lake.write("inbox/beside.pdf", numbered(1))
    first = tick(instance)
    (name,) = requested(first)
    assert [upload.key[-6:] for upload in batches.read(lake, name).uploads] == ["-a.pdf"]
    assert set(json.loads(first.cursor or "")) == {"inbox/", "inbox/urgent/"}
    later = now + timedelta(seconds=1)
    lake.write(f"{floor('inbox/urgent/', later)}AAAAAAAAAAAAAAAA-b.pdf", numbered(1))
    second = tick(instance, first.cursor)
    assert [request.tags.get("dagster/priority") for request in second.run_requests or []] == ["10"]
    assert requested(tick(instance, second.cursor)) == []


def test_urgent_uploads_go_first_in_dagsters_queue(
    settings: Settings, lake: Storage, instance: dg.DagsterInstance
) -> None:
    lake.write("inbox/a.pdf", numbered(1))
    lake.write("inbox/urgent/b.pdf", numbered(1))
    priorities = [request.tags.get("dagster/priority") for request in tick(instance).run_requests or []]
    assert priorities == ["10", None]


def test_a_batch_list_that_cannot_be_read_fails_its_own_run_and_no_tick(
    lake: Storage, instance: dg.DagsterInstance, run: RunBatch
) -> None:
    lake.write("inbox/a.pdf", numbered(1))
    lake.write("inbox/gone.pdf", numbered(1))
    (torn,) = (batches.read(lake, name) for name in requested(tick(instance, dies_before="partitions")))
    lake.delete(["inbox/gone.pdf"])  # else the tick would cut the same list, and mend it
    lake.write(keys.batch(torn.name), b"")
    lake.write("inbox/b.pdf", numbered(1))
    again = requested(tick(instance))
    (cut,) = set(again) - {torn.name}
    assert sorted(upload.key for upload in batches.read(lake, cut).uploads) == ["inbox/a.pdf", "inbox/b.pdf"]
    assert torn.name in again
    failed = run(torn)
    assert not failed.success
    (error,) = (event.step_failure_data.error for event in failed.all_events if event.is_step_failure)
    assert f"{keys.batch(torn.name)} is not the JSON that was written there" in str(error)
    assert torn.name in [request.partition_key for request in reconciled(instance)]
    waiting = tick(instance)
    assert requested(waiting) == []
    assert keys.batch(torn.name) in str(waiting.skip_reason)


@pytest.mark.parametrize("gap", ["list and partition", "partition and cursor"])
def test_a_tick_that_dies_leaves_nothing_behind_that_the_next_one_does_not_take_up(
    settings: Settings, lake: Storage, instance: dg.DagsterInstance, gap: str
) -> None:
    lake.write("inbox/a.pdf", numbered(1))
    died = tick(instance, dies_before="partitions" if gap == "list and partition" else "")
    (name,) = requested(died)
    again = tick(instance, None)  # the cursor was never moved
    if gap == "list and partition":
        assert requested(again) == [name]
    else:  # the partition is there, the run may not be: the schedule asks for it
        assert name in [request.partition_key for request in reconciled(instance)]
    assert [batch.name for batch in batches.load(lake)] == [name]


def test_two_sensors_on_one_inbox_cut_the_same_batch(
    settings: Settings, lake: Storage, instance: dg.DagsterInstance
) -> None:
    lake.write("inbox/a.pdf", numbered(1))
    with dg.DagsterInstance.ephemeral() as other:
        assert requested(tick(instance)) == requested(tick(other))
    assert len(list(batches.names(lake))) == 1


def test_a_cap_on_batches_a_tick_holds_and_the_rest_comes_next_time(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, lake: Storage, instance: dg.DagsterInstance
) -> None:
    monkeypatch.setenv("OCR_BATCH_DOCUMENTS", "2")
    monkeypatch.setenv("OCR_BATCHES_PER_TICK", "2")
    for number in range(7):
        lake.write(f"inbox/{number}.pdf", numbered(1))
    first = tick(instance)
    second = tick(instance, first.cursor)
    assert (len(requested(first)), len(requested(second))) == (2, 2)
    assert requested(tick(instance, second.cursor)) == []


@pytest.mark.parametrize("settings", ["local"], indirect=True)
def test_a_file_that_is_still_being_written_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, lake: Storage, instance: dg.DagsterInstance
) -> None:
    monkeypatch.setenv("OCR_SETTLE_SECONDS", "0.5")
    path = Path(settings.lake) / "inbox" / "growing.pdf"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"%PDF-1.7 ")
    done = threading.Event()

    def write_on() -> None:
        while not done.wait(0.02):
            with path.open("ab") as file:
                file.write(b"more")

    writer = threading.Thread(target=write_on)
    writer.start()
    try:
        first = tick(instance)
    finally:
        done.set()
        writer.join()
    assert requested(first) == []
    assert len(requested(tick(instance, first.cursor))) == 1


@pytest.mark.parametrize("settings", ["local"], indirect=True)  # a bucket has no folders to move
def test_a_folder_that_is_moved_into_the_inbox_is_seen_though_its_files_keep_their_times(
    settings: Settings, lake: Storage, instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wiring, "OVERLAP_IN_A_LOCAL_FOLDER", timedelta(0))
    monkeypatch.setattr(listing, "CLOCKS", timedelta(0))
    ready = Path(settings.lake) / "ready" / "deep"
    ready.mkdir(parents=True)
    (ready / "a.pdf").write_bytes(numbered(1))
    lake.write("inbox/papers/other.pdf", numbered(2))
    first = tick(instance)
    assert len(requested(first)) == 1
    ready.parent.rename(Path(settings.lake) / "inbox" / "papers" / "moved")
    second = tick(instance, first.cursor)
    (name,) = set(requested(second)) - set(requested(first))
    assert [upload.key for upload in batches.read(lake, name).uploads] == ["inbox/papers/moved/deep/a.pdf"]


LATER = timedelta(0)  # batch lists are no longer young


def reconciled(instance: dg.DagsterInstance, young: timedelta = LATER) -> list[dg.RunRequest]:
    with dg.build_schedule_context(instance=instance) as context:
        asked = list(reconcile(Settings(), young)(context))  # type: ignore[call-overload]
    return [one for one in asked if isinstance(one, dg.RunRequest)]


def test_reconcile_cuts_what_the_sensor_missed_and_asks_for_it(
    settings: Settings, lake: Storage, instance: dg.DagsterInstance
) -> None:
    lake.write("inbox/missed.pdf", numbered(1))
    (request,) = reconciled(instance)
    assert [u.key for u in batches.read(lake, str(request.partition_key)).uploads] == ["inbox/missed.pdf"]
    assert instance.has_dynamic_partition("batches", str(request.partition_key))


def test_a_batch_that_the_sensor_has_just_cut_is_asked_for_once(
    settings: Settings, lake: Storage, instance: dg.DagsterInstance
) -> None:
    """Its tick is not over, or the daemon has not made the run yet, when reconcile comes between."""
    lake.write("inbox/a.pdf", numbered(1))
    (name,) = requested(tick(instance))
    assert reconciled(instance, YOUNG) == []
    assert [request.partition_key for request in reconciled(instance)] == [name]  # nobody has made the run


def test_a_batch_that_reconcile_has_just_cut_is_asked_for_at_once_and_by_nobody_else(
    settings: Settings, lake: Storage, instance: dg.DagsterInstance
) -> None:
    lake.write("inbox/a.pdf", numbered(1))
    (request,) = reconciled(instance, YOUNG)
    assert requested(tick(instance)) == []
    assert [batch.name for batch in batches.load(lake)] == [request.partition_key]


def test_reconcile_leaves_finished_and_live_batches_alone(
    lake: Storage, instance: dg.DagsterInstance, put: Put, run: RunBatch
) -> None:
    done = put({"done.pdf": numbered(1)})
    assert run(done).success
    live = put({"live.pdf": numbered(1)})
    instance.create_run_for_job(
        build_defs().resolve_job_def("process_batch"),
        status=DagsterRunStatus.STARTED,
        tags={history.PARTITION_TAG: live.name},
    )
    assert reconciled(instance) == []


def test_reconcile_asks_again_for_what_is_in_the_tables_no_longer_but_not_for_what_people_deleted(
    settings: Settings, lake: Storage, instance: dg.DagsterInstance, put: Put, run: RunBatch
) -> None:
    kept, gone, replaced = (put({f"{name}.pdf": numbered(1, name)}) for name in ("kept", "gone", "replaced"))
    for batch in (kept, gone, replaced, newer := put({"replaced.pdf": numbered(2, "newer")})):
        assert run(batch).success
    assert reconciled(instance) == []
    lake.delete(["inbox/gone.pdf"])
    (deletion,) = reconciled(instance)
    assert run(batches.read(lake, str(deletion.partition_key))).success
    Path(settings.warehouse).unlink()
    asked = reconciled(instance)
    assert {request.partition_key for request in asked} == {kept.name, newer.name}
    assert all(request.run_key != request.partition_key for request in asked)
    assert run(kept).success
    assert run(newer).success
    assert reconciled(instance) == []


def test_what_was_just_cut_is_asked_for_also_when_no_time_is_left_to_look_for_lost_batches(
    monkeypatch: pytest.MonkeyPatch,
    settings: Settings,
    lake: Storage,
    instance: dg.DagsterInstance,
    put: Put,
    run: RunBatch,
) -> None:
    lost = put({"lost.pdf": numbered(1)})
    assert run(lost).success
    Path(settings.warehouse).unlink()
    lake.write("inbox/fresh.pdf", numbered(2))
    with monkeypatch.context() as patched:
        patched.setattr(schedules, "TICK_SECONDS", -1.0)
        (fresh,) = reconciled(instance)
    assert [u.key for u in batches.read(lake, str(fresh.partition_key)).uploads] == ["inbox/fresh.pdf"]
    # in the order in which they are asked for, and the fresh one again: nobody has made its run
    assert [request.partition_key for request in reconciled(instance)] == [fresh.partition_key, lost.name]


def test_reconcile_gives_up_on_a_batch_that_failed_too_often(
    settings: Settings, lake: Storage, instance: dg.DagsterInstance, put: Put
) -> None:
    bad = put({"bad.pdf": numbered(1)})
    keys_asked = set()
    for _ in range(MAX_FAILED_RUNS):
        (request,) = reconciled(instance)
        keys_asked.add(request.run_key)
        instance.create_run_for_job(
            build_defs().resolve_job_def("process_batch"),
            status=DagsterRunStatus.FAILURE,
            tags={history.PARTITION_TAG: bad.name},
        )
    assert len(keys_asked) == MAX_FAILED_RUNS  # a used run key would be skipped for ever
    assert reconciled(instance) == []


def test_an_upload_that_is_gone_is_marked_deleted_and_a_new_one_undoes_it(
    settings: Settings, lake: Storage, instance: dg.DagsterInstance, put: Put, run: RunBatch
) -> None:
    assert run(put({"a.pdf": numbered(1)})).success
    lake.delete(["inbox/a.pdf"])
    (request,) = reconciled(instance)
    gone = batches.read(lake, str(request.partition_key))
    assert gone.deleted == ("inbox/a.pdf",)
    assert run(gone).success
    assert deleted(settings) == [True]
    assert reconciled(instance) == []  # told once
    assert run(put({"a.pdf": numbered(2)})).success
    assert deleted(settings) == [False]


def test_an_upload_in_the_second_of_its_deletion_is_shown_in_whatever_order_their_batches_run(
    settings: Settings, lake: Storage, instance: dg.DagsterInstance, put: Put, run: RunBatch
) -> None:
    assert run(put({"a.pdf": numbered(1)})).success
    lake.delete(["inbox/a.pdf"])
    (gone,) = reconciled(instance)
    lake.write("inbox/a.pdf", numbered(2))
    cut = {str(request.partition_key) for request in reconciled(instance)} - {gone.partition_key}
    for name in [*cut, str(gone.partition_key)]:
        assert run(batches.read(lake, name)).success
    assert deleted(settings) == [False]


@pytest.mark.parametrize("settings", ["local"], indirect=True)
def test_an_inbox_that_was_away_for_a_moment_hides_nothing_once_it_is_back(
    settings: Settings, lake: Storage, instance: dg.DagsterInstance, put: Put, run: RunBatch, tmp_path: Path
) -> None:
    assert run(put({"a.pdf": numbered(1)})).success
    inbox = Path(settings.lake) / "inbox"
    inbox.rename(tmp_path / "away")
    (gone,) = reconciled(instance)
    assert run(batches.read(lake, str(gone.partition_key))).success
    assert deleted(settings) == [True]
    (tmp_path / "away").rename(inbox)
    (back,) = reconciled(instance)
    assert run(batches.read(lake, str(back.partition_key))).success
    assert deleted(settings) == [False]
    assert reconciled(instance) == []


def deleted(settings: Settings) -> list[bool]:
    with wiring.warehouse(settings).read() as connection:
        return [row[0] for row in connection.execute("SELECT deleted_at IS NOT NULL FROM ocr.documents").fetchall()]


def test_a_look_is_bounded_by_what_is_new_and_not_by_what_is_known(settings: Settings, lake: Storage) -> None:
    lake.write("inbox/a.pdf", numbered(1))
    first = run_tick(lake, wiring.intake(settings), None)
    moved = json.loads(first.cursor)
    assert list(moved) == ["inbox/"]
    assert keys.batch(first.batches[0].name) in [info.key for info in lake.list(keys.BATCHES)]
