"""The grounded output of DeepSeek-OCR: `<|ref|>LABEL<|/ref|><|det|>[[x0, y0, x1, y1]]<|/det|>`, then the content.

Here belongs only this format: tags to blocks, boxes to fractions of the page. A tag may be broken, unclosed, or hold
anything: nothing is evaluated, nothing raises, no word of content is lost, and the time is linear in the length.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from ocr_pipeline.ocr.parsing.model_text import clean
from ocr_pipeline.records import ParsedPage, Region

SCALE = 999.0  # the model counts 0..999 across the image, whatever its size (run_dpsk_ocr_pdf.py: x / 999 * width)
FIGURE_LABELS = frozenset({"image", "figure"})
MAX_REGIONS = 10_000  # of one page; 8,192 tokens hold fewer than 500

# The labels seen. Under "OCR this image." the words themselves stand where the label belongs: they are content.
LABELS = frozenset(
    {
        *FIGURE_LABELS,
        "title",
        "sub_title",
        "text",
        "table",
        "table_caption",
        "table_footnote",
        "image_caption",
        "image_footnote",
        "figure_caption",
        "figure_title",
        "equation",
        "formula",
        "equation_number",
        "list",
        "list_item",
        "code",
        "header",
        "footer",
        "footnote",
        "page_number",
        "reference",
        "abstract",
        "caption",
        "chart",
        "seal",
        "signature",
    }
)

# Every part is bounded and stops at "<", so that a match is never tried over the same text twice. What stands between
# the tags of a box, or after its first one where the second is missing, is looked at apart: it may be the page's words.
# A box without a label, and a label without a box, are taken as what they are.
_DET = r"<\|det\|>(?:([^<]{0,6000})<\|/det\|>)?"
_TAG = re.compile(
    rf"<\|ref\|>([^<]{{0,500}})(?:<\|/ref\|>\s{{0,4}}(?:{_DET})?|(?={re.escape('<|det|>')})(?:{_DET})?)"
    rf"|(?:<\|/ref\|>\s{{0,4}})?{_DET}"
)


def parse_grounding(text: str) -> ParsedPage:
    """The page as markdown and regions.

    A label with several boxes makes one region per box, and the text belongs to the first. A figure stands in the
    markdown as `![](figure:N)`, N being the index of its region. Boxes are sorted (x0 < x1, y0 < y1) and cut at the
    page's edges; one without an area, or with anything but four numbers, makes no region, and its text stays.
    """
    regions: list[Region] = []
    blocks: list[str] = []
    for label, boxes, content in _blocks(text):
        words = clean(content)
        if label is None:
            blocks.append(words)
            continue
        name = label.strip().lower().replace(" ", "_").replace("-", "_")
        if name not in LABELS:
            # Not a label but what stands in the box.
            words = "\n\n".join(part for part in (clean(label), words) if part)
            name = "text"
        for number, box in enumerate(_boxes(boxes)):
            if len(regions) == MAX_REGIONS:
                break
            if name in FIGURE_LABELS:
                blocks.append(f"![](figure:{len(regions)})")
            regions.append(Region(name, *box, words if number == 0 else ""))
        blocks.append(words)
    return ParsedPage("\n\n".join(block for block in blocks if block), tuple(regions))


def _blocks(text: str) -> Iterator[tuple[str | None, str, str]]:
    """`(label, boxes, content)` in order; the label is None for what stands before the first tag."""
    label: str | None = None
    boxes = ""
    done = 0
    for tag in _TAG.finditer(text):
        yield label, boxes, text[done : tag.start()]
        label = tag[1] if tag[1] is not None else "text"
        inside = next((group for group in tag.groups()[1:] if group is not None), None)
        boxes, done = "", tag.end()
        if inside is not None:
            found = _CLOSED.match(inside)
            boxes, words = (found[0], inside[found.end() :]) if found else ("", inside)
            if _WORD.search(words):
                yield label, boxes, words
                label, boxes = None, ""
        elif tag[0].endswith("<|det|>") and (found := _UNCLOSED.match(text, done)):
            boxes, done = found[0], found.end()
    yield label, boxes, text[done:]


# Groups of numbers in brackets, as many as there are, whatever their count and form. Atomic (?>…) where a part could
# be tried over again.
_NUMBERISH = r"(?>[+-]?(?:0x[\da-fA-F]+|\d[\d.]*(?:[eE][+-]?\d+)?|nan|inf))(?!\w)"
_GROUP = rf"(?>\[[\s,;]*(?>(?:{_NUMBERISH}[\s,;]*)*)\])"
_GROUPS = rf"(?>{_GROUP}(?:[\s,;]*{_GROUP})*)"
# Between its tags a box may have lost its brackets, one or all.
_FOUR = rf"(?>{_NUMBERISH}(?:[\s,;]+{_NUMBERISH}){{3}})"
_CLOSED = re.compile(rf"\s*(?:\[?\s*{_GROUPS}\s*\]?|\[*{_FOUR}\]*(?=\s*\Z))")
# Without its end tag only what can hardly be the page's own: double brackets, four numbers in single ones, or a box
# that breaks off with its line (double brackets) or with the text.
_UNCLOSED = re.compile(
    rf"\s*(?:\[\s*{_GROUPS}\s*\]?|\[{_FOUR}\s*\]|\[\[(?>(?:{_NUMBERISH}[ ,;]*)*)(?=\n|\Z)"
    rf"|\[(?>(?:{_NUMBERISH}[ ,;]*)*)\Z)"
)
_WORD = re.compile(r"\w")


_BRACKETED = re.compile(r"\[([^\[\]]{0,200})\]")
_NUMBER = re.compile(r"[+-]?\d{1,30}(?:\.\d{0,30})?")


def _boxes(text: str) -> Iterator[tuple[float, float, float, float]]:
    """Each group of four numbers as (x0, y0, x1, y1) in fractions of the page."""
    groups = [match[1] for match in _BRACKETED.finditer(text)] or [text.replace("[", " ").replace("]", " ")]
    for group in groups:
        parts = group.replace(",", " ").split()
        numbers = [float(part) for part in parts if _NUMBER.fullmatch(part)]
        if len(parts) == len(numbers) == 4:
            box = fractions(numbers, SCALE, SCALE)
            if box is not None:
                yield box


def fractions(numbers: list[float], width: float, height: float) -> tuple[float, float, float, float] | None:
    """A box of numbers counted in `width` and `height`, sorted and cut to 0..1; None where nothing is left of it."""
    if not all(math.isfinite(number) for number in numbers):
        return None
    x0, x1 = sorted(min(max(number / width, 0.0), 1.0) for number in (numbers[0], numbers[2]))
    y0, y1 = sorted(min(max(number / height, 0.0), 1.0) for number in (numbers[1], numbers[3]))
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None
