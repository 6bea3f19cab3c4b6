"""What every test gets: an environment without the machine's own settings, and data of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ocr_pipeline.settings import Settings


@pytest.fixture(autouse=True)
def environment(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """None of this machine's settings, no .env, and OCR_DATA in a fresh folder, which is returned."""
    for name in os.environ:
        if name.startswith(("OCR_", "R2_", "DAGSTER_")) and not name.startswith(("OCR_TEST_", "OCR_CI")):
            monkeypatch.delenv(name)
    data = tmp_path_factory.mktemp("data")
    monkeypatch.setenv("OCR_DATA", str(data))
    monkeypatch.setenv("DAGSTER_DISABLE_TELEMETRY", "1")
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))
    return data


@pytest.fixture
def settings(environment: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings whose OCR costs nothing: the PDFs' own text."""
    monkeypatch.setenv("OCR_CPU_ENGINE", "text_layer")
    return Settings()
