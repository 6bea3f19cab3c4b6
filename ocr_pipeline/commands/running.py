"""Batches through Dagster in this process: what `ingest` and `demo` share. One OCR service for all of them, so that the
servers' slots stay busy from one batch to the next; Ctrl-C ends all of them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

import dagster as dg
from dagster import DagsterRunStatus

from ocr_pipeline import runs, wiring
from ocr_pipeline.definitions import build_defs
from ocr_pipeline.flow.progress import Progress
from ocr_pipeline.records import Batch
from ocr_pipeline.settings import Settings

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
"""Dagster's console log would tear the progress display; its events are in the UI all the same."""

BATCHES_AT_ONCE = 2  # the second draws and loads while the first waits for its last pages
POLL_SECONDS = 1.0


class RunFailed(Exception):
    """A batch's run failed as a whole; its pages are kept, the same command goes on from there."""


def run_batches(
    settings: Settings,
    instance: dg.DagsterInstance,
    batches: Sequence[Batch],
    progress: Progress,
    waiting_for: Callable[[str, str], None],
) -> None:
    """Takes each batch to the tables, urgent ones first. Returns when all are finished.

    A batch that another process is working on is waited for. Raises RunFailed with every batch that failed.
    """
    service = wiring.ocr_service(settings, progress)
    stop = threading.Event()
    failed: list[str] = []
    try:
        job = build_defs(settings, {"ocr": service}).resolve_job_def("process_batch")
        with ThreadPoolExecutor(BATCHES_AT_ONCE, thread_name_prefix="batch") as pool:
            pending = {
                pool.submit(_one, instance, job, batch, stop, waiting_for): batch
                for batch in sorted(batches, key=lambda batch: (not batch.urgent, batch.name))
            }
            try:
                while pending:
                    done, _ = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
                    for future in done:
                        batch = pending.pop(future)
                        if (error := future.result()) is not None:
                            failed.append(f"{batch.name}: {error}")
            except BaseException:
                stop.set()
                for future in pending:
                    future.cancel()
                service.cancel_all()
                raise
    finally:
        service.close()
    if failed:
        raise RunFailed("; ".join(failed))


def _one(
    instance: dg.DagsterInstance,
    job: dg.JobDefinition,
    batch: Batch,
    stop: threading.Event,
    waiting_for: Callable[[str, str], None],
) -> str | None:
    """Runs one batch, or waits for the run that another process has; None, or what failed."""
    if stop.is_set():
        return "interrupted"
    while (run_id := runs.live_run(instance, batch.name)) is not None:
        waiting_for(batch.name, run_id)
        while not stop.is_set():
            runs.reap(instance)
            run = instance.get_run_by_id(run_id)
            if run is None or run.is_finished:
                break
            time.sleep(POLL_SECONDS)
        if stop.is_set():
            return "interrupted"
        if run is not None and run.status is DagsterRunStatus.SUCCESS:
            return None
    result = job.execute_in_process(
        instance=instance,
        partition_key=batch.name,
        tags=runs.command_tags(batch),
        run_config=QUIET,
        raise_on_error=False,
    )
    if result.success:
        return None
    return _why(result)


def _why(result: dg.ExecuteInProcessResult) -> str:
    for event in result.all_events:
        if event.is_step_failure:
            error = event.step_failure_data.error
            while error is not None and error.cause is not None:
                error = error.cause
            return (error.message if error else event.message or "a step failed").strip()
    for event in result.all_events:
        if event.is_failure:
            return (event.message or "the run failed").strip()
    return "the run failed"
