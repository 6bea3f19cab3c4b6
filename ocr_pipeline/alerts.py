"""A webhook that gets a POST for each failed run. Off unless OCR_ALERT_WEBHOOK is set.

Dagster's own failure sensor is not used: it moves past a run whatever became of its alert, so that an alert which the
webhook missed is lost for ever, and after a tick that took too long it posts the tick's alerts again. Here the cursor
stands at the last alert that was accepted or given up, so that each is posted until then, and one tick has one
deadline.

The payload is documented in the README: it names run, batch and error, and holds no setting and no document's text.
"""

import asyncio
import re
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import httpx
from dagster import DagsterEventType

from ocr_pipeline.settings import Settings

ERROR_CHARACTERS = 2000
POST_SECONDS = 10.0  # for the whole answer, however it drips

TICK_SECONDS = 45.0
"""No post is begun that could end later. Dagster gives a tick 60 s, and the cursor counts only when it ends in time."""

KEEP_TRYING = timedelta(days=1)
"""From the failure on. Then the alert is given up: it must not keep later ones back for ever."""

REFUSED = frozenset({400, 413, 422})
"""HTTP statuses that are about this alert and no other: it is given up at once."""

AT_ONCE = 100  # failures that are fetched in one tick

SAME_TIME = 0.001
"""Seconds. Dagster compares times in whole microseconds, which a float does not hit exactly."""


def payload(run: dg.DagsterRun, error: str, at: datetime) -> dict[str, Any]:
    """What is posted, as JSON; `at` is when the run failed."""
    return {
        "event": "run_failed",
        "at": at.isoformat(),
        "run_id": run.run_id,
        "job": run.job_name,
        "batch": run.tags.get("dagster/partition"),
        # half a character, as in a path that is not UTF-8, cannot be sent
        "error": error.encode("utf-8", "backslashreplace").decode()[:ERROR_CHARACTERS],
    }


def what_failed(events: Iterable[dg.DagsterEvent]) -> str:
    """Each failed step with its first cause, one per line whatever the cause's text; "" where no step failed (a run
    that died)."""
    lines = []
    for event in events:
        error = event.step_failure_data.error
        while error is not None and error.cause is not None and "ExceptionGroup" not in (error.cause.cls_name or ""):
            error = error.cause
        cause = error.message if error else event.message or ""
        lines.append(f"{event.step_key}: {' '.join(cause.split())}")
    return "\n".join(lines)


class AlertNotDelivered(Exception):
    """The webhook did not accept an alert; the tick is shown as failed, and the next one tries again."""


def alert_on_failure(settings: Settings) -> dg.SensorDefinition | None:
    """The sensor, or None where no webhook is set."""
    if settings.alert_webhook is None:
        return None
    url = settings.alert_webhook.get_secret_value()

    @dg.sensor(
        name="alert_on_failure",
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Posts a JSON object to OCR_ALERT_WEBHOOK for each run that failed, until it is accepted.",
    )
    def alert(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        started, posted, before = time.monotonic(), 0, context.cursor or ""
        if before.isdecimal():  # as it was written once, without a time
            context.update_cursor(_cursor_at(_newest(context.instance, before_storage_id=int(before) + 1)))
        elif not re.fullmatch(r"\d+ \d+\.\d+", before):
            context.update_cursor(_cursor_at(_newest(context.instance)))
            return dg.SkipReason("alerts begin with the next run that fails")
        for record in _failures_after(context.instance, context.cursor or ""):
            if time.monotonic() - started > TICK_SECONDS - POST_SECONDS:
                break
            run = context.instance.get_run_by_id(record.run_id)
            if run is not None and _is_ours(run, context):
                failed_at = datetime.fromtimestamp(record.timestamp, UTC)
                said = payload(run, _error(context.instance, record), failed_at)
                status, why = asyncio.run(_post(url, said))
                if why and status not in REFUSED and datetime.now(UTC) - failed_at < KEEP_TRYING:
                    if context.cursor != before:  # Dagster forgets the cursor of a tick that fails
                        return dg.SkipReason(f"{posted} alerts posted; the one for run {run.run_id} not yet: {why}")
                    raise AlertNotDelivered(
                        f"the webhook of OCR_ALERT_WEBHOOK did not accept the alert for run {run.run_id}, and is asked "
                        f"again at the next tick: {why}"
                    )
                if why:
                    context.log.error(f"the alert for run {run.run_id} is given up, the webhook answered: {why}")
                posted += not why
            context.update_cursor(_cursor_at(record))
        return dg.SkipReason(f"{posted} alerts posted")

    return alert


def _cursor_at(failure: dg.EventLogRecord | None) -> str:
    """Storage id and time of a failure; what follows it is not posted yet."""
    return f"{failure.storage_id} {failure.timestamp}" if failure else "0 0.0"


def _newest(instance: dg.DagsterInstance, **before: Any) -> dg.EventLogRecord | None:
    wanted = dg.RunStatusChangeRecordsFilter(DagsterEventType.RUN_FAILURE, **before)
    return next(iter(instance.fetch_run_status_changes(wanted, limit=1).records), None)


def _failures_after(instance: dg.DagsterInstance, cursor: str) -> Sequence[dg.EventLogRecord]:
    """The first failures of runs after the one at which the cursor stands, oldest first.

    SQLite gives the highest ids again once their events are deleted, as `purge` does, and a history that was deleted
    begins at 1. So the id counts no further than the newest failure that is there and no later than the cursor's.
    """
    storage_id, at = cursor.split()
    seen = _newest(instance, before_timestamp=float(at) + SAME_TIME)
    after = min(int(storage_id), seen.storage_id if seen else 0)
    wanted = dg.RunStatusChangeRecordsFilter(DagsterEventType.RUN_FAILURE, after_storage_id=after)
    return instance.fetch_run_status_changes(wanted, limit=AT_ONCE, ascending=True).records


def _is_ours(run: dg.DagsterRun, context: dg.SensorEvaluationContext) -> bool:
    """Whether the run is of this code location: an instance may have others. Runs of the command are of none; it says
    itself what failed."""
    origin, here = run.remote_job_origin, context.code_location_origin
    location = origin.repository_origin.code_location_origin.location_name if origin else None
    return location == (here.location_name if here else None)


def _error(instance: dg.DagsterInstance, failure: dg.EventLogRecord) -> str:
    steps = instance.get_records_for_run(failure.run_id, of_type=DagsterEventType.STEP_FAILURE).records
    events = [event for record in steps if (event := record.event_log_entry.dagster_event) is not None]
    own = failure.event_log_entry.dagster_event
    return what_failed(events) or (own.message if own else None) or ""


async def _post(url: str, said: dict[str, Any]) -> tuple[int | None, str]:
    """HTTP status and why the alert was not accepted, "" where it was."""
    # Whatever goes wrong is about this alert: raised, it would keep all later ones back for ever. The address may hold
    # a token: neither it nor httpx's own error, which has it, is shown.
    try:
        async with (
            asyncio.timeout(POST_SECONDS),
            httpx.AsyncClient(timeout=POST_SECONDS, trust_env=False) as client,
            client.stream("POST", url, json=said) as answer,  # what it says beside the status is not read
        ):
            return answer.status_code, "" if answer.is_success else f"HTTP {answer.status_code}"
    except Exception as error:
        return None, type(error).__name__
