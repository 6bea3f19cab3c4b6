"""Intake on each kind of store, without Dagster: what is found, cut and marked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from ocr_pipeline.intake import sweeping
from ocr_pipeline.intake.options import IntakeOptions
from ocr_pipeline.intake.sweeping import Swept
from ocr_pipeline.lake import batches
from ocr_pipeline.lake.opening import open_storage
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.records import Batch
from ocr_pipeline_tests.queue_stand_in import StandIn, queue_stand_in
from ocr_pipeline_tests.storages import RunningStore

Sweep = Callable[[], Swept]


@pytest.fixture(params=["local", "moto", pytest.param("wrangler", marks=pytest.mark.wrangler)])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        return open_storage(str(tmp_path / "lake"))
    store: RunningStore = request.getfixturevalue(request.param)
    return open_storage(store.new_lake(), store.options)


@pytest.fixture
def options(tmp_path: Path) -> IntakeOptions:
    return IntakeOptions(tmp_path / "data", overlap=timedelta(hours=1))


@pytest.fixture
def sweep(lake: Storage, options: IntakeOptions) -> Sweep:
    return lambda: sweeping.sweep_everything(lake, options)


@pytest.fixture
def queue() -> Iterator[StandIn]:
    with queue_stand_in() as stand_in:
        yield stand_in


def lists(lake: Storage) -> list[Batch]:
    return sorted(batches.load(lake), key=lambda batch: batch.name)


def taken(lake: Storage) -> list[str]:
    """Every upload in a batch list, once for each list."""
    return sorted(upload.key for batch in lists(lake) for upload in batch.uploads)
