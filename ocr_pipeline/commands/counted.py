"""A number with its noun, as a person writes it."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """As in "1 page", "2 pages", "0 batches"."""
    plural = f"{noun}es" if noun.endswith("ch") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"
