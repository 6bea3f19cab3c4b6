"""From columns and grids to regions: paragraphs, headings, tables, form fields.

Here belongs what the lines of a block mean together and how they are written as markdown. Not here: reading order
(order.py) and the page as a whole (lines_to_page.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import cbrt
from statistics import median
from unicodedata import east_asian_width

from ocr_pipeline.ocr.layout.lines import Line
from ocr_pipeline.ocr.layout.markdown_text import escaped, table
from ocr_pipeline.ocr.layout.order import Grid, Row

_HEADING = 1.2  # times the size of the page's running text
_TITLE = 1.6
_HEADING_CHARACTERS = 160
_HEADING_ROWS = 3
_BULLET = re.compile(r"^[-–•▪◦*·]\s")
_NUMBERED = re.compile(r"^\(?(?:\d{1,2}[.)]|[a-zA-Z]\))\s")  # not "T. Brandt"
_HYPHEN = re.compile(r"(?<=[^\W\d_])[-\u00ad\u2010]$")
_LABELLED = 0.6  # share of first cells that end in a colon: then it is a form, not a table

# Rough widths of characters in proportional type, in widths of "n".
_NARROW = frozenset("iIlj.,;:'!|`()[]{}ftr1-/\"")
_WIDE = frozenset("mwMWOQGDCHNU%@&—…")


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of the page that people see as one: a region to be."""

    label: str  # "title", "sub_title", "text", "table"
    text: str  # as it is, without escapes; a table as markdown
    markdown: str
    lines: tuple[Line, ...]
    size: float = 1.0  # of its type, in units of the running text


@dataclass(frozen=True, slots=True)
class TypeSize:
    """The running text of a page, that headings are measured against. Pixels."""

    height: float
    advance: float  # width of an "n"

    def of(self, row: Row) -> float:
        """Size of the row's type in units of the running text. Width tells it within 3 %, but for bold type; heights
        of boxes vary by 20 %, since detectors pad and not every line has a "g"."""
        # Text that runs up or down the page: its box is as wide as its type is high.
        height = max(min(line.height, max(line.width, self.height)) for line in row) / self.height
        units = sum(_units(line.text) for line in row)
        if units < 4:  # too few characters for their width to mean anything
            return height
        advance = sum(line.width for line in row) / units / self.advance
        return cbrt(height * advance * advance)


def running_type(rows: Iterable[Row]) -> TypeSize:
    """The size that most characters of the page have."""
    lines = [line for row in rows for line in row]
    return TypeSize(
        _weighted_median([(line.height, len(line.text)) for line in lines]),
        _weighted_median([(line.width / _units(line.text), len(line.text)) for line in lines]),
    )


def paragraphs(rows: Sequence[Row], size: TypeSize) -> list[Block]:
    """The rows of one column as headings and paragraphs, each row in exactly one."""
    if not rows:
        return []
    pitches = sorted(_middle(below) - _middle(above) for above, below in pairwise(rows))
    usual = min(pitches[len(pitches) // 3], 2 * size.height) if pitches else 0.0
    left = median(row[0].x0 for row in rows)
    right_edge = _right_edges(rows, size.height)
    groups: list[list[Row]] = [[rows[0]]]
    for above, row in pairwise(rows):
        if _begins_anew(groups[-1][0], above, row, size, usual, left, right_edge(above)):
            groups.append([row])
        else:
            groups[-1].append(row)
    return [_paragraph(group, size) for group in groups]


def _right_edges(rows: Sequence[Row], height: float) -> Callable[[Row], float]:
    """Where a line ends at the latest, by where it begins: a quotation is narrower than the text around it."""
    by_left: dict[int, list[float]] = {}
    for row in rows:
        by_left.setdefault(round(row[0].x0 / height), []).append(row[-1].x1)
    overall = _high(row[-1].x1 for row in rows)
    highest = {
        here: _high(ends) if len(ends) > 2 else overall
        for here in by_left
        for ends in [[end for step in (-1, 0, 1) for end in by_left.get(here + step, ())]]
    }
    return lambda row: highest[round(row[0].x0 / height)]


def _high(values: Iterable[float]) -> float:
    """The largest but for outliers: a headline may be wider than the text."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(0.85 * len(ordered)))]


def _begins_anew(first: Row, above: Row, row: Row, size: TypeSize, usual: float, left: float, right: float) -> bool:
    """Whether `row` begins a paragraph; the one before it runs from `first` to `above`."""
    pitch = _middle(row) - _middle(above)
    sizes = size.of(above), size.of(row)
    if pitch < 0 or pitch > 1.3 * usual * max(1.0, min(sizes)):
        return True
    if max(sizes) > _HEADING * min(sizes):
        return True
    if max(sizes) >= _HEADING:  # a heading of several lines
        return False
    text = _text(row)
    if _BULLET.match(text):
        return True
    # A number at the beginning of a line may be a date's: what is above must have come to an end, or be an item too.
    if _NUMBERED.match(text) and (_text(above)[-1] in ".:;!?" or _NUMBERED.match(_text(first))):
        return True
    indent = row[0].x0 - left
    if 0.8 * size.height < indent < 6 * size.height and abs(above[0].x0 - left) < 0.5 * size.height:
        return True
    # A line that ends although the next word had room on it ends on purpose.
    first_word = text.split(" ", 1)[0]
    return above[-1].x1 + 1.15 * size.advance * (_units(first_word) + 1) < right


def _paragraph(rows: Sequence[Row], size: TypeSize) -> Block:
    text = joined_lines([_text(row) for row in rows])
    lines = tuple(line for row in rows for line in row)
    ratio = median(size.of(row) for row in rows)
    is_heading = (
        ratio >= _HEADING
        and len(rows) <= _HEADING_ROWS
        and len(text) <= _HEADING_CHARACTERS
        and text[-1] not in ".,;"
        and sum(map(str.isalpha, text)) >= 0.3 * len(text.replace(" ", ""))
    )
    if is_heading:
        return Block("sub_title", text, "## " + escaped(text), lines, ratio)
    return Block("text", text, escaped(text), lines, ratio)


def with_titles(blocks: Sequence[Block]) -> list[Block]:
    """The largest headings of the page become titles, if they are much larger than its text."""
    largest = max((block.size for block in blocks if block.label == "sub_title"), default=0.0)
    least = max(_TITLE, 0.85 * largest)
    return [
        replace(block, label="title", markdown=block.markdown.removeprefix("#"))
        if block.label == "sub_title" and block.size >= least
        else block
        for block in blocks
    ]


def grid_block(grid: Grid) -> Block:
    """A table as a markdown table; a form (labels with a colon, values) as one line per field."""
    rows = [[" ".join(line.text for line in cell) for cell in row] for row in grid.cells]
    lines = tuple(line for row in grid.cells for cell in row for line in cell)
    labels = [row[0] for row in rows if row[0]]
    if len(rows[0]) == 2 and sum(label.endswith((":", "：")) for label in labels) >= _LABELLED * len(rows):
        fields = [" ".join(cell for cell in row if cell) for row in rows]
        return Block("text", "\n".join(fields), "\n\n".join(map(escaped, fields)), lines)
    markdown = table(rows)
    return Block("table", markdown, markdown, lines)


def joined_lines(texts: Sequence[str]) -> str:
    """The lines of a paragraph as one: words divided at a line's end are whole again."""
    whole = texts[0]
    for text in texts[1:]:
        divided = _HYPHEN.search(whole) and text[:1].islower()
        whole = whole[:-1] + text if divided else f"{whole} {text}"
    return whole


def goes_on(before: Block, after: Block) -> bool:
    """Whether a paragraph goes on at the top of the next column: no end of a sentence here, no beginning there."""
    here, there = before.lines[-1], after.lines[0]
    return (
        before.label == after.label == "text"
        and there.y1 < here.y0
        and max(here.height, there.height) < 1.5 * min(here.height, there.height)
        and "\n" not in before.text + after.text
        and (before.text[-1].isalpha() or before.text[-1] in ",-")
        and after.text[0].islower()
    )


def _text(row: Row) -> str:
    return " ".join(line.text for line in row)


def _middle(row: Row) -> float:
    return row[0].middle


def _units(text: str) -> float:
    return sum(_unit(character) for character in text)


def _unit(character: str) -> float:
    if character in _NARROW or character == " ":
        return 0.55
    if east_asian_width(character) in "WF":
        return 1.8
    if character in _WIDE:
        return 1.4
    return 1.15 if character.isupper() else 1.0


def _weighted_median(values: Sequence[tuple[float, float]]) -> float:
    half = sum(weight for _, weight in values) / 2
    for value, weight in sorted(values):
        half -= weight
        if half <= 0:
            return value
    return 1.0
