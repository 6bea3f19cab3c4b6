"""A run launcher for one machine that notices dead runs; named in dagster.yaml.

Launching is Dagster's own. What is added is the health check, which Dagster's default launcher does not have: after
`kill -9` of the whole `dagster dev` tree its runs stay STARTED for ever. With run monitoring on, the daemon asks this
check, marks dead runs failed and starts them again (`run_retries`).
"""

from __future__ import annotations

from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster._core.launcher.default_run_launcher import DefaultRunLauncher
from dagster._core.storage.dagster_run import DagsterRun

from ocr_pipeline.runs.liveness import Life, life_of
from ocr_pipeline.runs.locks import lock_of
from ocr_pipeline.settings import Settings


class LocalRunLauncher(DefaultRunLauncher):
    """Dagster's default launcher with a health check by host, process id and start time, or by the run's lock."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        record = self._instance.get_run_record_by_id(run.run_id)
        if record is None:
            return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "the run is gone")
        # the record's tags, not the caller's: the stamp may have come after the caller read the run
        lock = lock_of(Settings().claims, run.run_id)
        life = life_of(run.run_id, record.dagster_run.tags, record.start_time, lock)
        if life is Life.DEAD:
            lock.unlink(missing_ok=True)
            return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "the process that worked on this run is gone")
        # the monitor takes every status but RUNNING for a dead run, UNKNOWN too
        return CheckRunHealthResult(WorkerStatus.RUNNING)
