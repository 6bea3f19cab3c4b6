"""Sets lines of text on a page as an OCR engine would report them: for the tests of the layout."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from ocr_pipeline.ocr.layout.lines_to_page import parse_lines
from ocr_pipeline.records import ParsedPage

WIDTH, HEIGHT = 1240, 1754
BODY = 24.0  # pixels, height of a line's box; one character is half as wide


def line(text: str, x: float, y: float, size: float = BODY) -> dict[str, Any]:
    """A line whose box begins at (x, y)."""
    return {"text": text, "box": [x, y, x + len(text) * size / 2, y + size], "score": 0.99}


def lines(texts: Sequence[str], x: float, y: float, pitch: float = 29.0, size: float = BODY) -> list[dict[str, Any]]:
    return [line(text, x, y + index * pitch, size) for index, text in enumerate(texts)]


def askew(items: Sequence[dict[str, Any]], degrees: float) -> list[dict[str, Any]]:
    """The same lines as four-point boxes on a page that is turned by `degrees` about its top left corner."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))

    def turned(x: float, y: float) -> list[float]:
        return [x * cos - y * sin, x * sin + y * cos]

    result = []
    for item in items:
        x0, y0, x1, y1 = item["box"]
        result.append({**item, "box": [turned(x0, y0), turned(x1, y0), turned(x1, y1), turned(x0, y1)]})
    return result


def page(items: Sequence[Any]) -> ParsedPage:
    return parse_lines(json.dumps(list(items)), WIDTH, HEIGHT)


def blocks(items: Sequence[Any]) -> list[str]:
    """The markdown's blocks."""
    return page(items).markdown.split("\n\n")
