"""The webhook of failed runs, and the retry job, on a real server and a real instance."""

from __future__ import annotations

import json
import os
import threading
import traceback
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterEventType
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin

from ocr_pipeline import alerts, wiring
from ocr_pipeline.alerts import alert_on_failure
from ocr_pipeline.definitions import build_defs
from ocr_pipeline.lake import batches
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.settings import Settings
from ocr_pipeline_tests.dagster.conftest import Put, RunBatch
from ocr_pipeline_tests.pdfs import numbered

pytestmark = pytest.mark.parametrize("settings", ["local"], indirect=True)


class Webhook(ThreadingHTTPServer):
    """Accepts alerts, but for the statuses that it is told to answer first; or never comes to the end of an answer."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.statuses: list[int] = []
        self.asked: list[str] = []
        """The run of every alert that came, accepted or not."""
        self.accepted: list[dict[str, Any]] = []
        self.drips = False
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook"

    def runs(self) -> list[str]:
        return [said["run_id"] for said in self.accepted]


class Answering(BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self) -> None:
        said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        while self.server.drips and not self.server.closing.wait(0.05):
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.server.asked.append(said["run_id"])
        status = self.server.statuses.pop(0) if self.server.statuses else 204
        if status == 204:
            self.server.accepted.append(said)
        self.send_response(status)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    server = Webhook()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("OCR_ALERT_WEBHOOK", f"{server.url}?token=hidden")
    yield server
    server.closing.set()
    server.shutdown()
    server.server_close()
    thread.join()


class Alerts:
    """The sensor as the daemon runs it: the cursor of one tick is there in the next, unless it failed."""

    def __init__(self, instance: dg.DagsterInstance, cursor: str | None = None) -> None:
        self._sensor = build_defs(Settings()).get_repository_def().get_sensor_def("alert_on_failure")
        self._instance = instance
        self._cursor = cursor

    def tick(self) -> str:
        context = dg.build_sensor_context(self._instance, cursor=self._cursor)
        said = self._sensor(context)
        self._cursor = context.cursor
        assert isinstance(said, dg.SkipReason)
        return said.skip_message or ""


@pytest.fixture
def sensor(webhook: Webhook, settings: Settings, instance: dg.DagsterInstance) -> Alerts:
    fail(instance)  # before there was a webhook: nobody is told
    alerts = Alerts(instance)
    alerts.tick()
    return alerts


def fail(instance: dg.DagsterInstance, why: str = "it was meant to", **of: Any) -> str:
    """A run that has failed; its id."""
    run = instance.create_run_for_job(build_defs().resolve_job_def("process_batch"), **of)
    instance.report_run_failed(run, why)
    return run.run_id


def test_a_failed_run_is_posted_once_with_its_batch_and_what_failed(
    settings: Settings, sensor: Alerts, webhook: Webhook, run: RunBatch, put: Put
) -> None:
    assert not run(put({"a.pdf": numbered(1)}), "ocr_parquet").success  # nothing was rendered: it fails
    sensor.tick()
    sensor.tick()
    (said,) = webhook.accepted
    assert said["event"] == "run_failed"
    assert said["batch"] in list(batches.names(wiring.lake(settings)))
    assert "ocr_parquet: " in said["error"]
    assert "rendered_pages has no record" in said["error"]
    assert set(said) == {"event", "at", "run_id", "job", "batch", "error"}


def test_each_failed_step_is_one_line_however_many_its_error_has(
    sensor: Alerts, webhook: Webhook, instance: dg.DagsterInstance
) -> None:
    @dg.op
    def first() -> None:
        raise ValueError("one\ntwo\r\n\n  three\u2028four")

    @dg.op
    def second() -> None:
        raise ValueError("five")

    @dg.job
    def both() -> None:
        first()
        second()

    assert not both.execute_in_process(instance=instance, raise_on_error=False).success
    sensor.tick()
    (said,) = webhook.accepted
    assert sorted(said["error"].splitlines()) == ["first: ValueError: one two three four", "second: ValueError: five"]


def test_an_alert_that_is_not_accepted_is_posted_again_and_none_is_lost_or_posted_twice(
    sensor: Alerts, webhook: Webhook, instance: dg.DagsterInstance
) -> None:
    failed = [fail(instance) for _ in range(3)]
    webhook.statuses = [503]
    with pytest.raises(alerts.AlertNotDelivered, match="HTTP 503") as raised:
        sensor.tick()
    assert "hidden" not in "".join(traceback.format_exception(raised.value))
    webhook.statuses = [204, 401]
    assert "1 alerts posted; the one for run" in sensor.tick()
    assert webhook.runs() == failed[:1]
    sensor.tick()
    assert webhook.runs() == failed


def test_an_alert_that_is_refused_or_a_day_old_keeps_no_other_back(
    sensor: Alerts, webhook: Webhook, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(instance)
    second = fail(instance)
    webhook.statuses = [413]
    sensor.tick()
    assert webhook.runs() == [second]
    monkeypatch.setattr(alerts, "KEEP_TRYING", timedelta(0))
    fail(instance)
    fourth = fail(instance)
    webhook.statuses = [503]
    sensor.tick()
    assert webhook.runs() == [second, fourth]


def test_an_error_with_half_a_character_is_posted_escaped_and_keeps_no_other_back(
    sensor: Alerts, webhook: Webhook, instance: dg.DagsterInstance
) -> None:
    failed = [fail(instance, why=os.fsdecode(b"no such file: \xff.pdf")), fail(instance)]
    sensor.tick()
    assert webhook.runs() == failed
    assert webhook.accepted[0]["error"] == r"no such file: \udcff.pdf"


@pytest.mark.parametrize("address", ["http://127.0.0.1:99999/hidden", "http://127.0.0.1:1/hidden\udcff"])
def test_a_webhook_address_that_cannot_be_used_is_told_without_the_address(
    settings: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("OCR_ALERT_WEBHOOK", address)
    fail(instance)
    sensor = Alerts(instance)
    sensor.tick()
    fail(instance)
    with pytest.raises(alerts.AlertNotDelivered) as raised:
        sensor.tick()
    assert "hidden" not in "".join(traceback.format_exception(raised.value))
    monkeypatch.setattr(alerts, "KEEP_TRYING", timedelta(0))
    assert sensor.tick() == "0 alerts posted"


def test_an_alert_that_was_refused_is_not_posted_again_while_the_next_one_is_not_accepted(
    sensor: Alerts, webhook: Webhook, instance: dg.DagsterInstance
) -> None:
    first, second = fail(instance), fail(instance)
    webhook.statuses = [400, 503]
    assert f"the one for run {second} not yet: HTTP 503" in sensor.tick()
    webhook.statuses = [503]
    with pytest.raises(alerts.AlertNotDelivered, match="HTTP 503"):
        sensor.tick()
    sensor.tick()
    assert webhook.asked == [first, second, second, second]


def storage_ids(instance: dg.DagsterInstance) -> list[int]:
    """Of all failures, newest first."""
    return [r.storage_id for r in instance.fetch_run_status_changes(DagsterEventType.RUN_FAILURE, limit=100).records]


def test_a_failure_that_gets_the_number_of_a_deleted_one_is_posted_and_no_other_again(
    sensor: Alerts, webhook: Webhook, instance: dg.DagsterInstance
) -> None:
    """SQLite gives the highest numbers again once their rows are deleted, as a purge does."""
    stays, goes = fail(instance), fail(instance)
    sensor.tick()
    number = storage_ids(instance)[0]
    instance.delete_run(goes)
    later = [fail(instance)]
    assert storage_ids(instance)[0] == number
    later.append(fail(instance))
    sensor.tick()
    sensor.tick()
    assert webhook.asked == [stays, goes, *later]


def test_a_history_that_begins_anew_keeps_no_alert_back(
    sensor: Alerts, webhook: Webhook, instance: dg.DagsterInstance
) -> None:
    before = [fail(instance) for _ in range(3)]
    sensor.tick()
    instance.wipe()
    after = [fail(instance)]
    sensor.tick()
    after.append(fail(instance))
    sensor.tick()
    assert webhook.asked == before + after


@pytest.mark.parametrize("beyond", [0, 5000])
def test_a_cursor_of_a_number_alone_goes_on_from_there_or_from_the_newest_failure_below(
    webhook: Webhook, settings: Settings, instance: dg.DagsterInstance, beyond: int
) -> None:
    """Such cursors were written before the time stood beside the number."""
    fail(instance)
    sensor = Alerts(instance, cursor=str(storage_ids(instance)[0] + beyond))
    sensor.tick()
    failed = [fail(instance) for _ in range(3)]
    sensor.tick()
    assert webhook.asked == failed


@pytest.mark.timeout(60)
def test_a_webhook_whose_answer_never_ends_holds_up_nobody(
    sensor: Alerts, webhook: Webhook, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "POST_SECONDS", 0.5)
    failed = fail(instance)
    webhook.drips = True
    with pytest.raises(alerts.AlertNotDelivered, match="TimeoutError"):
        sensor.tick()
    webhook.drips = False
    sensor.tick()
    assert webhook.runs()[-1] == failed


def test_what_a_tick_has_no_time_for_is_posted_by_the_next_one(
    sensor: Alerts, webhook: Webhook, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = [fail(instance) for _ in range(2)]
    with monkeypatch.context() as hurried:
        hurried.setattr(alerts, "TICK_SECONDS", alerts.POST_SECONDS)
        sensor.tick()
    assert webhook.runs() == []
    sensor.tick()
    assert webhook.runs() == failed


def test_runs_of_another_code_location_are_not_ours_to_post(
    sensor: Alerts, webhook: Webhook, instance: dg.DagsterInstance
) -> None:
    elsewhere = RemoteRepositoryOrigin(GrpcServerCodeLocationOrigin(host="127.0.0.1", port=1), "__repository__")
    fail(instance, remote_job_origin=RemoteJobOrigin(elsewhere, "process_batch"))
    sensor.tick()
    assert webhook.accepted == []


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
