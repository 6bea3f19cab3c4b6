"""The launcher's health check: what a worker's answer, its silence and a broker that is away mean for a run.

Workers are answers here; that real ones answer so is shown by test_cluster.py.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
import pytest

from ocr_pipeline_tests.deploy.files import needs

pytestmark = pytest.mark.cluster
needs("dagster_celery")

from dagster._core.launcher.base import WorkerStatus  # noqa: E402
from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG  # noqa: E402

from ocr_pipeline.runs.celery_launcher import WorkerRunLauncher  # noqa: E402
from ocr_pipeline.runs.liveness import HOST_TAG, PID_TAG, STAMPED_TAG, STARTED_TAG, stamp  # noqa: E402

ELSEWHERE = {HOST_TAG: "another-machine", PID_TAG: "7", STARTED_TAG: "1.00"}


@dataclass
class Workers:
    """What the result backend holds of the task, and who answers that it is at work on it."""

    state: str = "STARTED"
    info: Any = field(default_factory=lambda: {"hostname": "ocr@another-machine", "pid": 7})
    at_work: bool = True
    broker_up: bool = True
    asked: list[dict[str, Any]] = field(default_factory=list)

    def AsyncResult(self, task_id: str) -> Workers:
        return self

    @property
    def control(self) -> Workers:
        return self

    def inspect(self, **options: Any) -> Workers:
        if not self.broker_up:
            raise ConnectionError("Error 111 connecting to Redis")
        self.asked.append(options)
        return self

    def query_task(self, task_id: str) -> dict[str, Any] | None:
        return {"ocr@another-machine": {task_id: ["active", {}]}} if self.at_work else None


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def launcher_of(instance: dg.DagsterInstance, workers: Workers, silence: float) -> WorkerRunLauncher:
    launcher = WorkerRunLauncher(silence_seconds=silence, default_queue="dagster", broker="memory://", backend=None)
    launcher.celery = workers  # type: ignore[assignment]
    launcher.register_instance(instance)
    return launcher


def run_with(instance: dg.DagsterInstance, **tags: str) -> dg.DagsterRun:
    run = dg.DagsterRun(job_name="process_batch", status=dg.DagsterRunStatus.STARTED, tags=tags)
    own = {STAMPED_TAG: run.run_id} if PID_TAG in tags else {}
    return instance.add_run(run.with_tags({**tags, **own}))


def elsewhere(instance: dg.DagsterInstance) -> dg.DagsterRun:
    return run_with(instance, **ELSEWHERE, **{DAGSTER_CELERY_TASK_ID_TAG: "task"})


def test_a_worker_on_another_machine_that_is_at_work_is_alive_and_only_it_is_asked(
    instance: dg.DagsterInstance,
) -> None:
    workers = Workers()
    launcher = launcher_of(instance, workers, silence=0)
    assert launcher.check_run_worker_health(elsewhere(instance)).status is WorkerStatus.RUNNING
    assert workers.asked == [{"timeout": 3.0, "destination": ["ocr@another-machine"], "limit": 1}]


def test_a_worker_that_says_nothing_is_given_time_and_then_taken_for_dead(instance: dg.DagsterInstance) -> None:
    run = elsewhere(instance)
    patient = launcher_of(instance, Workers(at_work=False), silence=3600)
    assert patient.check_run_worker_health(run).status is WorkerStatus.RUNNING
    done_waiting = launcher_of(instance, Workers(at_work=False), silence=0)
    verdict = done_waiting.check_run_worker_health(run)
    assert verdict.status is WorkerStatus.NOT_FOUND
    assert "ocr@another-machine does not say that it is at work" in (verdict.msg or "")


@pytest.mark.parametrize("sign_of_life", [True, False])
def test_a_sign_of_life_ends_the_silence(instance: dg.DagsterInstance, sign_of_life: bool) -> None:
    run, workers = elsewhere(instance), Workers(at_work=False)
    launcher = launcher_of(instance, workers, silence=0.1)
    assert launcher.check_run_worker_health(run).status is WorkerStatus.RUNNING
    time.sleep(0.2)  # longer than the silence that is allowed
    if sign_of_life:
        workers.at_work = True
        launcher.check_run_worker_health(run)
        workers.at_work = False
    verdict = launcher.check_run_worker_health(run).status
    assert verdict is (WorkerStatus.RUNNING if sign_of_life else WorkerStatus.NOT_FOUND)


def test_a_broker_that_is_away_kills_no_run(instance: dg.DagsterInstance) -> None:
    launcher = launcher_of(instance, Workers(broker_up=False), silence=0)
    assert launcher.check_run_worker_health(elsewhere(instance)).status is WorkerStatus.RUNNING


def test_a_task_whose_child_process_was_lost_is_dead_at_once(instance: dg.DagsterInstance) -> None:
    workers = Workers(state="FAILURE", info=RuntimeError("Worker exited prematurely: signal 9 (SIGKILL)"))
    verdict = launcher_of(instance, workers, silence=3600).check_run_worker_health(elsewhere(instance))
    assert verdict.status is WorkerStatus.NOT_FOUND
    assert "signal 9" in (verdict.msg or "")


@pytest.mark.parametrize("state", ["PENDING", "SUCCESS"])
def test_a_result_that_expired_or_is_a_duplicates_decides_nothing(instance: dg.DagsterInstance, state: str) -> None:
    workers = Workers(state=state, info=None)
    launcher = launcher_of(instance, workers, silence=0)
    assert launcher.check_run_worker_health(elsewhere(instance)).status is WorkerStatus.RUNNING
    assert workers.asked == [{"timeout": 3.0}]  # nobody knows who has it: all are asked
    workers.at_work = False
    assert launcher.check_run_worker_health(elsewhere(instance)).status is WorkerStatus.NOT_FOUND


def test_on_this_machine_the_process_table_decides_and_nobody_is_asked(instance: dg.DagsterInstance) -> None:
    workers = Workers(broker_up=False)
    launcher = launcher_of(instance, workers, silence=3600)
    alive = run_with(instance, **{name: value for name, value in stamp("").items() if name != STAMPED_TAG})
    assert launcher.check_run_worker_health(alive).status is WorkerStatus.RUNNING
    gone = run_with(instance, **{HOST_TAG: socket.gethostname(), PID_TAG: str(2**22 + 1), STARTED_TAG: "1.00"})
    assert launcher.check_run_worker_health(gone).status is WorkerStatus.NOT_FOUND
