"""No OCR: what a born-digital PDF says of itself. Costs nothing.

Here belongs only the cutting of a text layer into lines. The layer has no boxes, so its own order stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ocr_pipeline.ocr.engines.engine import EngineError, RawLine
from ocr_pipeline.records import PageImage, Reason


def layer_lines(layer: str) -> tuple[RawLine, ...]:
    """The layer's lines that have words on them, in its own order."""
    return tuple(RawLine(text=line.strip()) for line in layer.splitlines() if line.strip())


class TextLayerEngine:
    """The text layer of the page, a line of it as a line; a page without one fails with `empty_text`."""

    name = "text_layer"
    model = "text layer"
    workers = 32

    @property
    def asked(self) -> Mapping[str, Any]:
        return {}

    async def read(self, image: PageImage) -> tuple[RawLine, ...]:
        lines = layer_lines(image.text_layer)
        if not lines:
            raise EngineError(
                "the page has no text layer, and the engine text_layer reads nothing else: set OCR_CPU_ENGINE=auto",
                Reason.EMPTY_TEXT,
            )
        return lines

    async def aclose(self) -> None:
        return None
