"""Batches through Dagster in this process: what `ingest`, `demo` and `retry` share. One OCR service for all of them;
Ctrl-C ends all of them.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import dagster as dg
from dagster import DagsterRunStatus

from ocr_pipeline import wiring
from ocr_pipeline.commands.display import Display
from ocr_pipeline.definitions import build_defs
from ocr_pipeline.flow.service import OcrService
from ocr_pipeline.records import Batch
from ocr_pipeline.resources import through_dagster_duckdb
from ocr_pipeline.runs import history, reaping, requests
from ocr_pipeline.runs.claims import claim
from ocr_pipeline.runs.locks import held, lock_of
from ocr_pipeline.settings import Settings

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
"""Dagster's console log would tear the progress display; its events are in the UI all the same."""

POLL_SECONDS = 1.0
BEGUN_AHEAD = 3  # batches being read before Dagster comes to them: a load of 10 s must not leave the servers idle


class RunFailed(Exception):
    """Runs of batches failed as a whole; their pages are kept, the same command goes on from there."""

    def __init__(self, why: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {reason}" for name, reason in why.items()))
        self.batches = frozenset(why)


def run_batches(settings: Settings, instance: dg.DagsterInstance, batches: Sequence[Batch], display: Display) -> None:
    """Takes each batch to the tables, urgent ones first. Returns when all are finished.

    Runs of Dagster go one after the other (two in one process lock each other up in its logging); the OCR of the next
    batches is begun while one is read and loaded, older ones first. A batch that another process is working on is
    waited for. `display` shows the progress, and what is waited for. Raises RunFailed with every batch that failed.
    """
    failed: dict[str, str] = {}
    with claim(settings.claims, [batch.name for batch in batches]):
        service = wiring.ocr_service(settings, display)
        try:
            warehouse = wiring.warehouse(settings, connect=through_dagster_duckdb, on_wait=display.say)
            job = build_defs(settings, {"ocr": service, "warehouse": warehouse}).resolve_job_def("process_batch")
            ordered = sorted(batches, key=lambda batch: (not batch.urgent, batch.name))
            begun: set[str] = set()
            for place, batch in enumerate(ordered):
                if _done_by_another(instance, batch, settings.claims, display):
                    continue
                _begin(service, instance, batch, ordered[place + 1 : place + 1 + BEGUN_AHEAD], begun)
                if (why := _run(job, instance, batch, settings.claims)) is not None:
                    failed[batch.name] = why
        finally:
            service.close()
    if failed:
        raise RunFailed(failed)


def _begin(
    service: OcrService, instance: dg.DagsterInstance, batch: Batch, following: Sequence[Batch], begun: set[str]
) -> None:
    """Begins to read this batch, and those after it that nobody is working on; `begun` are those begun so far."""
    service.begin(batch)
    begun.add(batch.name)
    for ahead in following:
        if ahead.name not in begun and history.live_run(instance, ahead.name) is None:
            service.begin(ahead)
            begun.add(ahead.name)


def _run(job: dg.JobDefinition, instance: dg.DagsterInstance, batch: Batch, claims: Path) -> str | None:
    """One run of Dagster in this process; None, or why it failed."""
    run_id = str(uuid.uuid4())
    with held(lock_of(claims, run_id)):
        result = job.execute_in_process(
            instance=instance,
            partition_key=batch.name,
            run_id=run_id,
            tags=requests.command_tags(batch, run_id),
            run_config=QUIET,
            raise_on_error=False,
        )
    if result.success:
        return None
    # raise_on_error=False swallows Ctrl-C too: the loop must not go on
    if _interrupted(result):
        raise KeyboardInterrupt
    return _failure_reason(result)


def _done_by_another(instance: dg.DagsterInstance, batch: Batch, claims: Path, display: Display) -> bool:
    """Waits while another process works on this batch; whether it finished it."""
    done = False
    while (run_id := history.live_run(instance, batch.name)) is not None:
        run_in_words = history.describe_run(instance, run_id)
        display.say(f"batch {batch.name}: waiting for run {run_in_words}, which is working on it")
        while (run := instance.get_run_by_id(run_id)) is not None and not run.is_finished:
            reaping.reap(instance, claims)
            time.sleep(POLL_SECONDS)
        done = run is not None and run.status is DagsterRunStatus.SUCCESS
    return done


def _interrupted(result: dg.ExecuteInProcessResult) -> bool:
    errors = [event.step_failure_data.error for event in result.all_events if event.is_step_failure]
    return any(error is not None and "Interrupt" in (error.cls_name or "") for error in errors) or any(
        event.event_type_value == "PIPELINE_CANCELED" for event in result.all_events
    )


def _failure_reason(result: dg.ExecuteInProcessResult) -> str:
    for event in result.all_events:
        if event.is_step_failure:
            error = event.step_failure_data.error
            # Dagster's own wrappers around what a step raised; what that was raised from is older, and says less
            while error is not None and error.cause is not None and (error.cls_name or "").startswith("Dagster"):
                error = error.cause
            return (error.message if error else event.message or "a step failed").strip()
    for event in result.all_events:
        if event.is_failure:
            return (event.message or "the run failed").strip()
    return "the run failed"
