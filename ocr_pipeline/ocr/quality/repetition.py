"""Does a text run in circles? The measure of loops, pure.

Here belongs only the finding of loops, also of those that a server's n-gram guard breaks off or lets through. What is
done about one is the ladder's. Numbers are from the tests beside it: real loops trip, real tables, forms, leaders and
contents pages do not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

LOOKED_AT = 60_000  # characters from the end; a page of 8,192 tokens has fewer
LONGEST_PATTERN = 160  # words
SHORTEST_RUN = 10  # words
LONGEST_PERIOD = 64  # characters


@dataclass(frozen=True, slots=True)
class Loop:
    """A pattern that follows on itself."""

    pattern: str  # its first characters
    times: float
    share: float  # of the text's characters that say nothing new, 0 to 1
    at_end: bool


def find_loop(text: str) -> Loop | None:
    """The worst loop of the text, or None. `text` is markdown without tags and boxes; tables are HTML.

    In a table a loop is one row that does not end, or rows that stay the same; empty rows and equal cells are not.
    Elsewhere it is a run of words, or of characters where the script has no spaces.
    """
    text = text[-LOOKED_AT:]
    if len(text) < 60:
        return None
    tables = list(_tables(text))
    outside = "".join(_outside(text, tables))
    found = [
        *(loop for start, end in tables if (loop := _in_table(text[start:end], len(text), end >= len(text) - 20))),
        *_in_words(outside, len(text)),
        *_in_characters(outside, len(text)),
    ]
    return max(found, key=lambda loop: loop.share, default=None)


# -- tables ------------------------------------------------------------------------------------------------------------

# A row of more cells, or more equal rows that are not empty, was not seen in any real table; loops have hundreds.
MOST_CELLS = 120
MOST_EQUAL_ROWS = 30
MOST_EMPTY_ROWS = 120


def _tables(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of each table; one that is not closed goes to the end."""
    at = text.find("<table")
    while at >= 0:
        end = text.find("</table>", at)
        end = len(text) if end < 0 else end + 8
        yield at, end
        at = text.find("<table", end)


def _outside(text: str, tables: list[tuple[int, int]]) -> Iterator[str]:
    done = 0
    for start, end in tables:
        yield text[done:start]
        yield "\n"
        done = end
    yield text[done:]


def _in_table(table: str, whole: int, at_end: bool) -> Loop | None:
    rows = table.split("<tr>")
    longest = max(rows, key=lambda row: row.count("<td"))
    cells = longest.count("<td")
    if cells > MOST_CELLS:
        return Loop(longest[-40:], cells, len(longest) / whole, at_end)
    equal, most, pattern = 1, 1, ""
    for row, before in zip(rows[2:], rows[1:], strict=False):
        equal = equal + 1 if row == before else 1
        limit = MOST_EQUAL_ROWS if _WORDISH.search(_MARKUP.sub("", row)) else MOST_EMPTY_ROWS
        if equal > max(limit, most):
            most, pattern = equal, row
    return Loop(pattern[:40], most, most * len(pattern) / whole, at_end) if pattern else None


_MARKUP = re.compile(r"<[^<>]{0,200}>")
_WORDISH = re.compile(r"\w")


# -- words and characters ----------------------------------------------------------------------------------------------


def _in_words(text: str, whole: int) -> Iterator[Loop]:
    """Runs in which each word is the word `period` places before it."""
    words = text.split()
    if len(words) < 12:
        return
    names: dict[str, int] = {}
    codes = np.array([names.setdefault(word, len(names)) for word in words], dtype=np.int32)
    if may_loop_in_words(codes):
        yield from words_in_circles(words, codes, whole)


def may_loop_in_words(codes: npt.NDArray[np.int32]) -> bool:
    """False where no run of words is there twice: then nothing goes in circles, and most texts are done with.

    Exact: the shortest run that counts is `SHORTEST_RUN` words long, and so are equal runs' sums.
    """
    grams = np.zeros(len(codes) - SHORTEST_RUN + 1, dtype=np.uint64)
    for at in range(SHORTEST_RUN):
        grams = grams * np.uint64(0x9E3779B97F4A7C15) + codes[at : at + len(grams)].astype(np.uint64)
    return len(np.unique(grams)) < len(grams)


def words_in_circles(words: list[str], codes: npt.NDArray[np.int32], whole: int) -> Iterator[Loop]:
    """The search itself, over every period."""
    lengths = np.cumsum([len(word) + 1 for word in words])
    for period in range(1, min(LONGEST_PATTERN, len(words) // 3) + 1):
        start, run = _longest_run(codes[period:] == codes[:-period], at_least=max(2 * period, SHORTEST_RUN))
        if not run or _in_parts(codes[start : start + period]):
            continue
        first, last = start + period, start + period + run - 1
        extra = int(lengths[last] - lengths[first - 1])
        pattern = " ".join(words[start : start + period])
        loop = Loop(pattern[:60], run / period + 1, extra / whole, last >= len(words) - 6)
        if _is_loop(loop, extra, pattern):
            yield loop


def _in_characters(text: str, whole: int) -> Iterator[Loop]:
    """The same for characters, for scripts without spaces and for one endless word."""
    if len(text) >= 200 and may_loop_in_characters(text):
        yield from characters_in_circles(text, whole)


def may_loop_in_characters(text: str) -> bool:
    """False where no block of 64 characters stands up to 64 places before itself. Exact: the shortest run that counts
    has 150 characters, and with them a whole block, wherever it begins."""
    blocks = range(0, len(text) - LONGEST_PERIOD + 1, LONGEST_PERIOD)
    return any(
        text.find(text[at : at + LONGEST_PERIOD], max(0, at - LONGEST_PERIOD), at + LONGEST_PERIOD - 1) >= 0
        for at in blocks
    )


def characters_in_circles(text: str, whole: int) -> Iterator[Loop]:
    """The search itself, over every period."""
    codes = np.frombuffer(text.encode("utf-32-le", "replace"), dtype=np.uint32)
    for period in range(1, LONGEST_PERIOD + 1):
        start, run = _longest_run(codes[period:] == codes[:-period], at_least=max(3 * period, 150))
        if not run or _in_parts(codes[start : start + period]):
            continue
        pattern = text[start : start + period]
        loop = Loop(pattern, run / period + 1, run / whole, start + period + run >= len(text) - 30)
        if _is_loop(loop, run, pattern):
            yield loop


def _longest_run(equal: npt.NDArray[np.bool_], at_least: int) -> tuple[int, int]:
    """Start and length of the longest run of True, (0, 0) where none is as long as `at_least`."""
    # A run fills a whole block of a third of its length, wherever it begins: most texts are done with here.
    block = at_least // 3
    whole = len(equal) // block * block
    if not equal[:whole].reshape(-1, block).all(axis=1).any():
        return 0, 0
    breaks = np.flatnonzero(~equal)
    edges = np.concatenate(([-1], breaks, [len(equal)]))
    gaps = np.diff(edges) - 1
    at = int(np.argmax(gaps))
    return (int(edges[at]) + 1, int(gaps[at])) if gaps[at] >= at_least else (0, 0)


def _in_parts(pattern: npt.NDArray[Any]) -> bool:
    """Whether the pattern is a shorter one several times over: that one was looked at, by its own measure."""
    size = len(pattern)
    return any(size % part == 0 and bool((pattern[part:] == pattern[:-part]).all()) for part in range(1, size // 2 + 1))


def _is_loop(loop: Loop, extra: int, pattern: str) -> bool:
    """`extra`: characters that say nothing new.

    Forms repeat short words ("Yes No Yes No"), leaders and rules repeat signs, sheets of labels repeat a whole
    address: the shorter the pattern, the more often it may stand. A model that loops does so until it is stopped, so
    less is allowed where the run reaches the end of the text.
    """
    letters = sum(char.isalpha() for char in pattern)
    if not letters:
        return extra >= (2500 if loop.at_end else 6000)
    if len(pattern) < 25:
        return loop.times >= (24 if loop.at_end else 90) and extra >= (150 if loop.at_end else 500)
    return loop.times >= (4 if loop.at_end else 8) and extra >= (200 if loop.at_end else 800)
