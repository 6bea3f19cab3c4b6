"""`make dev` as people use it: the whole tree of `dagster dev`, a PDF dropped into the inbox, and the tree killed."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.ui import WebDriverWait

from ocr_pipeline import samples
from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline_tests.pdfs import numbered
from ocr_pipeline_tests.review.browser import chromium
from ocr_pipeline_tests.simulator.fleet import Fleet
from ocr_pipeline_tests.whole.dev import dev, until

REPOSITORY = Path(__file__).parents[2]
pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


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
            screenshot(driver, "dagster-asset-graph", "ocr_parquet")
            assert "rendered_pages" in driver.page_source
            assert "Join the Dagster" not in driver.page_source  # it would ask a new profile for an e-mail address
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
            until(lambda: "SUCCESS" in running.batches(), 60, "the run's end")
        asked = sum(page.asked for page in fleet["rtx4090"].stats().pages.values())
        # in flight: on one of two slots, or answered and on the way into the lake
        assert asked <= 40 + 2 + 2, "more than the pages in flight were asked again"
