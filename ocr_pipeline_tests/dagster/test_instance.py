"""Dagster's history on a laptop: made whole, found again, and mended after a kill in the middle of making it."""

from __future__ import annotations

import multiprocessing
import shutil
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from dagster._core.run_coordinator import QueuedRunCoordinator

from ocr_pipeline.runs import instance
from ocr_pipeline.settings import Settings

pytestmark = pytest.mark.parametrize("settings", ["local"], indirect=True)


def use(_: int = 0) -> bool:
    with instance.instance(Settings()) as opened:
        opened.add_dynamic_partitions("batches", ["one"])
        return opened.get_dynamic_partitions("batches") == ["one"]


def test_the_history_is_made_once_and_found_again(settings: Settings) -> None:
    assert use()
    assert use()
    assert (instance.home(settings) / "dagster.yaml").exists()


def test_a_dagster_home_that_is_not_there_is_made_with_our_settings_and_one_of_others_is_left_as_it_is(
    settings: Settings, tmp_path: Path
) -> None:
    made = Settings(dagster_home=tmp_path / "deep" / "home")
    for _ in range(2):
        assert instance.home(made) == tmp_path / "deep" / "home"
        with instance.instance(made) as opened:
            assert type(opened.run_launcher).__name__ == "LocalRunLauncher"
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    instance.home(Settings(dagster_home=theirs))
    assert [path.name for path in theirs.iterdir()] == ["dagster.yaml"]


def test_a_configuration_that_is_put_into_a_home_of_ours_later_stays(settings: Settings, tmp_path: Path) -> None:
    ours = Settings(dagster_home=tmp_path / "home")
    config = instance.home(ours) / "dagster.yaml"
    config.unlink()
    config.write_text("telemetry: {enabled: false}\n")
    assert (instance.home(ours) / "dagster.yaml").read_text() == "telemetry: {enabled: false}\n"


def test_a_home_that_cannot_be_made_says_where_and_what_to_do(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(instance.HomeError, match=r"set OCR_DATA or DAGSTER_HOME") as told:
        instance.home(Settings(dagster_home=tmp_path / "file" / "home"))
    assert str(tmp_path / "file") in str(told.value)


@pytest.mark.parametrize("lost", ["history/runs/index.db", "schedules", "half"])
def test_files_that_a_kill_left_half_made_are_made_anew(settings: Settings, lost: str) -> None:
    use()
    folder = instance.home(settings)
    (folder / instance.MADE).unlink()  # the kill came before the end
    if lost == "half":
        (folder / "history" / "runs.db").write_bytes((folder / "history" / "runs.db").read_bytes()[:3000])
    elif (folder / lost).is_dir():
        shutil.rmtree(folder / lost)
    else:
        (folder / lost).unlink()
    with instance.instance(Settings()) as opened:
        opened.add_dynamic_partitions("batches", ["two"])
        assert "two" in opened.get_dynamic_partitions("batches")


def test_several_processes_may_make_it_at_once(settings: Settings) -> None:
    # not multiprocessing's Pool: its `terminate` waits for ever now and then, with all answers there
    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert list(pool.map(use, range(3))) == [True, True, True]


def test_the_queue_is_looked_at_each_second_and_two_runs_go_at_once(settings: Settings) -> None:
    with instance.instance(Settings()) as opened:
        coordinator = opened.run_coordinator
        assert isinstance(coordinator, QueuedRunCoordinator)
        assert coordinator.dequeue_interval_seconds == 1
        queue = opened.get_concurrency_config().run_queue_config
        assert queue is not None
        assert queue.max_concurrent_runs == 2
