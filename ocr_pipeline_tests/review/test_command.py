"""`ocr-pipeline review` as a process."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from ocr_pipeline import wiring
from ocr_pipeline.commands.review import _ask_again
from ocr_pipeline.lake import batches
from ocr_pipeline.records import Batch, Reason
from ocr_pipeline.review.asking_again import RetryRequest
from ocr_pipeline.settings import Settings
from ocr_pipeline_tests.review.library import BATCH, Library


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", r"127\.0\.0\.1"), ("::1", r"\[::1\]")])
def test_the_command_says_where_it_is_answers_there_and_ends_on_ctrl_c(
    environment: Path, host: str, shown: str
) -> None:
    code = "from ocr_pipeline.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "review", "--port", "0", "--host", host],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ.copy(),
    )
    try:
        assert process.stdout
        found = re.search(rf"http://{shown}:\d+", process.stdout.readline())
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


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    code = "from ocr_pipeline.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, "review", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
        check=False,
    )


def test_a_port_that_is_taken_is_a_usage_error_with_its_mend() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("--port", str(port))
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1, port {port}" in done.stderr
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "address", ["review.example", "ftp://review.example", "http://[::1", "https://review.example/x"]
)
def test_an_address_of_the_review_app_that_is_none_is_a_usage_error(address: str) -> None:
    done = run("--port", "0", OCR_REVIEW_URL=address)
    assert done.returncode == 2
    assert "review_url" in done.stderr.lower()
    assert "Traceback" not in done.stderr


def test_ask_again_of_the_command_writes_a_batch_of_just_those_documents(settings: Settings) -> None:
    lake = wiring.lake(settings)
    for name in ("locked.pdf", "other.pdf"):
        lake.write(f"inbox/{name}", b"%PDF-1.7")
    found = Library(lake, wiring.warehouse(settings))
    uploads = tuple(info.as_upload() for info in lake.list("inbox/"))
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
