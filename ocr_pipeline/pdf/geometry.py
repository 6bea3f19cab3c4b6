"""How large a page's image is: pure arithmetic between inches, dots per inch and pixels.

Here belongs what decides a resolution. Not here: reading a page's size, or drawing it.
"""

from __future__ import annotations

import math

from ocr_pipeline.records import Geometry

_SLACK = 0.01
"""Pixels kept free below a cap: both renderers round sizes up, and PDFium's page sizes are 32-bit floats (an A4 side
is off by up to 3e-5 points), so a product that meets the cap exactly could come out one pixel above it."""

_DIGITS = 3
"""A capped resolution is rounded down to this many digits (154.8 to 154 dpi): pages of a scan differ by a few points,
and pages of one resolution share one start of poppler (30 ms CPU). It costs under 1 % of the side."""


def effective_dpi(width: float, height: float, geometry: Geometry) -> float:
    """Dots per inch at which a page of `width` x `height` inches is drawn: never above `geometry.dpi`, and never so
    high that the image's long or short side is above its cap.

    Both sides must be above 0 and finite.
    """
    long_side, short_side = max(width, height), min(width, height)
    limit = min(
        (geometry.max_long_side - _SLACK) / long_side,
        (geometry.max_short_side - _SLACK) / short_side,
    )
    return float(geometry.dpi) if geometry.dpi <= limit else _rounded_down(limit)


def pixel_size(width: float, height: float, dpi: float) -> tuple[int, int]:
    """Width and height in pixels of a page of `width` x `height` inches, as poppler and pypdfium2 round them: up."""
    return math.ceil(width * dpi), math.ceil(height * dpi)


def is_too_large(width: float, height: float, max_inches: float) -> bool:
    """Whether a side is longer than `max_inches`. What is not a number counts as too large."""
    return not (width <= max_inches and height <= max_inches)


def has_area(width: float, height: float) -> bool:
    return math.isfinite(width) and math.isfinite(height) and width > 0 and height > 0


def _rounded_down(value: float) -> float:
    step = 10.0 ** (math.floor(math.log10(value)) - _DIGITS + 1)
    rounded = math.floor(value / step) * step
    # 0.1 has no exact binary form: the product may stand a hair above the value it was rounded down from.
    return min(value, float(f"{rounded:.{_DIGITS}g}")) if rounded > 0 else value
