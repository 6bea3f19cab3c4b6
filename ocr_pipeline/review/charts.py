"""Bars and columns as geometry: numbers in, places on a drawing out. The template draws them as inline SVG.

Pure. Every mark carries the address of what stands behind it and its value in words, so that a chart is a list of
links to those who cannot see it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH = 640.0
NARROW = 340.0  # for a telephone, where a drawing of `WIDTH` would have letters too small to read
_LABEL = 190.0  # room for a bar's label
_VALUE, _LETTER = 110.0, 8.0  # and for its value, more where it is long: so much a letter
_ROW, _BAR = 30.0, 20.0
_ABOVE = 16.0  # room for a label above its bar
_HEIGHT = 190.0  # of columns
_LEFT, _TOP, _BOTTOM = 52.0, 12.0, 24.0
_SHORT = 26  # characters of a label that fit


@dataclass(frozen=True, slots=True)
class Row:
    """One bar of a chart: parts of (kind, number) one after the other. `kind` is a CSS class of ours."""

    label: str
    value: str  # in words
    href: str
    parts: tuple[tuple[str, float], ...]
    tick: str = ""  # below a column, where the label is too long


@dataclass(frozen=True, slots=True)
class Piece:
    kind: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Mark:
    """One bar or column, drawn."""

    label: str
    short: str
    value: str
    href: str
    x: float
    y: float
    pieces: tuple[Piece, ...]
    value_x: float
    label_y: float = 0.0
    value_y: float = 0.0


@dataclass(frozen=True, slots=True)
class Tick:
    label: str
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Chart:
    width: float
    height: float
    marks: tuple[Mark, ...]
    ticks: tuple[Tick, ...] = ()
    row: float = _ROW  # height of a bar with all that belongs to it
    anchor: str = "end"  # which end of a label stands at its place


def bars(rows: Sequence[Row], *, narrow: bool = False) -> Chart:
    """Lying bars, one below the other, to one scale. A number above zero is never drawn thinner than a hair. `narrow`:
    with the labels above the bars, not beside them."""
    width, left, above = (NARROW, 0.0, _ABOVE) if narrow else (WIDTH, _LABEL, 0.0)
    most = max((_sum(row) for row in rows), default=0.0) or 1.0
    value = max([_VALUE, *(12 + _LETTER * len(row.value) for row in rows)])
    room, step = width - left - value, _ROW + above
    marks = []
    for index, row in enumerate(rows):
        x, y = left, index * step
        pieces = []
        for kind, part in row.parts:
            length = _length(part, most, room)
            if length:
                pieces.append(Piece(kind, round(x, 2), y + 5 + above, round(length, 2), _BAR))
                x += length
        label_x, label_y, value_y = max(0.0, left - 8), y + (15 if narrow else 20), y + 20 + above
        short = row.label if narrow else _short(row.label)
        marks.append(Mark(row.label, short, row.value, row.href, label_x, y, tuple(pieces), x + 6, label_y, value_y))
    height = max(1, len(rows)) * step
    return Chart(width, height, tuple(marks), row=step, anchor="start" if narrow else "end")


def columns(rows: Sequence[Row], *, every: int = 1) -> Chart:
    """Standing columns, left to right, parts stacked upwards; each `every`th one has its label below."""
    most = nice(max((_sum(row) for row in rows), default=0.0))
    room, step = _HEIGHT - _TOP - _BOTTOM, (WIDTH - _LEFT) / max(1, len(rows))
    floor = _HEIGHT - _BOTTOM
    marks, ticks = [], []
    for index, row in enumerate(rows):
        left, top = _LEFT + index * step, floor
        pieces = []
        for kind, value in row.parts:
            height = _length(value, most, room)
            if height:
                top -= height
                pieces.append(
                    Piece(kind, round(left + step * 0.1, 2), round(top, 2), round(step * 0.8, 2), round(height, 2))
                )
        marks.append(Mark(row.label, _short(row.label), row.value, row.href, round(left, 2), _TOP, tuple(pieces), step))
        if index % every == 0:
            ticks.append(Tick(row.tick or row.label, round(left + step / 2, 2), _HEIGHT - 8))
    scale = [Tick(number(most * part / 2), _LEFT - 6, floor - room * part / 2) for part in range(3)]
    return Chart(WIDTH, _HEIGHT, tuple(marks), tuple(scale + ticks))


def nice(value: float) -> float:
    """Where an axis ends: the next even number of one digit, or 1, times a power of ten; its half is whole too."""
    if not math.isfinite(value) or value <= 2:
        return 2.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1.0, 2.0, 4.0, 6.0, 8.0, 10.0) if step * power >= value)


def number(value: float) -> str:
    """For a person: 950, 12,400, 1.2 M."""
    if value >= 1e6:
        return f"{value / 1e6:.3g} M"
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _sum(row: Row) -> float:
    return sum(_drawn(value) for _, value in row.parts)


def _length(value: float, most: float, room: float) -> float:
    value = _drawn(value)
    return max(1.5, room * value / most) if value else 0.0


def _drawn(value: float) -> float:
    """What can be drawn of a number: nothing below zero, and no sum that overflows."""
    return min(max(0.0, value), 1e15) if math.isfinite(value) else 0.0


def _short(label: str) -> str:
    return label if len(label) <= _SHORT else label[: _SHORT - 1] + "…"
