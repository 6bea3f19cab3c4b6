"""Errors that are the user's to mend: shown as one sentence, exit code 2."""

from __future__ import annotations

import errno

from filelock import Timeout
from sqlalchemy.exc import OperationalError

from ocr_pipeline.intake.sources import SourceError
from ocr_pipeline.lake.queue import QueueError
from ocr_pipeline.lake.storage import StorageError
from ocr_pipeline.ocr.engines.engine import EngineError
from ocr_pipeline.ocr.vllm.backends_file import ConfigError
from ocr_pipeline.runs.instance import HomeError
from ocr_pipeline.warehouse.errors import WarehouseError

CONFIGURATION = (StorageError, QueueError, ConfigError, EngineError, WarehouseError, SourceError, HomeError, Timeout)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def message(error: Exception) -> str | None:
    """What to tell; None for an error that is a bug of ours."""
    if isinstance(error, Timeout):
        return f"another process has held {error.lock_file} for two minutes: wait, or end it, and run this again"
    if isinstance(error, OperationalError):  # of Dagster's SQLite or Postgres: lake and tables have errors of their own
        return (
            f"Dagster's history cannot be read or written: {str(error.orig).strip()}; look whether the disk of "
            "DAGSTER_HOME is full, or its Postgres away, and run this again"
        )
    if isinstance(error, OSError) and error.errno in FULL:
        return f"{error.filename or 'a file'} cannot be written: {error.strerror}; make room, and run this again"
    return str(error) if isinstance(error, CONFIGURATION) else None
