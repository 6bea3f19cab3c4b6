"""What a CPU engine is: a way to get lines of text from one page image on this machine.

Here belong the protocol, its error, and the form in which lines are kept. Not here: attempts and transcripts
(`ocr_pipeline.ocr.cpu`), nor what the lines mean together (`ocr_pipeline.ocr.layout.lines_to_page`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypedDict

from ocr_pipeline.records import PageImage, Reason


class EngineError(Exception):
    """An engine could not read a page. The message tells the user what was wrong and what to do."""

    def __init__(self, message: str, reason: Reason = Reason.ENGINE_FAILED) -> None:
        super().__init__(message)
        self.reason = reason


class RawLine(TypedDict, total=False):
    """One item of a raw transcript of format `lines`."""

    text: str
    box: list[float] | list[list[float]]  # pixels: [x0, y0, x1, y1], or four points clockwise from the top left
    score: float  # 0 to 1, as the engine sees it


class Engine(Protocol):
    """Reads one page image. One instance serves many pages at once, on one event loop."""

    @property
    def name(self) -> str:
        """`rapidocr`, `tesseract` or `text_layer`."""
        ...

    @property
    def model(self) -> str:
        """What reads, with its version, for the column `model`."""
        ...

    @property
    def asked(self) -> Mapping[str, Any]:
        """Everything beside the image that decides the text: part of the recipe. JSON values only."""
        ...

    @property
    def workers(self) -> int:
        """Pages it reads at once; the caller sends no more."""
        ...

    async def read(self, image: PageImage) -> tuple[RawLine, ...]:
        """The lines of the page, in any order. Raises `EngineError`; cancelling stops the work or frees its place."""
        ...

    async def aclose(self) -> None: ...


def raw_text(lines: Sequence[RawLine]) -> str:
    """The lines as the raw text of a transcript (`format="lines"`). The same lines always give the same text."""
    return json.dumps(lines, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def usable_cores() -> int:
    """Cores that this process may run on, where the system says so."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1
