"""`dagster dev` as the Makefile starts it, for tests that need the whole tree: webserver, daemon, code server, runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from ocr_pipeline_tests.storages import free_port

REPOSITORY = Path(__file__).parents[2]


class Dev:
    """A running `dagster dev`, as the Makefile starts it."""

    def __init__(self, data: Path, **environment: str) -> None:
        self.data = data
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        base = {**os.environ, "OCR_DATA": str(data), **environment}
        home = subprocess.run(
            [sys.executable, "-m", "ocr_pipeline", "dagster-home"],
            env=base, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True,
        ).stdout.strip()  # fmt: skip
        self.log = (data / "dev.log").open("ab")
        self.process = subprocess.Popen(
            [str(Path(sys.executable).with_name("dagster")), "dev", "-w", "workspace.yaml", "--host", "127.0.0.1",
             "--port", str(self.port)],
            env={**base, "DAGSTER_HOME": home}, cwd=REPOSITORY, stdout=self.log, stderr=self.log,
            start_new_session=True,
        )  # fmt: skip

    def ask(self, query: str, **variables: object) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            data: dict[str, Any] = json.loads(answer.read())["data"]
            return data

    def up(self) -> bool:
        try:
            found = self.ask(
                "{ instigationStatesOrError: repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }"
            )
        except OSError:
            return False
        return bool(found["instigationStatesOrError"].get("nodes"))

    def batches(self) -> list[str]:
        """Status of each run."""
        found = self.ask("{ runsOrError { ... on Runs { results { status tags { key value } } } } }")
        return [run["status"] for run in found["runsOrError"]["results"]]

    def kill_tree(self) -> None:
        """kill -9 of every process of the tree, the run's own among them."""
        tree = psutil.Process(self.process.pid)
        doomed = [tree, *tree.children(recursive=True)]
        for process in doomed:
            process.kill()
        psutil.wait_procs(doomed, timeout=20)
        self.process.wait(timeout=20)

    def stop(self) -> None:
        tree = psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(timeout=40)
            except subprocess.TimeoutExpired:
                self.process.kill()
        for process in tree:
            if process.is_running():
                process.kill()
        self.log.close()


@contextmanager
def dev(data: Path, **environment: str) -> Iterator[Dev]:
    data.mkdir(parents=True, exist_ok=True)
    running = Dev(data, **environment)
    try:
        until(running.up, 120, "the webserver")
        yield running
    finally:
        running.stop()


def until(true: Callable[[], bool], seconds: float, what: str) -> float:
    """Waits until it is true; how long that took."""
    started = time.monotonic()
    while not true():
        assert time.monotonic() - started < seconds, f"{what}: not within {seconds} s"
        time.sleep(0.25)
    return time.monotonic() - started
