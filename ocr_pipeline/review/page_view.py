"""A page as it is drawn: its image with the boxes of its regions, and its text in blocks that know their boxes.

Here belongs the step from rows to what the template draws, pure but for sanitising. Boxes are numbers, checked to be
inside of the page: no text of a model ever becomes a coordinate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ocr_pipeline.review import links
from ocr_pipeline.review.blocks import blocks
from ocr_pipeline.review.markup import PageMarkup, figure_index
from ocr_pipeline.review.queries import PageRow, RegionRow

_A4_AT_150_DPI = (1240, 1754)  # pixels, for a page whose image's size is not known
_LABELS = {"title", "sub_title", "text", "table", "image", "figure", "equation", "formula"}


@dataclass(frozen=True, slots=True)
class Box:
    """A region on the image, in pixels of it."""

    index: int
    label: str
    kind: str  # CSS class, of a closed list
    x: float
    y: float
    width: float
    height: float
    has_text: bool  # whether a block of the text belongs to it


@dataclass(frozen=True, slots=True)
class TextBlock:
    html: Markup
    regions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PageView:
    width: int
    height: int
    boxes: tuple[Box, ...]  # the largest first, as they are drawn: a box inside of another one can be pointed at
    text: tuple[TextBlock, ...]
    cut: bool  # a part of the text was too long for rich text


def page_view(page: PageRow, markdown: str, regions: Sequence[RegionRow]) -> PageView:
    """`regions` in the order of their index."""
    width, height = _size(page)
    markup = PageMarkup(page.page_number, links.figures(page.document_id, page.page_number))
    place = {region.region_index: number for number, region in enumerate(regions)}

    def figure_of(block: str) -> int | None:
        index = figure_index(block, page.page_number)
        return None if index is None else place.get(index)

    found = blocks(markdown, [region.text for region in regions], figure_of)
    text = tuple(
        TextBlock(markup.html(block.markdown), tuple(regions[number].region_index for number in block.regions))
        for block in found
    )
    told = {index for block in text for index in block.regions}
    boxes = [box for region in regions if (box := _box(region, width, height, region.region_index in told))]
    boxes.sort(key=lambda box: -box.width * box.height)
    return PageView(width, height, tuple(boxes), text, markup.cut)


def _size(page: PageRow) -> tuple[int, int]:
    if page.width and page.height and 0 < page.width < 100_000 and 0 < page.height < 100_000:
        return page.width, page.height
    return _A4_AT_150_DPI


def _box(region: RegionRow, width: int, height: int, has_text: bool) -> Box | None:
    """None where nothing of it lies on the page."""
    corners = (region.x0, region.y0, region.x1, region.y1)
    if not all(math.isfinite(value) for value in corners):
        return None
    x0, y0, x1, y1 = (min(1.0, max(0.0, value)) for value in corners)
    if x0 >= x1 or y0 >= y1:
        return None
    return Box(
        index=region.region_index,
        label=region.label,
        kind=region.label if region.label in _LABELS else "other",
        x=round(x0 * width, 1),
        y=round(y0 * height, 1),
        width=round((x1 - x0) * width, 1),
        height=round((y1 - y0) * height, 1),
        has_text=has_text,
    )
