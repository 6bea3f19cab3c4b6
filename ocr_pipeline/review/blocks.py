"""Which stretch of a page's markdown belongs to which region: pure, no HTML.

The markdown is what the reader must see whole; regions only mark parts of it. So the markdown is cut into blocks that
put together are the markdown again, character for character, and each block knows the regions whose text it holds. A
region that is not found marks nothing; no text is ever taken from a region.

Parsers join blocks with an empty line, and a block's markdown is the region's text but for escapes, heading marks and
white space; a paragraph that goes on in the next column is one block of two regions. So texts are compared without
those, in order, and a match must begin or end where a block does.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

_WINDOW = 20_000  # characters ahead in which a region's text is looked for: bounds the time, and wild jumps
_TRIES = 20  # places that are looked at, of a short text that stands everywhere

_SPACE = re.compile(r"(\n[ \t]*\n\s*)")
_HEADING = re.compile(r"^#{1,6}(?=\s)")
_UNSEEN = re.compile(r"\\(?=[!-/:-@\[-`{-~])|\s+")


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch of markdown, with the white space after it, and the indexes of its regions."""

    markdown: str
    regions: tuple[int, ...] = ()


def blocks(markdown: str, texts: Sequence[str], figure_of: Callable[[str], int | None] = lambda _: None) -> list[Block]:
    """The markdown in blocks. `texts`: the regions' texts in reading order; `figure_of`: the region that a block of
    markdown is a picture of. `"".join(block.markdown)` is the markdown."""
    pieces = _pieces(markdown)
    if not pieces:
        return []
    parts = [_plain(piece) for piece in pieces]
    plain = "".join(parts)
    ends = list(accumulate(map(len, parts)))
    starts = [0, *ends[:-1]]

    owners: list[list[int]] = [[] for _ in pieces]
    joined = [False] * len(pieces)  # whether a piece goes on in the next one
    cursor = 0
    for index, text in enumerate(texts):
        wanted = _plain(text)
        place = _find(plain, wanted, cursor, starts, ends) if wanted else None
        if place is None:
            continue
        begin, cursor = place
        first, last = bisect_right(starts, begin) - 1, bisect_left(ends, cursor)
        joined[first:last] = [True] * (last - first)
        owners[first].append(index)
    for piece_number, piece in enumerate(pieces):
        figure = figure_of(piece)
        if figure is not None and 0 <= figure < len(texts) and figure not in owners[piece_number]:
            owners[piece_number].append(figure)
    return _merged(pieces, owners, joined)


def _pieces(markdown: str) -> list[str]:
    """At empty lines; a fenced code block is no special case, since pieces are put together where a region spans."""
    parts = _SPACE.split(markdown)
    return [
        text + (parts[number + 1] if number + 1 < len(parts) else "")
        for number, text in enumerate(parts)
        if number % 2 == 0 and (text or number + 1 < len(parts))
    ]


def _plain(text: str) -> str:
    return _UNSEEN.sub("", _HEADING.sub("", text.lstrip()))


def _find(plain: str, wanted: str, cursor: int, starts: Sequence[int], ends: Sequence[int]) -> tuple[int, int] | None:
    """Where `wanted` begins and ends at or after `cursor`, one of the two where a block does."""
    limit = cursor + _WINDOW + len(wanted)
    for form in (wanted, wanted.removesuffix("-")):  # the hyphen of a word that goes on in the next column is gone
        place = plain.find(form, cursor, limit) if form else -1
        for _ in range(_TRIES):
            if place < 0:
                break
            if _is_in(starts, place) or _is_in(ends, place + len(form)):
                return place, place + len(form)
            place = plain.find(form, place + 1, limit)
    return None


def _is_in(ordered: Sequence[int], value: int) -> bool:
    index = bisect_left(ordered, value)
    return index < len(ordered) and ordered[index] == value


def _merged(pieces: Sequence[str], owners: Sequence[Sequence[int]], joined: Sequence[bool]) -> list[Block]:
    found: list[Block] = []
    text, regions = "", list[int]()
    for piece, own, goes_on in zip(pieces, owners, joined, strict=True):
        text += piece
        regions += own
        if not goes_on:
            found.append(Block(text, tuple(regions)))
            text, regions = "", []
    if text:
        found.append(Block(text, tuple(regions)))
    return _without_seams(found)


def _without_seams(found: Sequence[Block]) -> list[Block]:
    """Neighbours that belong to no region stay together, so that what markdown joins (lists, fences) stays joined."""
    whole: list[Block] = []
    for block in found:
        if whole and not block.regions and not whole[-1].regions:
            whole[-1] = Block(whole[-1].markdown + block.markdown)
        else:
            whole.append(block)
    return whole
