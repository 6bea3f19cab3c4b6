"""Stores for the tests of this room: a local folder, moto, and Cloudflare's R2 simulator."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocr_pipeline.lake.opening import open_storage
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline_tests.storages import RunningStore


@pytest.fixture(params=["local", "moto", pytest.param("wrangler", marks=pytest.mark.wrangler)])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """An empty lake on each kind of store in turn."""
    if request.param == "local":
        return open_storage(str(tmp_path / "lake"))
    store: RunningStore = request.getfixturevalue(request.param)
    return open_storage(store.new_lake(), store.options)
