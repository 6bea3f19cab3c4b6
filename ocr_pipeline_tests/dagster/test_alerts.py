"""The webhook of failed runs, and the retry job, on a real server and a real instance."""

from __future__ import annotations

import json
import threading
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import dagster as dg
import pytest

from ocr_pipeline import alerts, wiring
from ocr_pipeline.alerts import alert_on_failure
from ocr_pipeline.definitions import build_defs
from ocr_pipeline.lake import batches
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.settings import Settings
from ocr_pipeline_tests.dagster.conftest import Put, RunBatch
from ocr_pipeline_tests.pdfs import numbered

pytestmark = pytest.mark.parametrize("settings", ["local"], indirect=True)


@pytest.fixture
def answers() -> list[int]:
    """HTTP statuses that the server gives before it takes an alert."""
    return []


@pytest.fixture
def hook(answers: list[int]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    got: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if answers:
                self.send_response(answers.pop(0))
            else:
                got.append(said)
                self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook", got
    server.shutdown()
    thread.join()


def failed_context(instance: dg.DagsterInstance, run: RunBatch, put: Put) -> dg.RunFailureSensorContext:
    result = run(put({"a.pdf": numbered(1)}), "ocr_parquet")  # nothing was rendered: it fails
    assert not result.success
    return dg.build_run_status_sensor_context(
        sensor_name="alert_on_failure",
        dagster_instance=instance,
        dagster_run=result.dagster_run,
        dagster_event=next(event for event in result.all_events if event.is_run_failure),
    ).for_run_failure()


def test_a_failed_run_is_told_to_the_webhook(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    instance: dg.DagsterInstance,
    run: RunBatch,
    put: Put,
    hook: tuple[str, list[dict[str, Any]]],
) -> None:
    url, got = hook
    monkeypatch.setenv("OCR_ALERT_WEBHOOK", url)
    sensor = alert_on_failure(Settings())
    assert sensor is not None
    sensor(failed_context(instance, run, put))
    (said,) = got
    assert said["event"] == "run_failed"
    assert said["batch"] in list(batches.names(wiring.lake(settings)))
    assert set(said) == {"event", "at", "run_id", "job", "batch", "error"}


def test_an_alert_says_what_failed_and_is_told_again_until_it_is_taken(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    instance: dg.DagsterInstance,
    run: RunBatch,
    put: Put,
    hook: tuple[str, list[dict[str, Any]]],
    answers: list[int],
) -> None:
    url, got = hook
    monkeypatch.setenv("OCR_ALERT_WEBHOOK", f"{url}?token=hidden")
    monkeypatch.setattr(alerts, "WAITS", (0.0, 0.0))
    sensor = alert_on_failure(Settings())
    assert sensor is not None
    context = failed_context(instance, run, put)
    answers[:] = [503, 500]
    sensor(context)
    (said,) = got
    assert "ocr_parquet: " in said["error"]
    assert "rendered_pages has no record" in said["error"]
    answers[:] = [503, 503, 502]
    with pytest.raises(Exception, match="HTTP 502") as raised:
        sensor(context)
    assert "hidden" not in "".join(traceback.format_exception(raised.value))


def test_without_a_webhook_there_is_no_sensor(settings: Settings) -> None:
    assert alert_on_failure(settings) is None
    assert {sensor.name for sensor in build_defs(settings).sensors or []} == {"upload_sensor"}


def test_the_retry_job_writes_batch_lists_that_the_sensor_takes_up(
    settings: Settings, lake: Storage, instance: dg.DagsterInstance, run: RunBatch, put: Put
) -> None:
    done = put({"broken.pdf": b"%PDF-1.7 nothing"})
    assert run(done).success
    config = {"ops": {"write_retry_batches": {"config": {"reasons": ["damaged"]}}}}
    job = build_defs(settings).resolve_job_def("retry_failed")
    assert job.execute_in_process(instance=instance, run_config=config).success
    fresh = [name for name in batches.names(lake) if name != done.name]
    assert len(fresh) == 1
    assert fresh[0] > done.name
    assert not instance.has_dynamic_partition("batches", fresh[0])
