"""The output formats of models of other families: plain markdown, a JSON list of boxes, markdown under front matter.

Here belongs one function per format, `(text, width, height) -> ParsedPage`, with the size in pixels of the image that
was read. As everywhere: linear time, and nothing raises.
"""

from __future__ import annotations

import json
import re
from typing import Any

from ocr_pipeline.ocr.parsing.grounding import MAX_REGIONS, fractions
from ocr_pipeline.ocr.parsing.model_text import clean
from ocr_pipeline.records import ParsedPage, Region


def parse_markdown(text: str, width: int, height: int) -> ParsedPage:
    """Markdown as it is, without boxes."""
    return ParsedPage(clean(_unfenced(text)))


# -- dots.ocr: [{"bbox": [x0, y0, x1, y1], "category": "Text", "text": "…"}, …] ---------------------------------------

_CATEGORIES = {  # to the labels that the other models use
    "picture": "image",
    "section-header": "sub_title",
    "list-item": "list_item",
    "page-header": "header",
    "page-footer": "footer",
    "formula": "equation",
}


def parse_json_layout(text: str, width: int, height: int) -> ParsedPage:
    """Boxes in pixels of the image as the server resized it: each side rounded to a multiple of 28 (Qwen2-VL).

    A list that was cut off gives the elements before the cut; what is no such list is taken as markdown.
    """
    elements = _elements(_unfenced(text))
    if elements is None:
        return parse_markdown(text, width, height)
    regions: list[Region] = []
    blocks: list[str] = []
    for element in elements:
        words = element.get("text")
        words = clean(words) if isinstance(words, str) else ""
        category = element.get("category")
        label = category.strip().lower() if isinstance(category, str) and category.strip() else "text"
        label = clean(_CATEGORIES.get(label, label.replace(" ", "_")))[:60]
        if label == "equation" and words and not words.startswith("$"):
            words = f"$${words}$$"
        box = _box(element.get("bbox"), _resized(width), _resized(height))
        if box is not None and len(regions) < MAX_REGIONS:
            if label == "image":
                blocks.append(f"![](figure:{len(regions)})")
            regions.append(Region(label, *box, words))
        blocks.append(words)
    return ParsedPage("\n\n".join(block for block in blocks if block), tuple(regions))


def _resized(side: int) -> int:
    return max(28, round(side / 28) * 28)


def _box(numbers: Any, width: int, height: int) -> tuple[float, float, float, float] | None:
    if not isinstance(numbers, list) or len(numbers) != 4:
        return None
    if not all(isinstance(n, int | float) and not isinstance(n, bool) and abs(n) < 1e9 for n in numbers):
        return None
    return fractions([float(number) for number in numbers], width, height)


def _elements(text: str) -> list[dict[str, Any]] | None:
    """The objects of the list, as many as can be read; None where the text is no list of objects."""
    decoder = json.JSONDecoder()
    start = text.find("{")
    if start < 0 or text[:start].strip() not in ("", "["):
        return None
    elements: list[dict[str, Any]] = []
    while start >= 0:
        try:
            element, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            break
        if isinstance(element, dict):
            elements.append(element)
        start = text.find("{", end)
    return [element for element in elements if "bbox" in element or "text" in element] or None


# -- olmOCR: front matter, then markdown; figures as ![alt](page_x_y_width_height.png) --------------------------------

_FRONT_MATTER = re.compile(r"\s{0,20}---[ \t]{0,9}\n((?:[a-z_]{1,40}:[^\n]{0,200}\n){1,20})---[ \t]{0,9}(?:\n|$)")
_FIGURE = re.compile(r"!\[([^\[\]\n]{0,300})\]\(page_(\d{1,6})_(\d{1,6})_(\d{1,6})_(\d{1,6})\.png\)")


def parse_front_matter(text: str, width: int, height: int) -> ParsedPage:
    """Figures become regions; the front matter (language, rotation) is about the page and not on it."""
    text = _unfenced(text)
    if front := _FRONT_MATTER.match(text):
        text = text[front.end() :]
    text = clean(text)
    if text == "null":  # how the model says "nothing to read"
        return ParsedPage("")
    regions: list[Region] = []

    def link(figure: re.Match[str]) -> str:
        x, y, w, h = (float(group) for group in figure.groups()[1:])
        box = fractions([x, y, x + w, y + h], max(width, 1), max(height, 1))
        if box is None or len(regions) == MAX_REGIONS:
            return figure[1]
        regions.append(Region("image", *box, figure[1]))
        return f"![{figure[1]}](figure:{len(regions) - 1})"

    return ParsedPage(_FIGURE.sub(link, text), tuple(regions))


_FENCE = re.compile(r"```(?:json|markdown|md)?[ \t]{0,9}\n")


def _unfenced(text: str) -> str:
    """Without the fence that some models put around the whole of their answer."""
    text = text.strip()
    start = _FENCE.match(text)
    if start and text.endswith("\n```") and text.count("```") == 2:
        return text[start.end() : -4]
    return text
