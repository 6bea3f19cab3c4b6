"""`ocr-pipeline review` as a process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx

from ocr_pipeline import wiring
from ocr_pipeline.commands.review import _ask_again
from ocr_pipeline.lake import batches
from ocr_pipeline.records import Batch, Reason, Upload
from ocr_pipeline.review.asking_again import RetryRequest
from ocr_pipeline.settings import Settings
from ocr_pipeline_tests.review.library import BATCH, Library


def test_the_command_says_where_it_is_answers_there_and_ends_on_ctrl_c(environment: Path) -> None:
    code = "from ocr_pipeline.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "review", "--port", "0"], stdout=subprocess.PIPE, text=True, env=os.environ.copy()
    )
    try:
        assert process.stdout
        found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        assert found
        answer = httpx.get(f"{found[0]}/documents", timeout=60)
        assert answer.status_code == 200
        assert "ocr-pipeline ingest" in answer.text
        process.send_signal(signal.SIGINT)
        assert process.wait(30) in (0, 130)
    finally:
        process.kill()
        process.wait()
    assert not (environment / "warehouse.duckdb").exists()  # looking makes nothing


def test_ask_again_of_the_command_writes_a_batch_of_just_those_documents(settings: Settings) -> None:
    lake = wiring.lake(settings)
    for name in ("locked.pdf", "other.pdf"):
        lake.write(f"inbox/{name}", b"%PDF-1.7")
    found = Library(lake, wiring.warehouse(settings))
    uploads = tuple(Upload(info.key, info.etag, info.size, info.last_modified) for info in lake.list("inbox/"))
    batches.write(lake, Batch(BATCH, uploads))
    locked = found.add("locked.pdf", rejected=Reason.ENCRYPTED)
    found.add("other.pdf", rejected=Reason.ENCRYPTED)
    found.load()

    asked = _ask_again(settings)(RetryRequest((locked,), ("encrypted", "of_next_year")))

    assert len(asked.batches) == 1
    written = batches.read(lake, asked.batches[0])
    assert [upload.key for upload in written.uploads] == ["inbox/locked.pdf"]
    assert written.retry_reasons == (Reason.ENCRYPTED,)
    lake.delete(["inbox/locked.pdf"])
    assert _ask_again(settings)(RetryRequest((locked,), ("encrypted",))).gone == 1
