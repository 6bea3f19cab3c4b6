"""`ocr-pipeline review` as a process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx


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
