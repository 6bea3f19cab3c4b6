"""The exporter on real parts: a DuckDB file, simulated servers, its own HTTP port."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest
from dagster import DagsterRunStatus
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._daemon.types import DaemonHeartbeat
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from ocr_pipeline.definitions import build_defs
from ocr_pipeline.metrics.exporter import Exporter, serve
from ocr_pipeline.metrics.figures import figures
from ocr_pipeline.metrics.servers import Condition, ServerMonitor
from ocr_pipeline.ocr.vllm.backends import Backend, BackendsConfig
from ocr_pipeline.ocr.vllm.backends_file import load_backends
from ocr_pipeline.runs import daemon, history, requests
from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.load import load_batch
from ocr_pipeline.warehouse.purge import purge
from ocr_pipeline_tests.ocr.vllm.odd_server import Request, http, says, serving
from ocr_pipeline_tests.ocr.vllm.odd_server import backend as odd_backend
from ocr_pipeline_tests.simulator import Fleet
from ocr_pipeline_tests.warehouse.sample_rows import document_id, result, to_tables

QUEUED, STARTED = DagsterRunStatus.QUEUED, DagsterRunStatus.STARTED
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(str(tmp_path / "warehouse.duckdb"), wait_seconds=0.1)


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with Fleet(rtx4090={"profile": "rtx-4090"}, spark={"profile": "dgx-spark"}) as fleet:
        yield fleet


def config_of(fleet: Fleet, tmp_path: Path) -> BackendsConfig:
    path = tmp_path / "backends.toml"
    path.write_text(fleet.backends_toml())
    return load_backends(path, lambda name: None)


def scraped(exporter: Exporter) -> Samples:
    server, thread = serve(exporter, "127.0.0.1", 0)
    try:
        text = httpx.get(f"http://127.0.0.1:{server.server_port}/metrics", trust_env=False).text
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


def test_an_empty_warehouse_has_every_status_at_nought(warehouse: Warehouse) -> None:
    samples = scraped(Exporter(warehouse))
    for status in ("ok", "blank", "fallback", "failed", "skipped"):
        assert of(samples, "ocr_pages", status=status, reason="", backend="") == 0
    assert of(samples, "ocr_ledger_missing_pages") == 0
    assert of(samples, "ocr_source_up", source="warehouse") == 1
    assert not [name for name, _ in samples if name == "ocr_last_loaded_timestamp_seconds"]


def test_a_page_without_a_row_is_missing_from_the_ledger(warehouse: Warehouse) -> None:
    fill(warehouse)
    assert ledger(warehouse) == 0
    with warehouse.session() as connection:
        connection.execute("DELETE FROM ocr.pages WHERE page_number = 1")
    assert ledger(warehouse) > 0


def test_deaths_of_each_listed_backend_stand_at_nought_before_the_first_one(
    fleet: Fleet, warehouse: Warehouse, tmp_path: Path
) -> None:
    """An alert on a series that begins with the first death has nothing to compare it with."""
    samples = scraped(Exporter(warehouse, config_of(fleet, tmp_path).backends))
    for backend in ("rtx4090", "spark"):
        for outcome in ("engine_dead", "connection_lost"):
            assert of(samples, "ocr_attempts", backend=backend, outcome=outcome) == 0


def test_what_a_purge_takes_away_was_no_counter(warehouse: Warehouse) -> None:
    fill(warehouse)
    exporter = Exporter(warehouse, keep_seconds=0)

    def attempts() -> float:
        (metric,) = [metric for metric in exporter.collect() if metric.name == "ocr_attempts"]
        assert metric.type == "gauge"  # a counter that falls counts as a restart, and all of it as new
        return sum(sample.value for sample in metric.samples)

    before = attempts()
    assert before > 0
    purge(warehouse, document_id("a"))
    assert attempts() < before


def test_what_waits_is_counted_in_batches_and_documents_whoever_started_their_runs(tmp_path: Path) -> None:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        job = build_defs().resolve_job_def("process_batch")
        batch = {history.PARTITION_TAG: "2026-01-01-a"}
        place = RemoteRepositoryOrigin(GrpcServerCodeLocationOrigin(host="127.0.0.1", port=1), "__repository__")
        origin = RemoteJobOrigin(place, "process_batch")  # Dagster wants to know whom a queued run would be asked of
        for tags in ({**batch, requests.DOCUMENTS_TAG: "7"}, {history.PARTITION_TAG: "of-a-backfill"}):
            instance.create_run_for_job(job, status=QUEUED, tags=tags, remote_job_origin=origin)
        instance.create_run_for_job(job, status=STARTED, tags=batch)
        instance.create_run_for_job(job, status=STARTED, tags={})  # no batch: another job
        waiting = history.waiting(instance, {"of-a-backfill": 40, "2026-01-01-a": 5}.__getitem__)
    assert waiting == {"queued": (2, 47), "running": (1, 5)}


def test_each_part_of_the_daemon_tells_when_it_was_last_at_work(warehouse: Warehouse, tmp_path: Path) -> None:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        instance.add_daemon_heartbeat(DaemonHeartbeat(1_700_000_000.0, "SENSOR", "an-id"))
        samples = scraped(Exporter(warehouse, heartbeats=lambda: daemon.heartbeats(instance)))
    name = "ocr_daemon_heartbeat_timestamp_seconds"
    assert of(samples, name, daemon="SENSOR") == 1_700_000_000
    assert of(samples, name, daemon="BACKFILL") == 0  # it never was: an alert must see that too
    assert of(samples, "ocr_source_up", source="daemon") == 1


def test_a_port_that_is_taken_is_told_in_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "ocr_pipeline", "metrics", "--port", str(port)],
            env={**os.environ, "OCR_DATA": str(tmp_path / "data")},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1, port {port}" in done.stderr
    assert "Traceback" not in done.stderr


def fill(warehouse: Warehouse) -> None:
    load_batch(warehouse, "batch", to_tables([result("a", batch="batch")]))


def ledger(warehouse: Warehouse) -> float:
    (family,) = [family for family in figures(warehouse) if family.name == "ocr_ledger_missing_pages"]
    return family.samples[0][1]


def test_a_file_that_is_being_loaded_leaves_the_last_figures_and_says_so(warehouse: Warehouse) -> None:
    fill(warehouse)
    exporter = Exporter(warehouse, keep_seconds=0)
    first = {metric.name: metric for metric in exporter.collect()}
    with held_by_another_process(warehouse):
        second = {metric.name: metric for metric in exporter.collect()}
    assert [s.value for s in second["ocr_pages"].samples] == [s.value for s in first["ocr_pages"].samples]
    assert sum(sample.value for sample in second["ocr_pages"].samples) == 2
    assert [sample.value for sample in second["ocr_source_up"].samples] == [0]


@contextmanager
def held_by_another_process(warehouse: Warehouse) -> Iterator[None]:
    hold = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, warehouse.target], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"held\n"
        yield
        process.communicate()


def test_a_source_that_fails_hides_no_other(warehouse: Warehouse) -> None:
    def broken() -> dict[str, tuple[int, int]]:
        raise RuntimeError("Dagster's database is away")

    samples = scraped(Exporter(warehouse, waiting=broken))
    assert of(samples, "ocr_source_up", source="runs") == 0
    assert of(samples, "ocr_source_up", source="warehouse") == 1


def test_the_tables_are_asked_again_only_after_a_while(warehouse: Warehouse) -> None:
    now = [0.0]
    exporter = Exporter(warehouse, keep_seconds=30, clock=lambda: now[0])

    def pages() -> float:
        (family,) = [metric for metric in exporter.collect() if metric.name == "ocr_documents"]
        return sum(sample.value for sample in family.samples)

    assert pages() == 0
    fill(warehouse)
    now[0] = 29
    assert pages() == 0
    now[0] = 31
    assert pages() == 1


def condition_of(backend: Backend, **changes: Any) -> Condition:
    changed = dataclasses.replace(backend, **changes)
    return ServerMonitor([changed]).check()[changed.name].condition


def test_each_server_is_judged_as_we_would_meet_it(fleet: Fleet, warehouse: Warehouse, tmp_path: Path) -> None:
    config = config_of(fleet, tmp_path)
    first = config.backends[0]
    assert condition_of(first) is Condition.WELL
    assert condition_of(first, served_model="another/model") is Condition.MISCONFIGURED
    fleet["spark"].kill()
    samples = scraped(Exporter(warehouse, config.backends))
    assert of(samples, "ocr_backend_up", backend="rtx4090") == 1
    assert of(samples, "ocr_backend_waiting", backend="rtx4090") == 0
    assert of(samples, "ocr_backend_condition", backend="spark", condition="unreachable") == 1
    assert of(samples, "ocr_backend_condition", backend="spark", condition="well") == 0


def test_a_wrong_key_is_told_from_a_server_that_is_down(tmp_path: Path) -> None:
    with Fleet(rtx4090={"profile": "rtx-4090", "api_key": "right"}) as fleet:
        backend = config_of(fleet, tmp_path).backends[0]
        assert condition_of(backend) is Condition.MISCONFIGURED
        assert condition_of(backend, api_key=SecretStr("wrong")) is Condition.MISCONFIGURED
        assert condition_of(backend, api_key=SecretStr("right")) is Condition.WELL


def test_a_server_that_refuses_us_keeps_its_gauges(warehouse: Warehouse, tmp_path: Path) -> None:
    """vLLM guards /v1 with its key, and nothing else: how busy it is can be seen all the same."""
    with Fleet(rtx4090={"profile": "rtx-4090", "api_key": "right"}) as fleet:
        (backend,) = config_of(fleet, tmp_path).backends
        samples = scraped(Exporter(warehouse, [dataclasses.replace(backend, api_key=SecretStr("wrong"))]))
    assert of(samples, "ocr_backend_condition", backend="rtx4090", condition="misconfigured") == 1
    for gauge in ("running", "waiting", "kv_usage"):
        assert of(samples, f"ocr_backend_{gauge}", backend="rtx4090") == 0


@pytest.mark.parametrize("dripping", ["/health", "/v1/models", "/metrics"])
def test_a_server_that_drips_its_answer_is_unreachable_and_holds_up_no_scrape(dripping: str) -> None:
    async def drips(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.path != dripping:
            writer.write(http(200, {"data": [{"id": "deepseek-ocr"}]}))
            return
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b".")
            await writer.drain()
            await asyncio.sleep(0.05)

    async def scene() -> Condition:
        async with serving(drips) as server:
            return await asyncio.wait_for(asyncio.to_thread(condition_of, odd_backend(server.url)), 30)

    assert asyncio.run(scene()) is Condition.UNREACHABLE


@pytest.mark.parametrize(
    ("status", "headers", "condition"),
    [
        (503, (), Condition.UNREACHABLE),
        (302, ("location: https://team.cloudflareaccess.com/cdn-cgi/access/login",), Condition.MISCONFIGURED),
    ],
)
def test_a_login_before_the_server_is_told_from_a_server_that_is_ill(status, headers, condition) -> None:
    async def scene() -> Condition:
        async with serving(says(http(status, "", *headers))) as server:
            return await asyncio.to_thread(condition_of, odd_backend(server.url))

    assert asyncio.run(scene()) is condition
