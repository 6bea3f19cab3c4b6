"""What intake must know: where it works, how uploads are found, how batches are cut."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from ocr_pipeline.lake.planner import BatchLimits


@dataclass(frozen=True, slots=True)
class IntakeOptions:
    """Made from the settings in `wiring.py`."""

    data: Path  # local folder: the lock of this machine, and the indexes of batch lists
    inbox: str = "inbox/"
    ordered: bool = False  # keys that sort by time, listed from their end; else the whole inbox
    overlap: timedelta = timedelta(hours=1)  # to look back: longer than the slowest upload
    settle: timedelta = timedelta(0)  # quiet time of a file before it is taken; a bucket's objects are whole
    limits: BatchLimits = field(default_factory=BatchLimits)

    @property
    def index(self) -> Path:
        """The folder in which each lake has its index of batch lists."""
        return self.data / "batch-lists"
