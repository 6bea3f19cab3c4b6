"""Errors that are the user's to mend: shown as one sentence, exit code 2."""

from __future__ import annotations

from ocr_pipeline.lake.storage import StorageError
from ocr_pipeline.ocr.backends import ConfigError
from ocr_pipeline.warehouse.errors import WarehouseError

CONFIGURATION = (StorageError, ConfigError, WarehouseError)
