"""Ctrl-C at a command: the first lets what is in flight end, a second ends the process at once."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import threading

CODE = 130
"""Exit code after Ctrl-C, as a shell gives it."""

QUIET_SECONDS = 2.0  # most commands end sooner, and nothing need be said


def watch() -> None:
    """Counts Ctrl-C from now on. Call it in the main thread.

    A thread reads the signals from Python's wakeup descriptor, so that the second counts whoever has the handler at
    that moment (Dagster, while a step runs) and whatever waits: an ordinary exit joins every thread, and one that
    waits for a store which does not answer takes minutes.
    """
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write)
    # A Ctrl-C that hits SQLAlchemy while it closes a connection would be shown with a traceback.
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
    threading.Thread(target=_count, args=(read,), name="ctrl-c", daemon=True).start()


def _count(signals: int) -> None:
    _read_one(signals)
    if not select.select([signals], [], [], QUIET_SECONDS)[0]:
        _say("Stopping: waiting for what is in flight. Ctrl-C again ends it at once.")
    _read_one(signals)
    _say("Ended at once. What was read is kept; run the same command again to go on.")
    os._exit(CODE)  # sound at any moment: what is kept is written whole, and a kill leaves no less


def _read_one(signals: int) -> None:
    while os.read(signals, 1) != bytes([signal.SIGINT]):
        pass


def _say(text: str) -> None:
    """On stderr, if it can be written at once: a pipe that is full, or that nobody reads, must not prevent the end."""
    with contextlib.suppress(OSError):
        if select.select([], [2], [], 0)[1]:
            os.write(2, f"\n{text}\n".encode())
