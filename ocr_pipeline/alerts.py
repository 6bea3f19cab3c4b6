"""A webhook that is told of failed runs. Off unless OCR_ALERT_WEBHOOK is set.

The payload is documented in the README: it names run, batch and error, and holds no setting and no document's text.
"""

from datetime import UTC, datetime
from typing import Any

import dagster as dg
import httpx

from ocr_pipeline.settings import Settings

ERROR_CHARACTERS = 2000
TIMEOUT = 10.0  # seconds


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
    def alert(context: dg.RunFailureSensorContext) -> dg.SkipReason | None:
        said = payload(context.dagster_run, context.failure_event.message or "", datetime.now(UTC))
        try:
            httpx.post(url, json=said, timeout=TIMEOUT, trust_env=False).raise_for_status()
        except httpx.HTTPError as error:
            # the address may hold a token: it is not told
            return dg.SkipReason(f"the webhook did not take the alert: {type(error).__name__}")
        return None

    return alert
