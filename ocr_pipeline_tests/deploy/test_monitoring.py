"""Alerts and dashboard: promtool's checks, and a real Prometheus that scrapes simulated servers, our exporter and
replayed GPU exporters and is asked each query of each panel and alert."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from ocr_pipeline import wiring
from ocr_pipeline.metrics.exporter import Exporter, serve
from ocr_pipeline.settings import Settings
from ocr_pipeline_tests.deploy.a_prometheus import MONITORING, Prometheus, prometheus, require
from ocr_pipeline_tests.deploy.replayed import DCGM, NODE, replayed
from ocr_pipeline_tests.pdfs import numbered
from ocr_pipeline_tests.simulator import Fleet
from ocr_pipeline_tests.simulator.asking import ask_all

MACHINES = {"rtx4090": "rtx-4090", "spark": "dgx-spark"}
DASHBOARD = json.loads((MONITORING / "grafana/dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
ALERTS = [
    rule for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
METRIC = re.compile(r"\b(?:vllm:|ocr_|DCGM_|node_)[A-Za-z0-9_]+(?:\{[^}]*\})?|\bup\{[^}]*\}")

ONLY_ON = {"DCGM_FI_DEV_FB_USED": {"rtx4090"}}
"""The Spark's GPU has no memory of its own."""


def promtool(*arguments: str) -> None:
    done = subprocess.run([require("promtool"), *arguments], cwd=MONITORING, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.cluster
def test_prometheus_takes_the_configuration_and_its_rules() -> None:
    promtool("check", "config", "prometheus.yml")
    promtool("check", "rules", "alerts.yml")


@pytest.mark.cluster
def test_the_alerts_fire_when_they_should_and_only_then() -> None:
    promtool("test", "rules", "alerts.test.yml")


def test_every_alert_has_a_case_in_which_it_fires() -> None:
    cases = yaml.safe_load((MONITORING / "alerts.test.yml").read_text())["tests"]
    firing = {t["alertname"] for case in cases for t in case["alert_rule_test"] if t["exp_alerts"]}
    assert firing == {rule["alert"] for rule in ALERTS}


def test_each_machine_panel_stands_beside_its_twin() -> None:
    for panel in PANELS:
        of_a_machine = any("$backend" in target["expr"] for target in panel["targets"])
        assert (panel.get("repeat"), panel.get("repeatDirection")) == (
            ("backend", "h") if of_a_machine else (None, None)
        )


def test_the_dashboard_lists_the_machines_of_the_backends_file_also_those_that_prometheus_cannot_reach() -> None:
    (machines,) = [variable for variable in DASHBOARD["templating"]["list"] if variable["name"] == "backend"]
    assert machines["query"]["query"] == machines["definition"] == "label_values(ocr_backend_up, backend)"


# ---- a real Prometheus


@dataclass
class Scene:
    prometheus: Prometheus
    fleet: Fleet


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Two simulated servers with traffic, a batch that went through the pipeline to the tables, all exporters."""
    require("prometheus")
    folder = tmp_path_factory.mktemp("monitoring")
    with ExitStack() as stack:
        fleet = stack.enter_context(
            Fleet(rtx4090={"profile": "rtx-4090", "speed": 10}, spark={"profile": "dgx-spark", "speed": 10})
        )
        environment = ingested(folder, fleet)
        stack.enter_context(traffic([server.url for server in fleet]))
        settings = stack.enter_context(settings_of(environment))
        config = wiring.backends(settings)
        assert config
        exporter = Exporter(
            wiring.warehouse(settings),
            config.backends,
            lambda: {"queued": (3, 40), "running": (1, 20)},
            lambda: {"SENSOR": time.time(), "QUEUED_RUN_COORDINATOR": time.time()},
        )
        server, thread = serve(exporter, "127.0.0.1", 0)
        stack.callback(thread.join)
        stack.callback(server.shutdown)
        labels = {name: {"backend": name, "machine": machine} for name, machine in MACHINES.items()}
        targets = {
            "vllm": [(fleet[name].url.removeprefix("http://"), labels[name]) for name in MACHINES],
            "dcgm": [
                (stack.enter_context(replayed(DCGM[machine])), labels[name]) for name, machine in MACHINES.items()
            ],
            "node": [
                (stack.enter_context(replayed(NODE[machine])), labels[name]) for name, machine in MACHINES.items()
            ],
            "ocr_pipeline": [(f"127.0.0.1:{server.server_port}", {})],
        }
        yield Scene(stack.enter_context(prometheus(folder, targets)), fleet)


def ingested(folder: Path, fleet: Fleet) -> dict[str, str]:
    """Documents through the command to the tables, read by both servers; the environment it ran in."""
    papers = folder / "papers"
    papers.mkdir()
    (papers / "small.pdf").write_bytes(numbered(2, "small"))
    (papers / "large.pdf").write_bytes(numbered(24, "large"))  # over 20 pages: to the Spark
    (papers / "broken.pdf").write_bytes(b"%PDF-1.7 and nothing else")
    backends = folder / "backends.toml"
    backends.write_text(fleet.backends_toml(power_usd_per_month=40.0, hardware_usd=3600.0))
    own = {"OCR_DATA": str(folder / "data"), "OCR_BACKENDS": str(backends), "OCR_TEXT_LAYER": "never"}
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OCR_", "R2_", "DAGSTER_"))}
    command = [sys.executable, "-m", "ocr_pipeline", "ingest", str(papers), "--json"]
    done = subprocess.run(command, env={**clean, **own}, capture_output=True, text=True, timeout=200, cwd=folder)
    assert done.returncode == 1, done.stdout + done.stderr  # broken.pdf is rejected
    assert json.loads(done.stdout)["by_status"] == {"ok": 26}
    return own


class traffic:
    """Pages to each server without pause, until the block ends."""

    def __init__(self, urls: Sequence[str], *, at_once: int = 2, **asked: Any) -> None:
        self._stop = threading.Event()
        self._at_once = at_once
        self._asked = asked
        self._threads = [threading.Thread(target=self._send, args=(url,)) for url in urls]

    def _send(self, url: str) -> None:
        number = 0
        while not self._stop.wait(0.1):
            ask_all(url, range(number, number + self._at_once), **self._asked)
            number += self._at_once

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


class settings_of:
    def __init__(self, environment: dict[str, str]) -> None:
        self._patch = pytest.MonkeyPatch()
        self._environment = environment

    def __enter__(self) -> Settings:
        for name, value in self._environment.items():
            self._patch.setenv(name, value)
        return Settings()

    def __exit__(self, *_: object) -> None:
        self._patch.undo()


def as_grafana_asks(expression: str, machine: str) -> str:
    return expression.replace("$backend", machine).replace("$__rate_interval", "20s")


def numbers(result: list[dict[str, Any]]) -> list[float]:
    return [float(sample["value"][1]) for sample in result]


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: str(panel["title"]))
def test_each_query_of_each_panel_returns_data(scene: Scene, panel: dict[str, Any]) -> None:
    for machine in MACHINES if panel.get("repeat") else [""]:
        for target in panel["targets"]:
            expression = as_grafana_asks(target["expr"], machine)
            if any(name in expression and machine not in machines for name, machines in ONLY_ON.items()):
                assert scene.prometheus.query(expression) == []
                continue
            assert scene.prometheus.wait(expression)


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: str(rule["alert"]))
def test_each_series_of_each_alert_is_there_for_each_machine(scene: Scene, rule: dict[str, Any]) -> None:
    selectors = METRIC.findall(rule["expr"])
    assert selectors
    for selector in selectors:
        if 'status=~"failed|skipped"' in selector:
            assert len(scene.prometheus.wait(selector)) == 2
            continue
        found = scene.prometheus.wait(selector)
        backends = {sample["metric"].get("backend", "") for sample in found}
        wanted = {name for name, machine in MACHINES.items() if f'machine="{machine}"' in selector}
        if selector.startswith(("vllm:", "DCGM_", "node_", "ocr_attempts")) or "backend" in selector:
            name = selector.partition("{")[0]
            assert backends == (wanted or ONLY_ON.get(name) or set(MACHINES)), selector


@pytest.mark.slow
@pytest.mark.cluster
def test_nothing_is_wrong_while_all_is_well(scene: Scene) -> None:
    scene.prometheus.wait('count_over_time(up{job="vllm"}[10s]) > 5')
    for rule in ALERTS:
        assert scene.prometheus.query(rule["expr"]) == [], rule["alert"]


@pytest.mark.slow
@pytest.mark.cluster
def test_the_exporter_tells_what_the_tables_hold(scene: Scene) -> None:
    ask = scene.prometheus.wait
    assert numbers(ask('sum(ocr_pages{status="ok"})')) == [26]
    assert numbers(ask('sum(ocr_pages{status="ok",backend="spark"})'))[0] >= 1
    assert numbers(ask('ocr_documents{status="rejected",reason!=""}')) == [1]
    assert numbers(ask("ocr_ledger_missing_pages")) == [0]
    assert numbers(ask('ocr_month_price_usd{backend="spark"}')) == [140]  # 40 + 3600 / 36
    assert numbers(ask('ocr_documents_in_batches{state="queued"}')) == [40]
    assert set(numbers(ask("ocr_source_up"))) == {1}


@pytest.mark.slow
@pytest.mark.cluster
def test_a_hung_and_a_dead_server_are_seen(scene: Scene) -> None:
    """Last in this file: afterwards the scene is spoilt."""
    expressions = {rule["alert"]: rule["expr"] for rule in ALERTS}
    server = scene.fleet["rtx4090"]
    server.set_faults(crawl={"factor": 1e-6})  # so that it holds a page beside the traffic's two at the moment it hangs
    threading.Thread(target=ask_all, args=(server.url, [9999]), kwargs={"timeout": 600}, daemon=True).start()
    scene.prometheus.wait('vllm:num_requests_running{backend="rtx4090"} > 2')
    server.set_faults(hang={"frozen_gauges": True})
    # two minutes of the rule are shortened: what is proved is that a hung server's own metrics look as the rule says
    hung = scene.prometheus.wait(expressions["OcrServerHung"].replace("[2m]", "[5s]"))
    assert {sample["metric"]["backend"] for sample in hung} == {"rtx4090"}
    scene.fleet["spark"].kill()
    down = scene.prometheus.wait(expressions["OcrServerDown"])
    assert {sample["metric"]["backend"] for sample in down} == {"spark"}
    away = scene.prometheus.wait(expressions["OcrBackendNotUsable"])
    assert ("spark", "unreachable") in {(s["metric"]["backend"], s["metric"]["condition"]) for s in away}


@pytest.mark.vllm
def test_each_query_about_vllm_returns_data_from_the_real_server(tmp_path: Path) -> None:
    """Of panels and alerts, asked of a Prometheus that scrapes it under load; .ci/vllm-lab run ... serves one."""
    url = os.environ.get("OCR_TEST_VLLM_URL")
    if not url:
        pytest.skip("OCR_TEST_VLLM_URL is not set; .ci/vllm-lab run ... sets it")
    assert shutil.which("prometheus"), "Prometheus is not installed; Debian has it as `prometheus`"
    queries = [target["expr"] for panel in PANELS for target in panel["targets"] if "vllm:" in target["expr"]]
    assert len(queries) >= 8
    selectors = {selector for rule in ALERTS for selector in METRIC.findall(rule["expr"]) if "vllm:" in selector}
    model = httpx.get(f"{url}/v1/models", trust_env=False).json()["data"][0]["id"]
    targets = {"vllm": [(url.removeprefix("http://"), {"backend": "lab", "machine": "lab"})]}
    with prometheus(tmp_path, targets) as real, traffic([url], model=model, max_tokens=8, at_once=1):
        for query in queries:
            assert real.wait(as_grafana_asks(query, "lab")), query
        for selector in selectors:
            assert real.wait(selector), selector
        assert real.query('up{job="vllm"}')[0]["value"][1] == "1"
