"""A run launcher for several machines: each run is one Celery task. Named in deploy/celery/dagster.yaml.

Launching is dagster-celery's own. What is added is a health check that notices a dead worker. dagster-celery asks the
result backend only, where the task of a killed worker stays STARTED for ever (dagster-io/dagster, pull request 33493).
Here the worker itself is asked whether it is at work on the task; who says nothing for `silence_seconds` is gone.
A message is acknowledged when its task begins (Celery's default), so the broker never hands a dead worker's run out
again: run monitoring marks it failed and `run_retries` starts another.
Needs the extra `cluster`; nothing else imports this module.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any, Self

from dagster import Field, Noneable
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster._core.storage.dagster_run import DagsterRun
from dagster._serdes import ConfigurableClassData
from dagster_celery.launcher import CeleryRunLauncher
from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG

from ocr_pipeline.runs.liveness import Life, is_stamped, life_of

log = logging.getLogger(__name__)

REPLY_SECONDS = 3.0
"""For a worker's answer. Its main process answers at once however busy its children are."""


class WorkerRunLauncher(CeleryRunLauncher):
    """dagster-celery's launcher with a health check by process stamp (this host) or by asking the workers (others)."""

    def __init__(self, silence_seconds: float = 60.0, **config: Any) -> None:
        super().__init__(**config)
        self._silence_seconds = silence_seconds
        self._silent_since: dict[str, float] = {}  # by run id, the monotonic clock of the first look without a sign

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        silence = Field(
            Noneable(float),
            is_required=False,
            default_value=60.0,
            description="A run is dead when no worker says for so many seconds that it is at work on it.",
        )
        return {**super().config_type(), "silence_seconds": silence}  # type: ignore[dict-item]

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        return cls(inst_data=inst_data, **config_value)

    @property
    def supports_resume_run(self) -> bool:
        return False  # a dead run is run again whole (`run_retries`): pages that were read cost nothing then

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        record = self._instance.get_run_record_by_id(run.run_id)
        if record is None:
            return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "the run is gone")
        tags = record.dagster_run.tags
        if is_stamped(run.run_id, tags):
            life = life_of(run.run_id, tags, record.start_time)
            if life is Life.DEAD:
                return self._dead(run, "the process that worked on this run is gone")
            if life is Life.ALIVE:
                return self._alive(run)
        return self._health_by_workers(run, tags.get(DAGSTER_CELERY_TASK_ID_TAG))

    def _health_by_workers(self, run: DagsterRun, task_id: str | None) -> CheckRunHealthResult:
        try:
            if task_id is None:
                return self._silent(run, "it has no Celery task")
            result = self.celery.AsyncResult(task_id)
            state, info = result.state, result.info
            if state == "FAILURE":  # the worker saw its child die
                return self._dead(run, f"its Celery task failed: {info}")
            worker = info.get("hostname") if isinstance(info, dict) else None
            if self._at_work(task_id, worker):
                return self._alive(run)
        except Exception as error:  # the broker's and the backend's client raise whatever their transports do
            log.warning("run %s: workers cannot be asked now: %s", run.run_id, error)
            return self._alive(run)  # a broker that is away says nothing about workers: their runs go on without it
        return self._silent(run, f"worker {worker or 'unknown'} does not say that it is at work on it")

    def _at_work(self, task_id: str, worker: str | None) -> bool:
        """Whether a worker says it holds this task; the one that began it, or where that is not known any of them."""
        one = {"destination": [worker], "limit": 1} if worker else {}
        answers = self.celery.control.inspect(timeout=REPLY_SECONDS, **one).query_task(task_id) or {}
        return any(task_id in held for held in answers.values() if isinstance(held, dict))

    def _silent(self, run: DagsterRun, what: str) -> CheckRunHealthResult:
        now = time.monotonic()
        silent = now - self._silent_since.setdefault(run.run_id, now)
        if silent >= self._silence_seconds:
            return self._dead(run, f"{what}, for {silent:.0f} s: the worker or its machine is gone")
        # the monitor takes every status but RUNNING and SUCCESS for a dead run, UNKNOWN too
        return CheckRunHealthResult(WorkerStatus.RUNNING)

    def _alive(self, run: DagsterRun) -> CheckRunHealthResult:
        self._silent_since.pop(run.run_id, None)
        return CheckRunHealthResult(WorkerStatus.RUNNING)

    def _dead(self, run: DagsterRun, why: str) -> CheckRunHealthResult:
        self._silent_since.pop(run.run_id, None)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, why)
