"""stdin, stdout and stderr as a command finds them: closed, on a full disk, or a pipe that nobody reads.

What goes to stderr is for whoever watches: that it cannot be written ends no work. What goes to stdout is the result:
there it is an error.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TypeVar

import click

_Stream = TypeVar("_Stream", bound=io.TextIOWrapper)


def prepare() -> None:
    """Makes the three usable. Call it first: a file that is opened while one of them is closed gets its number, and
    then whatever a library writes to "stderr"."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    sys.stdout = _around(_Result, sys.stdout, 1)
    sys.stderr = _around(_Told, sys.stderr, 2)


class _Told(io.TextIOWrapper):
    """Goes on where nothing can be written. Progress is told by the thread that reads pages: an error there, rich's
    SystemExit for a broken pipe, ended it, and the command waited for its pages for ever."""

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError:
            return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            super().flush()


class _Result(io.TextIOWrapper):
    """Says in one sentence why the result cannot be written; a reader that has seen enough (`| head`) is left alone."""

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            raise _lost(error) from error

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            raise _lost(error) from error


def _lost(error: OSError) -> Exception:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)  # what is still in the buffer would fail again when Python ends
    os.close(null)
    if isinstance(error, BrokenPipeError):
        return error
    return click.ClickException(f"the result cannot be written to stdout: {error.strerror}")


def _around(kind: type[_Stream], stream: object, number: int) -> _Stream:
    if not isinstance(stream, io.TextIOWrapper):  # closed when Python began
        return kind(open(number, "wb", closefd=False), encoding="utf-8")
    encoding, errors, at_once = stream.encoding, stream.errors, stream.line_buffering
    return kind(stream.detach(), encoding=encoding, errors=errors, line_buffering=at_once)
