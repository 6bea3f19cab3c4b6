"""The reading order of a page: from lines with boxes to columns of text and grids of cells, in the order people read.

Here belongs geometry only: which lines stand beside each other, which below. Not here: paragraphs, headings and
markdown (blocks.py).

The page is cut like an XY-cut (Nagy and Seth 1984), with one difference: a whitespace gutter is looked for in each
band of the page by itself, so that a title across two columns, columns, and a table below them are told apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

from ocr_pipeline.ocr.layout.lines import Line

Row = tuple[Line, ...]
"""One visual line: its pieces from left to right."""

Span = tuple[float, float]

_GUTTER = 0.05  # of a line's height: between the padded boxes of a tight table; spaces are inside the boxes
_APART = 3.0  # line heights of white above a strip that belongs to no band before it
_SHRINK = 0.2  # of a box's height at each edge: detectors pad, so that neighbouring lines overlap
_PROSE_CHARACTERS = 18  # median length of a line from which a column may be running text
_PROSE_FILL = 0.55  # median share of the column's width that its lines fill
_PROSE_LINES = 2
_MAIN_LINES = 4  # as many lines, each as long and as full as these, are text and not the first column of a table …
_MAIN_CHARACTERS = 35
_MAIN_FILL = 0.8
_ASIDE_CHARACTERS = 8  # … if what stands beside them is words too
_ASIDE_LETTERS = 0.6
_CLOSE = 0.6  # line heights of white between strips, up to which they may be lines of one column
_RECENT = 8  # strips of a band that tell what it is
_MARKER_CHARACTERS = 3  # bullets, "12."
_DEEPEST = 12  # nested columns; beyond this the input is hostile


@dataclass(frozen=True, slots=True)
class Column:
    """Running text: visual lines from top to bottom."""

    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Grid:
    """Rows and columns that belong together: a table or a form. `cells[row][column]` holds lines, maybe none."""

    cells: tuple[tuple[Row, ...], ...]


@dataclass(slots=True)
class _Band:
    """A stretch of the page over its whole width: either without a gutter, or with the same gutters all through."""

    strips: list[list[Line]] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)  # columns, from left to right

    @property
    def lines(self) -> list[Line]:
        return [line for strip in self.strips for line in strip]


def in_reading_order(lines: Sequence[Line]) -> list[Column | Grid]:
    """Every line is in exactly one of the blocks. Text that runs up or down the page's edge comes last."""
    if not lines:
        return []
    height = median(line.height for line in lines)
    upright = [line for line in lines if not _runs_vertically(line, height)]
    vertical = [line for line in lines if _runs_vertically(line, height)]
    blocks = _blocks(upright, height, 0) if upright else []
    return blocks + [Column(((line,),)) for line in vertical]


def _runs_vertically(line: Line, height: float) -> bool:
    return line.height > 3 * height and line.height > 2 * line.width


def _blocks(lines: Sequence[Line], height: float, depth: int) -> list[Column | Grid]:
    blocks: list[Column | Grid] = []
    rows: list[Row] = []  # of bands one below the other that have no gutter
    bands = _bands(_strips(lines), height)
    for index in range(len(bands) - 1, 0, -1):
        if _is_columns(bands[index]):
            _take_back(bands[:index], bands[index], height)
    for band in filter(lambda band: band.strips, bands):
        if len(band.spans) < 2 or len(_rows(band.lines)) == 1:
            rows += _rows(band.lines)
            continue
        if rows:
            blocks.append(Column(tuple(rows)))
            rows = []
        blocks += _band_blocks(band, height, depth)
    return [*blocks, Column(tuple(rows))] if rows else blocks


def _is_columns(band: _Band) -> bool:
    return len(band.spans) > 1 and sum(map(_is_prose, _columns(band.lines, band.spans))) > 1


def _band_blocks(band: _Band, height: float, depth: int) -> list[Column | Grid]:
    """A band with gutters: columns of text one after the other, or a grid of cells."""
    lines = band.lines
    rows = _rows(lines)
    columns = _with_markers_joined(_columns(lines, band.spans))
    prose = [_is_prose(column) for column in columns]
    if len(columns) == 1:
        return [Column(tuple(rows))]
    if _is_main_text(columns[0]) and all(map(_is_aside, columns[1:])):
        prose = [True] * len(columns)
    if sum(prose) > 1 and depth < _DEEPEST:
        return [block for group in _prose_groups(columns, prose) for block in _blocks(group, height, depth + 1)]
    table, tail = _without_tail(rows)
    if sum(len(row) > 1 for row in table) < (3 if len(columns) < 3 else 2):
        return [Column(tuple(rows))]
    grid = Grid(_whole_cells([_cells(row, band.spans) for row in table], height))
    return [grid, Column(tuple(tail))] if tail else [grid]


def _strips(lines: Sequence[Line]) -> list[list[Line]]:
    """Groups of lines that overlap in height, directly or through others, from top to bottom."""
    strips: list[list[Line]] = []
    bottom = float("-inf")
    for line in sorted(lines, key=lambda line: (line.y0 + _SHRINK * line.height, line.x0)):
        if line.y0 + _SHRINK * line.height >= bottom:
            strips.append([])
        strips[-1].append(line)
        bottom = max(bottom, line.y1 - _SHRINK * line.height)
    return strips


def _bands(strips: Sequence[list[Line]], height: float) -> list[_Band]:
    gap = _GUTTER * height
    bands: list[_Band] = []
    for strip in strips:
        spans = _merged([(line.x0, line.x1) for line in strip], gap)
        together = _common_spans(bands[-1], strip, spans, gap, height) if bands else None
        if together is None:
            bands.append(_Band([strip], spans))
        else:
            bands[-1].strips.append(strip)
            bands[-1].spans = together
    return bands


def _common_spans(band: _Band, strip: list[Line], spans: list[Span], gap: float, height: float) -> list[Span] | None:
    """The columns of the band with the strip in it; None where the strip does not belong to the band."""
    before, here = len(band.spans), len(spans)
    if before == here == 1:
        return [(min(band.spans[0][0], spans[0][0]), max(band.spans[0][1], spans[0][1]))]
    white = _white_between(band.strips[-1], strip)
    if before == 1 or white > _APART * height:
        return None
    together = _merged([*band.spans, *spans], gap)
    if len(together) >= max(before, here):
        return together
    if here > 1 and len(together) > 1 and white < _CLOSE * height:
        # Columns of text, and a table inside one of them: only the gutter of the columns goes all through.
        recent = _Band(band.strips[-_RECENT:], together)
        if _is_columns(recent) or (all(len(line.text) >= _PROSE_CHARACTERS for line in strip)):
            return together
    if here > 1 and max(before, here) > 2 and len(together) == max(before, here) - 1:
        # A cell that reaches over a gutter of a table: the gutter stays.
        return _extended(band.spans, strip) if before >= here else _extended(spans, band.lines)
    return None


def _extended(spans: Sequence[Span], lines: Sequence[Line]) -> list[Span]:
    """The columns, as wide as those of the lines that lie in one column only."""
    extended = list(spans)
    for line in lines:
        hit = [index for index, (left, right) in enumerate(extended) if line.x0 < right and line.x1 > left]
        if len(hit) == 1:
            left, right = extended[hit[0]]
            extended[hit[0]] = min(left, line.x0), max(right, line.x1)
    return extended


def _take_back(above: Sequence[_Band], columns: _Band, height: float) -> None:
    """Moves into the columns what stands above them only because one column begins higher than the other, or begins
    with a table: nearest band first, lowest strip first, up to the first that reaches over a gutter or is far off."""
    gap = _GUTTER * height
    for band in reversed(above):
        while band.strips:
            strip = band.strips[-1]
            spans = _merged([(line.x0, line.x1) for line in strip], gap)
            together = _merged([*columns.spans, *spans], gap)
            near = height if len(spans) == 1 else _CLOSE * height
            if len(together) != len(columns.spans) or _white_between(strip, columns.strips[0]) > near:
                return
            columns.strips.insert(0, band.strips.pop())
            columns.spans = together


def _white_between(above: Sequence[Line], below: Sequence[Line]) -> float:
    return min(line.y0 for line in below) - max(line.y1 for line in above)


def _merged(spans: Sequence[Span], gap: float) -> list[Span]:
    merged: list[Span] = []
    for left, right in sorted(spans):
        if merged and left - merged[-1][1] < gap:
            merged[-1] = (merged[-1][0], max(merged[-1][1], right))
        else:
            merged.append((left, right))
    return merged


def _rows(lines: Sequence[Line]) -> list[Row]:
    """Visual lines from top to bottom: pieces whose middles lie within each other's height."""
    rows: list[list[Line]] = []
    for line in sorted(lines, key=lambda line: (line.middle, line.x0)):
        if rows and line.middle - rows[-1][0].middle < 0.5 * min(line.height, rows[-1][0].height):
            rows[-1].append(line)
        else:
            rows.append([line])
    return [tuple(sorted(row, key=lambda line: line.x0)) for row in rows]


def _columns(lines: Sequence[Line], spans: Sequence[Span]) -> list[list[Line]]:
    columns: list[list[Line]] = [[] for _ in spans]
    for line in lines:
        columns[_column_of(line, spans)].append(line)
    return [column for column in columns if column]


def _column_of(line: Line, spans: Sequence[Span]) -> int:
    """The first column that the line reaches into."""
    for index, (_, right) in enumerate(spans):
        if line.x0 < right:
            return index
    return len(spans) - 1


def _with_markers_joined(columns: list[list[Line]]) -> list[list[Line]]:
    """A column of bullets or numbers belongs to the text on its right."""
    joined: list[list[Line]] = []
    markers: list[Line] = []
    for index, column in enumerate(columns):
        short = median(len(line.text) for line in column) <= _MARKER_CHARACTERS
        if short and index + 1 < len(columns) and _is_prose(columns[index + 1]):
            markers = column
        else:
            joined.append(markers + column)
            markers = []
    return joined


def _is_prose(column: Sequence[Line]) -> bool:
    """Running text: several lines, most of them long and filling the column."""
    texts = [line for line in column if len(line.text) > _MARKER_CHARACTERS]
    if len(texts) < _PROSE_LINES:
        return False
    width = max(line.x1 for line in texts) - min(line.x0 for line in texts)
    return (
        median(len(line.text) for line in texts) >= _PROSE_CHARACTERS
        and median(line.width for line in texts) >= _PROSE_FILL * width
    )


def _is_main_text(column: Sequence[Line]) -> bool:
    width = max(line.x1 for line in column) - min(line.x0 for line in column)
    full = [line for line in column if len(line.text) >= _MAIN_CHARACTERS and line.width >= _MAIN_FILL * width]
    return len(full) >= _MAIN_LINES


def _is_aside(column: Sequence[Line]) -> bool:
    """Words beside the text: a sidebar, not amounts."""
    letters = sum(character.isalpha() for line in column for character in line.text)
    return median(len(line.text) for line in column) >= _ASIDE_CHARACTERS and letters >= _ASIDE_LETTERS * sum(
        len(line.text) for line in column
    )


def _prose_groups(columns: Sequence[list[Line]], prose: Sequence[bool]) -> list[list[Line]]:
    """Columns of running text, each with the narrow columns that follow it (and, first of all, precede it)."""
    groups: list[list[Line]] = []
    pending: list[Line] = []
    for column, is_prose in zip(columns, prose, strict=True):
        if is_prose:
            groups.append(pending + column)
            pending = []
        elif groups:
            groups[-1].extend(column)
        else:
            pending = pending + column
    return groups


def _cells(row: Row, spans: Sequence[Span]) -> tuple[Row, ...]:
    cells: list[list[Line]] = [[] for _ in spans]
    for line in row:
        cells[_column_of(line, spans)].append(line)
    return tuple(tuple(cell) for cell in cells)


def _whole_cells(rows: list[tuple[Row, ...]], height: float) -> tuple[tuple[Row, ...], ...]:
    """Cells of several lines are one again, where the table shows by its spacing which lines are one row."""
    gaps = [_white_between(_lines_of(above), _lines_of(below)) for above, below in pairwise(rows)]
    apart = max(gaps, default=0.0)
    whole = rows[:1]
    for row, gap in zip(rows[1:], gaps, strict=True):
        if gap < 0.4 * height and gap < 0.5 * apart:
            whole[-1] = tuple(above + below for above, below in zip(whole[-1], row, strict=True))
        else:
            whole.append(row)
    return tuple(whole)


def _lines_of(row: tuple[Row, ...]) -> list[Line]:
    return [line for cell in row for line in cell]


def _without_tail(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """Takes single lines off the foot of a table, unless they are so close that they are lines of its last cell."""
    pitches = [below[0].middle - above[0].middle for above, below in pairwise(rows)]
    usual = median(pitches)
    end = len(rows)
    while end > 1 and len(rows[end - 1]) == 1:
        end -= 1
    while end < len(rows) and pitches[end - 1] < 0.8 * usual:
        end += 1
    return rows[:end], rows[end:]
