"""`make dev` as people use it: the whole tree of `dagster dev`, a PDF dropped into the inbox, and the tree killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.ui import WebDriverWait

from ocr_pipeline import samples
from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline_tests.pdfs import numbered
from ocr_pipeline_tests.review.browser import chromium
from ocr_pipeline_tests.simulator.fleet import Fleet
from ocr_pipeline_tests.storages import free_port

REPOSITORY = Path(__file__).parents[2]
pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


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


def rows(data: Path, query: str = "SELECT status FROM ocr.documents") -> list[tuple[Any, ...]]:
    with Warehouse(str(data / "warehouse.duckdb")).read() as connection:
        return connection.execute(query).fetchall()


def screenshot(driver: WebDriver, name: str, text: str) -> None:
    """Waits until `text` stands on the page, then keeps its picture as build output."""
    WebDriverWait(driver, 60).until(lambda page: text in page.page_source)
    folder = Path(os.environ.get("OCR_TEST_SCREENSHOTS") or tempfile.mkdtemp(prefix="ocr_pipeline-screenshots-"))
    folder.mkdir(parents=True, exist_ok=True)
    driver.save_screenshot(str(folder / f"{name}.png"))


def test_a_pdf_dropped_into_the_inbox_becomes_rows_and_the_ui_shows_its_batch(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with dev(data, OCR_CPU_ENGINE="text_layer") as running:
        inbox = data / "lake" / "inbox"
        inbox.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(samples.__file__).parent / "two-columns.pdf", inbox / "a b ü.pdf")
        took = until(lambda: bool(rows(data)), 120, "the row")
        print(f"\nPDF dropped to row in the table: {took:.1f} s")
        assert rows(data) == [("ok",)]
        for path in samples.paths():
            shutil.copy(path, inbox)
        until(lambda: len(rows(data)) == 11, 120, "the samples' rows")
        until(lambda: set(running.batches()) == {"SUCCESS"}, 60, "the runs' ends")
        with chromium(tmp_path / "profile", (1500, 1100)) as driver:
            driver.get(f"{running.url}/locations/ocr_pipeline/asset-groups/ocr/lineage")
            WebDriverWait(driver, 60).until(lambda page: "Join the Dagster" in page.page_source)
            driver.find_element("xpath", "//button[contains(., 'Skip')]").click()  # once for a new profile
            screenshot(driver, "dagster-asset-graph", "ocr_parquet")
            assert "rendered_pages" in driver.page_source
            partition = max(row[0] for row in rows(data, "SELECT batch FROM ocr.documents"))
            driver.get(f"{running.url}/assets/ocr_parquet?view=partitions&partition={partition}")
            screenshot(driver, "dagster-batch-metadata", "not_a_pdf")
            driver.get(f"{running.url}/assets/rendered_pages?view=partitions&partition={partition}")
            WebDriverWait(driver, 60).until(lambda page: "first_page" in page.page_source)
            driver.find_element("xpath", "//*[contains(text(), 'Show Markdown')]").click()
            screenshot(driver, "dagster-first-page", "data:image/jpeg")
            picture = driver.find_element("xpath", "//img[starts-with(@src, 'data:image/jpeg')]")
            assert driver.execute_script("return arguments[0].naturalWidth", picture) > 100


def test_a_batch_whose_whole_tree_was_killed_ends_by_itself_after_a_new_start(tmp_path: Path) -> None:
    data = tmp_path / "data"
    server = {"profile": "rtx-4090", "seconds_per_page": 1.0, "max_num_seqs": 2, "mean_tokens": 60}
    with Fleet(rtx4090=server) as fleet:
        backends = tmp_path / "backends.toml"
        backends.write_text(fleet.backends_toml(max_in_flight=2))
        environment = {"OCR_BACKENDS": str(backends)}
        inbox = data / "lake" / "inbox"
        inbox.mkdir(parents=True)
        with dev(data, **environment) as running:
            (inbox / "long.pdf").write_bytes(numbered(40))
            until(lambda: fleet["rtx4090"].stats().answered >= 6, 120, "the first pages")
            running.kill_tree()
        with dev(data, **environment) as running:
            took = until(lambda: rows(data) == [("ok",)], 240, "the batch's end")
            print(f"\nfrom the new start to the row: {took:.1f} s")
            assert "SUCCESS" in running.batches()
        asked = sum(page.asked for page in fleet["rtx4090"].stats().pages.values())
        assert asked <= 40 + 2, "more than the pages in flight were asked again"
