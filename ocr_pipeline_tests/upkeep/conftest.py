"""What the tests of upkeep share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ocr_pipeline_tests.upkeep.pipeline import Pipeline


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Pipeline]:
    made = Pipeline(tmp_path)
    yield made
    made.service.close()
