"""A `lines` transcript (what the CPU engines give) as markdown and regions in reading order.

The entry point of the layout: reading the raw text (lines.py), columns and grids (order.py), paragraphs, headings and
tables (blocks.py). Parsing is not part of the recipe: a better layout runs again over transcripts that are there.
"""

from __future__ import annotations

from collections.abc import Sequence

from ocr_pipeline.ocr.layout.blocks import (
    Block,
    goes_on,
    grid_block,
    joined_lines,
    paragraphs,
    running_type,
    with_titles,
)
from ocr_pipeline.ocr.layout.lines import Line, page_slope, read_lines, straightened
from ocr_pipeline.ocr.layout.markdown_text import escaped
from ocr_pipeline.ocr.layout.order import Column, Grid, in_reading_order
from ocr_pipeline.records import ParsedPage, Region


def parse_lines(text: str, width: int, height: int) -> ParsedPage:
    """`text` is the raw transcript (see `lines.read_lines`), `width` and `height` the image's pixels.

    Never raises, whatever the text. Every word of the input is in the markdown once, lines without a box at the end.
    Region labels are those of DeepSeek-OCR: title, sub_title, text, table.
    """
    lines, loose = read_lines(text)
    slope = page_slope(lines)
    columns = in_reading_order(straightened(lines, slope))
    rows = [row for block in columns for row in (block.rows if isinstance(block, Column) else _grid_rows(block))]
    size = running_type(rows) if rows else None
    blocks: list[Block] = []
    column_starts: set[int] = set()
    for column in columns:
        column_starts.add(len(blocks))
        blocks += [grid_block(column)] if isinstance(column, Grid) else paragraphs(column.rows, size) if size else []
    blocks = with_titles(blocks)
    markdown: list[str] = []
    paragraph = ""  # what the last entry of `markdown` is made of: it may have begun columns ago
    for index, block in enumerate(blocks):
        if index in column_starts and markdown and goes_on(blocks[index - 1], block):
            paragraph = joined_lines([paragraph, block.text])
            markdown[-1] = escaped(paragraph)
        else:
            paragraph = block.text
            markdown.append(block.markdown)
    regions = [_region(block, slope, width, height) for block in blocks]
    if loose:
        markdown.append("\n".join(escaped(line) for line in loose))
        regions.append(Region("text", 0.0, 0.0, 1.0, 1.0, "\n".join(loose)))
    return ParsedPage("\n\n".join(markdown), tuple(regions))


def _grid_rows(grid: Grid) -> list[tuple[Line, ...]]:
    return [cell for row in grid.cells for cell in row if cell]


def _region(block: Block, slope: float, width: int, height: int) -> Region:
    """The box of the block on the page as it was scanned, in fractions."""
    lines: Sequence[Line] = straightened(block.lines, -slope)
    return Region(
        block.label,
        _fraction(min(line.x0 for line in lines), width),
        _fraction(min(line.y0 for line in lines), height),
        _fraction(max(line.x1 for line in lines), width),
        _fraction(max(line.y1 for line in lines), height),
        block.text,
    )


def _fraction(pixels: float, side: int) -> float:
    return round(min(1.0, max(0.0, pixels / side)), 5) if side > 0 else 0.0
