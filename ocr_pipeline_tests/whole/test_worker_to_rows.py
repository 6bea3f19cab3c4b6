"""A PDF PUT through the real upload Worker on loopback becomes rows with no other action, by each strategy."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from ocr_pipeline.lake.opening import open_storage
from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline_tests.pdfs import numbered
from ocr_pipeline_tests.queue_stand_in import StandIn
from ocr_pipeline_tests.storages import UPLOAD_SECRET, RunningStore
from ocr_pipeline_tests.whole.dev import dev, until

pytestmark = [pytest.mark.wrangler, pytest.mark.timeout(400)]


@pytest.mark.parametrize("listing", ["sweep", "ordered", "queue"])
def test_a_pdf_put_through_the_worker_arrives_as_rows(
    tmp_path: Path, wrangler: RunningStore, events_queue: StandIn, listing: str
) -> None:
    assert wrangler.worker_url
    storage = open_storage("s3://docs", wrangler.options)
    storage.delete([info.key for prefix in ("inbox/", "batches/") for info in storage.list(prefix)])
    events_queue.waiting.clear()
    environment = {
        **wrangler.environment(),
        "OCR_LAKE": "s3://docs",
        "OCR_CPU_ENGINE": "text_layer",
        "OCR_LISTING": listing,
        "OCR_QUEUE_API_URL": events_queue.url,
        "R2_ACCOUNT_ID": events_queue.account_id,
        "OCR_QUEUE_ID": events_queue.queue_id,
        "OCR_QUEUE_TOKEN": events_queue.token,
    }
    data = tmp_path / "data"
    warehouse = Warehouse(str(data / "warehouse.duckdb"))

    def rows() -> list[tuple[str, str, int]]:
        with warehouse.read() as connection:
            return connection.execute("SELECT source_uri, status, page_count FROM ocr.documents").fetchall()

    with dev(data, **environment):
        body = numbered(3, f"by {listing}")
        with httpx.Client(base_url=wrangler.worker_url, timeout=60) as worker:
            answer = worker.put(
                "/uploads/report.pdf", content=body, headers={"Authorization": f"Bearer {UPLOAD_SECRET}"}
            )
            answer.raise_for_status()
            took = until(lambda: bool(rows()), 150, "the row")
        key = answer.json()["key"]
        print(f"\nPUT to row by {listing}: {took:.1f} s")
        assert rows() == [(f"s3://docs/{key}", "ok", 3)]
    if listing == "queue":
        assert events_queue.waiting == [], "the event was not acknowledged"
