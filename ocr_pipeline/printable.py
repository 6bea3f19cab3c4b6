"""Text from outside (object keys, titles, errors) as one line that a terminal or a web page can show."""

from __future__ import annotations


def printable(text: object) -> str:
    """The text on one line: what cannot be seen, or turns the direction of what follows, is escaped as in Python."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in str(text))
