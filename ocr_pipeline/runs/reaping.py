"""Ends runs that nobody works on. The command does it too, since it may run on a machine without a Dagster daemon."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter

from ocr_pipeline.runs.history import LIVE
from ocr_pipeline.runs.liveness import Life, is_stamped, life_of
from ocr_pipeline.runs.locks import lock_of

log = logging.getLogger(__name__)

NO_DAEMON_AFTER = 120.0
"""Seconds. Daemons report every 30 s; one that has been silent for longer than this is gone."""

WAITING = [DagsterRunStatus.QUEUED, DagsterRunStatus.NOT_STARTED, DagsterRunStatus.STARTING]


def reap(instance: dg.DagsterInstance, claims: Path) -> list[str]:
    """Ends the runs that nobody works on, and frees what they held; returns their ids.

    For the command, which may run where no daemon does it: runs whose process is gone (of this machine, or with a free
    lock in `claims`), and runs that wait for a daemon when there is none.
    """
    daemon = _has_daemon(instance)
    ended = []
    for record in instance.get_run_records(RunsFilter(statuses=LIVE)):
        run = record.dagster_run
        if run.status in WAITING and not is_stamped(run.run_id, run.tags):
            dead, why = not daemon, "It waited for a Dagster daemon, and none is running."
        else:
            dead = life_of(run.run_id, run.tags, record.start_time, lock_of(claims, run.run_id)) is Life.DEAD
            why = "The process that worked on this run is gone."
        if dead:
            log.warning("run %s ended: %s", run.run_id, why)
            instance.report_run_failed(run, why)
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
            lock_of(claims, run.run_id).unlink(missing_ok=True)
            ended.append(run.run_id)
    return ended


def _has_daemon(instance: dg.DagsterInstance) -> bool:
    beats = instance.get_daemon_heartbeats().values()
    return any(time.time() - beat.timestamp < NO_DAEMON_AFTER for beat in beats)
