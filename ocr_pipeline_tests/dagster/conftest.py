"""The whole pipeline as Dagster sees it: an instance of its own, the lake of the settings, OCR that costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from ocr_pipeline import wiring
from ocr_pipeline.definitions import build_defs
from ocr_pipeline.intake import cutting
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.records import Batch
from ocr_pipeline.runs import requests
from ocr_pipeline.settings import Settings
from ocr_pipeline_tests.storages import RunningStore

Put = Callable[[dict[str, bytes]], Batch]
RunBatch = Callable[..., dg.ExecuteInProcessResult]


@pytest.fixture(params=["local", "moto", pytest.param("wrangler", marks=pytest.mark.wrangler)])
def settings(request: pytest.FixtureRequest, environment: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """OCR that costs nothing, and the lake on a folder, on moto and on Cloudflare's R2 simulator in turn."""
    monkeypatch.setenv("OCR_CPU_ENGINE", "text_layer")
    if request.param != "local":
        store: RunningStore = request.getfixturevalue(request.param)
        for name, value in store.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("OCR_LAKE", store.new_lake())
    return Settings()


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as instance:  # SQLite, as on a laptop
        yield instance


@pytest.fixture
def lake(settings: Settings) -> Storage:
    return wiring.lake(settings)


@pytest.fixture
def put(settings: Settings, lake: Storage, instance: dg.DagsterInstance) -> Put:
    """Uploads files and cuts them into one batch, as the sensor would."""

    def put(files: dict[str, bytes]) -> Batch:
        for name, data in files.items():
            lake.write(f"inbox/{name}", data)
        found = [lake.stat(f"inbox/{name}") for name in files]
        held = cutting.cut_all(lake, [info.as_upload() for info in found if info], wiring.intake(settings))
        (batch,) = {batch.name: batch for batch in held.values()}.values()
        requests.add_partitions(instance, [batch.name])
        return batch

    return put


@pytest.fixture
def run(settings: Settings, instance: dg.DagsterInstance) -> RunBatch:
    """Runs the job, or some of its assets, for one batch."""

    def run(batch: Batch, *assets: str) -> dg.ExecuteInProcessResult:
        job = build_defs(settings).resolve_job_def("process_batch")
        return job.execute_in_process(
            instance=instance,
            partition_key=batch.name,
            asset_selection=[dg.AssetKey(name) for name in assets] or None,
            raise_on_error=False,
        )

    return run
