"""The terminal that commands print on, and how long a person is kept waiting at it."""

from __future__ import annotations

import sys

from rich.console import Console

WAIT_SECONDS = 5.0
"""For a DuckDB file that is being loaded, in commands that only ask: a load takes less, and a person is waiting."""


def terminal(*, stderr: bool = False) -> Console:
    """Where people read. Off a terminal no line is wrapped or cut.

    Text is shown as it is, in tables too: a key may hold what would be markup ("[scan]") or an emoji's name (":100:").
    What has a style is a `Text`.
    """
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else 10_000
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, width=width)


def say_wait(text: str) -> None:
    """What a command waits for, on stderr."""
    terminal(stderr=True).print(text, soft_wrap=True)
