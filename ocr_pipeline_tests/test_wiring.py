"""What the rooms are given, made from the settings."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import duckdb
import pytest

from ocr_pipeline import wiring
from ocr_pipeline.ocr.transcriber import Transcriber
from ocr_pipeline.resources import through_dagster_duckdb
from ocr_pipeline.settings import Settings
from ocr_pipeline_tests.warehouse.account import Account

BACKENDS = """
[[backend]]
name = "a"
url = "http://127.0.0.1:1"
gpu = "rtx-4090"
model = "deepseek-ai/DeepSeek-OCR"
"""


@pytest.mark.parametrize("engine", ["servers", "rapidocr", "text_layer"])
def test_the_recipe_in_force_is_known_without_a_server_or_a_lake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    monkeypatch.setenv("OCR_LAKE", str(tmp_path))
    if engine == "servers":
        (tmp_path / "backends.toml").write_text(BACKENDS)
        monkeypatch.setenv("OCR_BACKENDS", str(tmp_path / "backends.toml"))
    else:
        monkeypatch.setenv("OCR_CPU_ENGINE", engine)

    async def of_a_run() -> str:
        transcriber: Transcriber = wiring.transcriber(Settings())()
        try:
            return transcriber.recipe_id
        finally:
            await transcriber.aclose()

    recipe = asyncio.run(of_a_run())
    # a store that does not answer: who asks it fails
    monkeypatch.setenv("OCR_LAKE", "s3://bucket")
    monkeypatch.setenv("R2_ENDPOINT_URL", "http://127.0.0.1:1")
    assert wiring.recipe_in_force(Settings()) == recipe


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to cores")
def test_a_process_that_may_run_on_one_core_draws_with_one_worker() -> None:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        assert wiring.stream_options(Settings()).render_workers == 1
    finally:
        os.sched_setaffinity(0, cores)


def test_whatever_opens_motherduck_in_a_process_opens_it_with_the_same_configuration(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An asset goes through dagster-duckdb, a job beside it does not; a second configuration would be refused."""
    account = Account()
    monkeypatch.setattr(duckdb, "connect", account.duckdb_connect)
    monkeypatch.setenv("OCR_WAREHOUSE", "md:scans")
    monkeypatch.setenv("MOTHERDUCK_TOKEN", "t0ken")
    for connect in (through_dagster_duckdb, None):
        with wiring.warehouse(Settings(), connect=connect).session() as connection:
            assert connection.execute("SELECT count(*) FROM ocr.documents").fetchone() == (0,)
    of_scans = [config for name, config in account.opened if name.startswith("md:scans")]
    assert len(of_scans) == 3  # the first did not find it
    assert all(config == of_scans[0] for config in of_scans)
    assert of_scans[0]["motherduck_token"] == "t0ken"
