"""What happened, as events, and the figures that follow from them.

A server feeds each event to a `Tally` and, if it has a journal, writes it there as one JSON line at once: figures
survive a kill -9, and `replay` gives those of all lives of a server together. Times are wall clock seconds.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class PageTally:
    asked: int = 0  # requests for this image that reached the queue
    answered: int = 0  # with a text, and the client was still there
    slot_seconds: float = 0.0


@dataclass(slots=True)
class Tally:
    slots: int = 0
    lives: int = 0
    requests: int = 0  # chat requests that reached the queue
    refused: int = 0  # answered with an error before that
    answered: int = 0
    aborted: int = 0  # the client went away
    lost: int = 0  # under way when the server died
    first_request_at: float | None = None
    last_answer_at: float | None = None
    busy_slot_seconds: float = 0.0
    max_running: int = 0
    max_waiting: int = 0
    pages: dict[str, PageTally] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)  # image sha256 of each request that reached the queue, in order
    ids: list[str] = field(default_factory=list)  # its request id
    _open: dict[int, str] = field(default_factory=dict)
    _holding: dict[int, float] = field(default_factory=dict)  # job: when it took its slot
    _last: float = 0.0

    def apply(self, event: dict[str, Any]) -> None:
        kind, at = event["e"], event["t"]
        if kind == "boot":
            self._death(self._last)
            self.slots, self.lives = event["slots"], self.lives + 1
        elif kind == "refused":
            self.refused += 1
            self.first_request_at = at if self.first_request_at is None else self.first_request_at
        elif kind == "asked":
            self.requests += 1
            self.first_request_at = at if self.first_request_at is None else self.first_request_at
            self._open[event["job"]] = event["sha"]
            self.pages.setdefault(event["sha"], PageTally()).asked += 1
            self.order.append(event["sha"])
            self.ids.append(event["id"])
        elif kind == "start":
            self._holding[event["job"]] = at
        elif kind in ("preempted", "end"):
            self._release(event["job"], at)
            if kind == "end":
                self._end(event["job"], event["how"], at)
        elif kind == "death":
            self._death(at)
        self._last = at
        self.max_running = max(self.max_running, len(self._holding))
        self.max_waiting = max(self.max_waiting, len(self._open) - len(self._holding))

    def _release(self, job: int, at: float) -> None:
        since = self._holding.pop(job, None)
        if since is not None:
            self.busy_slot_seconds += at - since
            self.pages[self._open[job]].slot_seconds += at - since

    def _end(self, job: int, how: str, at: float) -> None:
        sha = self._open.pop(job)
        if how == "abort":
            self.aborted += 1
        else:
            self.answered += 1
            self.pages[sha].answered += 1
            self.last_answer_at = at

    def _death(self, at: float) -> None:
        for job in list(self._holding):
            self._release(job, at)
        self.lost += len(self._open)
        self._open.clear()

    def busy_now(self, now: float) -> float:
        return self.busy_slot_seconds + sum(now - since for since in self._holding.values())

    @property
    def busy_share(self) -> float | None:
        """Share of the slots' time that was used, between the first request and the last answer."""
        if self.first_request_at is None or self.last_answer_at is None or not self.slots:
            return None
        span = self.last_answer_at - self.first_request_at
        return self.busy_slot_seconds / (self.slots * span) if span > 0 else None

    @property
    def asked_more_than_once(self) -> int:
        return sum(1 for page in self.pages.values() if page.asked > 1)

    def shown(self) -> dict[str, Any]:
        names = ("slots", "lives", "requests", "refused", "answered", "aborted", "lost", "first_request_at",
                 "last_answer_at", "busy_slot_seconds", "busy_share", "max_running", "max_waiting",
                 "asked_more_than_once", "order", "ids")  # fmt: skip
        pages = {
            sha: {"asked": page.asked, "answered": page.answered, "slot_seconds": page.slot_seconds}
            for sha, page in self.pages.items()
        }
        return {**{name: getattr(self, name) for name in names}, "pages": pages}


class Journal:
    """Feeds events to a tally and, where there is a path, to a file: one write a line, so that a kill loses none."""

    def __init__(self, path: str | None) -> None:
        self.tally = Tally()
        self._file = None if path is None else os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(self, kind: str, at: float, **details: Any) -> None:
        event = {"e": kind, "t": at, **details}
        self.tally.apply(event)
        if self._file is not None:
            os.write(self._file, json.dumps(event, separators=(",", ":")).encode() + b"\n")


def replay(lines: Iterable[str]) -> Tally:
    tally = Tally()
    for line in lines:
        if line.endswith("\n"):  # a line that a kill cut short never happened
            tally.apply(json.loads(line))
    return tally


def read_journal(path: Path) -> Tally:
    with path.open(encoding="utf-8") as lines:
        return replay(lines)
