"""Runs that nobody works on are ended: by the launcher's health check, and by the command where there is no daemon."""

from __future__ import annotations

import subprocess
import sys
import time

import dagster as dg
import psutil
import pytest
from dagster import DagsterRunStatus
from dagster._core.launcher.base import WorkerStatus

from ocr_pipeline.definitions import build_defs
from ocr_pipeline.runs import history, reaping
from ocr_pipeline.runs.claims import claim, claimed
from ocr_pipeline.runs.liveness import HOST_TAG, PID_TAG, STAMPED_TAG, STARTED_TAG, is_stamped, stamp
from ocr_pipeline.runs.local_launcher import LocalRunLauncher
from ocr_pipeline.runs.locks import lock_of
from ocr_pipeline.settings import Settings

pytestmark = pytest.mark.parametrize("settings", ["local"], indirect=True)


def a_run(instance: dg.DagsterInstance, status: DagsterRunStatus, tags: dict[str, str]) -> dg.DagsterRun:
    job = build_defs().resolve_job_def("process_batch")
    run = instance.create_run_for_job(job, status=status, tags={history.PARTITION_TAG: "b"})
    own = {STAMPED_TAG: run.run_id} if PID_TAG in tags and STAMPED_TAG not in tags else {}
    instance.add_run_tags(run.run_id, {**tags, **own})
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found


def stamp_of_this_process() -> dict[str, str]:
    return {name: value for name, value in stamp("").items() if name != STAMPED_TAG}


def stamp_of_a_process_that_is_gone() -> dict[str, str]:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    made = {
        **stamp_of_this_process(),
        PID_TAG: str(process.pid),
        STARTED_TAG: f"{psutil.Process(process.pid).create_time():.2f}",
    }
    process.communicate()
    return made


@pytest.mark.parametrize("status", [DagsterRunStatus.STARTED, DagsterRunStatus.NOT_STARTED, DagsterRunStatus.STARTING])
def test_a_run_whose_process_is_gone_is_ended_at_every_stage(
    settings: Settings, instance: dg.DagsterInstance, status: DagsterRunStatus
) -> None:
    dead = a_run(instance, status, stamp_of_a_process_that_is_gone())
    assert history.live_run(instance, "b") == dead.run_id
    assert reaping.reap(instance, settings.claims) == [dead.run_id]
    assert history.live_run(instance, "b") is None


def test_a_run_of_a_living_process_or_of_another_host_is_left_alone(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    a_run(instance, DagsterRunStatus.STARTED, stamp_of_this_process())
    a_run(instance, DagsterRunStatus.STARTED, {**stamp_of_a_process_that_is_gone(), HOST_TAG: "elsewhere"})
    assert reaping.reap(instance, settings.claims) == []


def test_a_run_of_a_container_that_was_started_again_under_another_name_is_known_by_its_free_lock(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    elsewhere = {**stamp_of_a_process_that_is_gone(), HOST_TAG: "the-container-before"}
    run = a_run(instance, DagsterRunStatus.STARTED, elsewhere)
    launcher = LocalRunLauncher()
    launcher.register_instance(instance)
    path = lock_of(settings.claims, run.run_id)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert reaping.reap(instance, settings.claims) == []
    assert launcher.check_run_worker_health(run).status is WorkerStatus.RUNNING
    holder.kill()  # no chance to take anything away
    holder.communicate()
    assert reaping.reap(instance, settings.claims) == [run.run_id]
    assert not path.exists()
    path.touch()
    assert launcher.check_run_worker_health(run).status is WorkerStatus.NOT_FOUND
    assert not path.exists()


HOLD = """
import sys, pathlib
from ocr_pipeline.runs.locks import held
with held(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    input()
"""


def test_who_waits_for_a_run_of_another_machine_is_told_how_to_end_the_wait(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    here = a_run(instance, DagsterRunStatus.STARTED, stamp_of_this_process())
    assert history.describe_run(instance, here.run_id) == here.run_id
    there = a_run(instance, DagsterRunStatus.STARTED, {**stamp_of_this_process(), HOST_TAG: "elsewhere"})
    assert "on elsewhere (if that machine is gone, terminate the run" in history.describe_run(instance, there.run_id)


@pytest.mark.parametrize("job", ["retry_failed", "forget"])
def test_runs_of_the_other_jobs_carry_a_stamp_too_so_that_long_ones_are_not_taken_for_dead(
    settings: Settings, instance: dg.DagsterInstance, job: str
) -> None:
    config = {"ops": {"write_retry_batches": {"config": {"reasons": ["repetition"]}}}} if job == "retry_failed" else {}
    ended = build_defs(settings).resolve_job_def(job).execute_in_process(instance=instance, run_config=config)
    run = instance.get_run_by_id(ended.run_id)
    assert run is not None
    assert is_stamped(run.run_id, run.tags)
    assert not lock_of(settings.claims, run.run_id).exists()


def test_a_process_id_that_was_given_again_does_not_keep_a_run_alive(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    a_run(instance, DagsterRunStatus.STARTED, {**stamp_of_this_process(), STARTED_TAG: "1000000.00"})
    assert len(reaping.reap(instance, settings.claims)) == 1


def test_a_run_that_waits_for_a_daemon_is_ended_only_where_there_is_none(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    from dagster._daemon.types import DaemonHeartbeat

    a_run(instance, DagsterRunStatus.NOT_STARTED, {})
    instance.add_daemon_heartbeat(DaemonHeartbeat(time.time(), "SENSOR", "here", []))
    assert reaping.reap(instance, settings.claims) == []
    instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - 600, "SENSOR", "here", []))
    assert len(reaping.reap(instance, settings.claims)) == 1


def test_the_launchers_health_check_tells_the_dead_from_the_living(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    launcher = LocalRunLauncher()
    launcher.register_instance(instance)
    living = a_run(instance, DagsterRunStatus.STARTED, stamp_of_this_process())
    dead = a_run(instance, DagsterRunStatus.STARTED, stamp_of_a_process_that_is_gone())
    assert launcher.supports_check_run_worker_health
    assert launcher.check_run_worker_health(living).status is WorkerStatus.RUNNING
    assert launcher.check_run_worker_health(dead).status is WorkerStatus.NOT_FOUND


def test_a_retry_that_inherited_its_dead_parents_stamp_is_not_taken_for_dead(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    parent = a_run(instance, DagsterRunStatus.STARTED, stamp_of_a_process_that_is_gone())
    instance.report_run_failed(parent)
    a_run(instance, DagsterRunStatus.STARTED, dict(parent.tags))
    assert reaping.reap(instance, settings.claims) == []


def test_a_command_claims_the_batches_that_it_reads_ahead_of_their_runs(settings: Settings) -> None:
    with claim(settings.claims, ["one", "two"]):
        assert claimed(settings.claims) == {"one", "two"}
        (path,) = settings.claims.glob("*.json")
        left = path.read_text()
    assert claimed(settings.claims) == set()
    path.write_text(left.replace(f'"{stamp("")[HOST_TAG]}"', '"the-container-before"'))
    assert claimed(settings.claims) == {"one", "two"}  # of another machine, for all that can be known
    lock_of(settings.claims, path.stem).touch()
    assert claimed(settings.claims) == set()
    gone = stamp_of_a_process_that_is_gone()
    path.write_text(left.replace(f'"{stamp("")[PID_TAG]}"', f'"{gone[PID_TAG]}"'))
    assert claimed(settings.claims) == set()
    assert not path.exists()
