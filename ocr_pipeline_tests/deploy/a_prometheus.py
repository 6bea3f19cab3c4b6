"""A real Prometheus for tests with the very files of deploy/monitoring; only targets and scrape interval differ."""

from __future__ import annotations

import contextlib
import math
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import yaml

from ocr_pipeline_tests.deploy.files import DEPLOY, free_port, missing

MONITORING = DEPLOY / "monitoring"

Targets = Mapping[str, list[tuple[str, Mapping[str, str]]]]
"""By the name of the file in targets/: host:port with its labels."""


def require(program: str) -> str:
    """Its path, where it is installed; else as `missing`."""
    return shutil.which(program) or missing(f"{program} is not installed")


class Prometheus:
    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(base_url=url, trust_env=False, timeout=10)

    def query(self, expression: str) -> list[dict[str, Any]]:
        answer = self._client.get("/api/v1/query", params={"query": expression})
        assert answer.status_code == 200, f"{expression}: {answer.text}"
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found

    def wait(self, expression: str, seconds: float = 60) -> list[dict[str, Any]]:
        """The first answer that has a number: not empty, and not NaN as a quantile of no requests is."""
        until = time.monotonic() + seconds
        while True:
            found = self.query(expression)
            if any(math.isfinite(float(sample["value"][1])) for sample in found):
                return found
            if time.monotonic() > until:
                raise AssertionError(f"no series within {seconds} s: {expression}\n{self.targets()}")
            time.sleep(0.5)

    def ready(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return self._client.get("/-/ready").status_code == 200
        return False

    def targets(self) -> str:
        active = self._client.get("/api/v1/targets").json()["data"]["activeTargets"]
        return "\n".join(f"{t['scrapeUrl']} {t['health']} {t['lastError']}" for t in active)

    def close(self) -> None:
        self._client.close()


@contextlib.contextmanager
def prometheus(folder: Path, targets: Targets) -> Iterator[Prometheus]:
    program = require("prometheus")
    shutil.copytree(MONITORING, folder / "monitoring")
    config = folder / "monitoring/prometheus.yml"
    text = re.sub(r"(scrape|evaluation)_interval: 15s", r"\1_interval: 1s", config.read_text())
    config.write_text(re.sub("scrape_timeout: 10s", "scrape_timeout: 1s", text))
    for name, listed in targets.items():
        entries = [{"targets": [target], "labels": dict(labels)} for target, labels in listed]
        (folder / f"monitoring/targets/{name}.yml").write_text(yaml.safe_dump(entries))
    port = free_port()
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [program, f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}",
             f"--web.listen-address=127.0.0.1:{port}"],
            stdout=log, stderr=log, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    server = Prometheus(f"http://127.0.0.1:{port}")
    try:
        until = time.monotonic() + 30
        while not server.ready():
            assert process.poll() is None, (folder / "prometheus.log").read_text()
            assert time.monotonic() < until, "Prometheus is not ready"
            time.sleep(0.2)
        yield server
    finally:
        server.close()
        process.terminate()
        process.wait(timeout=20)
