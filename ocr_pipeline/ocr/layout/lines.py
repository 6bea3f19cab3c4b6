"""From the raw text of a `lines` transcript to lines with boxes: the only reader of that format.

Here belongs what makes hostile or odd JSON harmless, and the straightening of a page that was scanned askew. Not
here: what the lines mean together (order.py, blocks.py).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

# Control characters (but not tab and line break), and halves of surrogate pairs, which no UTF-8 file can hold.
_UNWRITABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_MAX_SLOPE = math.tan(math.radians(5))  # a page further askew than this is left as it is


@dataclass(frozen=True, slots=True)
class Line:
    """A piece of a line of text as the engine saw it. Pixels; `x1 > x0`, `y1 > y0`."""

    text: str  # at least one character, no line break, single spaces
    x0: float
    y0: float
    x1: float
    y1: float
    slope: float = 0.0  # rise of y over x along the line

    @property
    def height(self) -> float:
        return self.y1 - self.y0

    @property
    def width(self) -> float:
        return self.x1 - self.x0

    @property
    def middle(self) -> float:
        return (self.y0 + self.y1) / 2


def read_lines(raw: str) -> tuple[list[Line], list[str]]:
    """The lines that have a box, and the texts that have none. Never raises.

    `raw` is a JSON list of `{"text": str, "box": …}` where the box is `[x0, y0, x1, y1]` or four points
    `[[x, y], …]` clockwise from the top left of the text. What is no such JSON counts as text without boxes.
    """
    try:
        items: Any = json.loads(raw)
    except (ValueError, RecursionError):
        return [], [text for text in map(_clean, raw.splitlines()) if text]
    if isinstance(items, dict):
        items = items.get("lines", [items])
    lines: list[Line] = []
    loose: list[str] = []
    for item in items if isinstance(items, list) else [items]:
        text = _clean(item.get("text") if isinstance(item, dict) else item)
        if not text:
            continue
        line = _line(text, item.get("box")) if isinstance(item, dict) else None
        if line is None:
            loose.append(text)
        else:
            lines.append(line)
    return lines, loose


def page_slope(lines: Sequence[Line]) -> float:
    """By how much the page is askew: the median slope of its long lines, weighted by length. 0 where none is long."""
    long = sorted((line.slope, line.width) for line in lines if line.width > 6 * line.height)
    half = sum(width for _, width in long) / 2
    for slope, width in long:
        half -= width
        if half <= 0:
            return slope if abs(slope) <= _MAX_SLOPE else 0.0
    return 0.0


def straightened(lines: Sequence[Line], slope: float) -> list[Line]:
    """The lines as they would lie on a page that is not askew (shear in y, exact enough below 5 degrees)."""
    return [_sheared(line, slope) for line in lines] if slope else list(lines)


def _sheared(line: Line, slope: float) -> Line:
    shift = slope * (line.x0 + line.x1) / 2
    return replace(line, y0=line.y0 - shift, y1=line.y1 - shift)


def _clean(text: Any) -> str:
    return " ".join(_UNWRITABLE.sub("\ufffd", text).split()) if isinstance(text, str) else ""


def _line(text: str, box: Any) -> Line | None:
    """None where the box is none. A polygon becomes the upright box of the same middle height as the slanted line."""
    try:
        if len(box) == 4 and not isinstance(box[0], (list, tuple)):
            x0, y0, x1, y1 = (_number(value) for value in box)
            slope = 0.0
        else:
            (ax, ay), (bx, by), (cx, cy), (dx, dy) = ((_number(x), _number(y)) for x, y in box)
            x0, x1 = min(ax, dx), max(bx, cx)
            y0, y1 = (ay + by) / 2, (cy + dy) / 2
            slope = (by - ay) / (bx - ax) if bx - ax > 1 else 0.0
    except (TypeError, ValueError, OverflowError, KeyError):
        return None
    x0, x1, y0, y1 = min(x0, x1), max(x0, x1), min(y0, y1), max(y0, y1)
    return Line(text, x0, y0, max(x1, x0 + 1), max(y1, y0 + 1), slope)


def _number(value: Any) -> float:
    number = float(value)
    if not abs(number) < 1e7:  # also NaN and infinity
        raise ValueError(value)
    return number
