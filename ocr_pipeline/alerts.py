"""A webhook that gets a POST for each failed run. Off unless OCR_ALERT_WEBHOOK is set.

The payload is documented in the README: it names run, batch and error, and holds no setting and no document's text.
"""

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import httpx

from ocr_pipeline.settings import Settings

ERROR_CHARACTERS = 2000
TIMEOUT = 5.0  # seconds
WAITS = (1.0, 4.0)
"""Seconds before each further attempt. Dagster moves past a failed run whatever the sensor says of it, so what is not
told in this tick is never told; a tick has 60 s for up to five runs."""


def payload(run: dg.DagsterRun, error: str, at: datetime) -> dict[str, Any]:
    """What is posted, as JSON."""
    return {
        "event": "run_failed",
        "at": at.isoformat(),
        "run_id": run.run_id,
        "job": run.job_name,
        "batch": run.tags.get("dagster/partition"),
        "error": error[:ERROR_CHARACTERS],
    }


def what_failed(events: Iterable[dg.DagsterEvent]) -> str:
    """Each failed step with its first cause, one a line; "" where no step failed (a run that died)."""
    lines = []
    for event in events:
        error = event.step_failure_data.error
        while error is not None and error.cause is not None and "ExceptionGroup" not in (error.cause.cls_name or ""):
            error = error.cause
        lines.append(f"{event.step_key}: {(error.message if error else event.message or '').strip()}")
    return "\n".join(lines)


def alert_on_failure(settings: Settings) -> dg.SensorDefinition | None:
    """The sensor, or None where no webhook is set."""
    if settings.alert_webhook is None:
        return None
    url = settings.alert_webhook.get_secret_value()

    @dg.run_failure_sensor(
        name="alert_on_failure",
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Posts a JSON object to OCR_ALERT_WEBHOOK for each run that failed.",
    )
    def alert(context: dg.RunFailureSensorContext) -> None:
        error = what_failed(context.get_step_failure_events()) or context.failure_event.message or ""
        _post(url, payload(context.dagster_run, error, datetime.now(UTC)))

    return alert


class AlertNotDelivered(Exception):
    """The webhook did not accept an alert; the tick is shown as failed."""


def _post(url: str, said: dict[str, Any]) -> None:
    """Raises AlertNotDelivered when no attempt was accepted."""
    why = ""
    for wait in (0.0, *WAITS):
        time.sleep(wait)
        try:
            httpx.post(url, json=said, timeout=TIMEOUT, trust_env=False).raise_for_status()
            return
        except httpx.HTTPStatusError as error:
            why = f"HTTP {error.response.status_code}"
        except httpx.HTTPError as error:
            why = type(error).__name__
    # the address may hold a token: neither it nor httpx's own error, which has it, is shown
    raise AlertNotDelivered(
        f"the webhook of OCR_ALERT_WEBHOOK did not accept the alert for run {said['run_id']} in {1 + len(WAITS)} "
        f"attempts: {why}"
    )
