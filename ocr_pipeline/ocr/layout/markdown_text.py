"""Plain text as markdown: only what markdown would misread is escaped, so that the text stays readable as it is.

Here belongs escaping only. What is a heading or a table is decided elsewhere.
"""

from __future__ import annotations

import re

# Inline: backslash before punctuation, code, raw HTML (hostile text must stay text), links, strike-through;
# `*` and `_` only where they could open or close emphasis.
_INLINE = re.compile(
    r"""\\(?=[!-/:-@\[-`{-~]) | ` | <(?=[A-Za-z/!?]) | (?<=\])(?=[(\[:]) | ~~ |
        \*(?=\S) | (?<=\S)\* | (?<![^\W_])_(?=\S) | (?<=\S)_(?![^\W_]) | &(?=\#?\w+;)""",
    re.VERBOSE,
)
# At the start of a paragraph: headings, quotes, tables, rules and fences of one repeated sign, and year-like numbers
# ("2025. The …"), which would begin a list at that number. Real bullets and short numbers are lists: let them be.
_START = re.compile(
    r"^(?:(?P<mark>\#{1,6}(?=\s|$)|[>|]|=+\s*$|[-*_](?:\s*[-*_])*\s*$|~{3,})|(?P<number>\d{3,9})(?=[.)](?:\s|$)))"
)


def escaped(text: str) -> str:
    """One paragraph (no line breaks) such that a CommonMark reader shows exactly `text`. Lists stay lists."""
    text = _INLINE.sub(lambda match: "\\" + match.group(), text)
    start = _START.match(text)
    if start is None:
        return text
    if start["number"]:
        return f"{start['number']}\\{text[start.end() :]}"
    return text if text.startswith("\\") else "\\" + text


def table(rows: list[list[str]]) -> str:
    """A GitHub table; the first row is the head. Rows are filled up to the same length."""
    width = max(map(len, rows))
    lines = ["| " + " | ".join(_cell(cell) for cell in row + [""] * (width - len(row))) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * width, *lines[1:]])


def _cell(text: str) -> str:
    return _INLINE.sub(lambda match: "\\" + match.group(), text).replace("|", "\\|")
