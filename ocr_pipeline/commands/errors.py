"""Errors that are the user's to mend: shown as one sentence, exit code 2."""

from __future__ import annotations

from filelock import Timeout

from ocr_pipeline.intake.sources import SourceError
from ocr_pipeline.lake.queue import QueueError
from ocr_pipeline.lake.storage import StorageError
from ocr_pipeline.ocr.engines.engine import EngineError
from ocr_pipeline.ocr.vllm.backends_file import ConfigError
from ocr_pipeline.runs.instance import HomeError
from ocr_pipeline.warehouse.errors import WarehouseError

CONFIGURATION = (StorageError, QueueError, ConfigError, EngineError, WarehouseError, SourceError, HomeError, Timeout)


def message(error: Exception) -> str:
    if isinstance(error, Timeout):
        return f"another process has held {error.lock_file} for two minutes: wait, or end it, and run this again"
    return str(error)
