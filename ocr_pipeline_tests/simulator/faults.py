"""What is wrong with a server just now: a closed list of faults, each with its settings, duration and count.

A fault is switched on by `POST /sim/faults` (or --faults) with a JSON object {name: settings}, off by {name: null}.
Settings of every fault: `for_seconds` (then it ends by itself), `requests` (only the next n chat requests).
Not here: what a fault does (`server`), where the pages that it strikes get their texts (`texts`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from time import monotonic
from typing import Any

SETTINGS: dict[str, dict[str, Any]] = {
    "storm_503": {"retry_after": None},  # every chat request is answered 503 at once
    "storm_429": {"retry_after": None},
    "unhealthy": {},  # /health answers 503
    "hang": {"frozen_gauges": False},  # accepts, never answers; /health 200; token counters flat
    "crawl": {"factor": 0.1},  # speed
    "die": {"manner": "engine", "at_request": None, "after_seconds": 0.0},  # now, or with the n-th request from now on
    "oom": {"tokens": 100_000},  # the engine dies when prompt and output tokens in its slots pass this
    "slow_headers": {"delay": 5.0},  # seconds that a finished answer is held back
    "half_dead": {},  # sends half of the answer's body, then nothing, and the connection stays open
    "drop": {"half": False},  # closes the connection without an answer, or in the middle of it
    "canned": {"status": 200, "body": "", "content_type": "application/json"},  # any answer of your own
    "stripped_tags": {},  # as though skip_special_tokens were always true
    # On pages that are picked by hash or by name:
    "loops": {"when": "greedy"},
    "empty": {"when": "always"},
    "garbage": {"when": "always"},
    "poison": {"when": "always", "manner": "engine"},  # kills the server
}
PAGE_FAULTS = frozenset({"loops", "empty", "garbage", "poison"})
"""Properties of pages and not of a server's day: `SimulatedServer` gives them to the server again when it restarts."""

_COMMON: dict[str, Any] = {"for_seconds": None, "requests": None}
_PICK: dict[str, Any] = {"share": 0.0, "images": (), "seed": ""}
WHEN = ("always", "greedy", "grounded", "unguarded")
MANNERS = ("engine", "lost")


@dataclass(slots=True)
class _Fault:
    settings: dict[str, Any]
    until: float | None
    requests: int | None


class Faults:
    def __init__(self) -> None:
        self._on: dict[str, _Fault] = {}

    def update(self, wanted: dict[str, Any]) -> None:
        """Switches faults on (an object or true) and off (null or false). ValueError for what is not in the list."""
        checked = {name: _checked(name, settings) for name, settings in wanted.items()}
        for name, settings in checked.items():
            if settings is None:
                self._on.pop(name, None)
                continue
            seconds = settings["for_seconds"]
            until = None if seconds is None else monotonic() + float(seconds)
            self._on[name] = _Fault(settings, until, settings["requests"])

    def clear(self) -> None:
        self._on.clear()

    def get(self, name: str) -> dict[str, Any] | None:
        """The settings of a fault that is on, else None."""
        fault = self._on.get(name)
        if fault is None or (fault.requests is not None and fault.requests <= 0):
            return None
        if fault.until is not None and monotonic() >= fault.until:
            del self._on[name]
            return None
        return fault.settings

    def take(self, name: str) -> dict[str, Any] | None:
        """As `get`, for one chat request that it strikes: counts down `requests`."""
        settings = self.get(name)
        if settings is not None and (fault := self._on[name]).requests is not None:
            fault.requests = (fault.requests or 0) - 1
        return settings

    def strikes(self, name: str, sha256: str, *, greedy: bool, grounded: bool, guarded: bool) -> dict[str, Any] | None:
        """The settings of a page fault if it strikes this page, asked in this way."""
        settings = self.get(name)
        if settings is None or not _picked(settings, sha256):
            return None
        asked = {"always": True, "greedy": greedy, "grounded": grounded, "unguarded": not guarded}[settings["when"]]
        return self.take(name) if asked else None

    def shown(self) -> dict[str, Any]:
        return {name: dict(settings) for name in list(self._on) if (settings := self.get(name)) is not None}


def is_picked(sha256: str, share: float, seed: str = "") -> bool:
    """Whether a page is among the share that a page fault strikes: by hash, so the same on every server."""
    digest = hashlib.sha256(f"{seed}{sha256}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def _picked(settings: dict[str, Any], sha256: str) -> bool:
    return sha256 in settings["images"] or is_picked(sha256, settings["share"], settings["seed"])


def _checked(name: str, settings: Any) -> dict[str, Any] | None:
    if name not in SETTINGS:
        raise ValueError(f"no fault {name!r}; there are {', '.join(SETTINGS)}")
    if settings is None or settings is False:
        return None
    known = {**_COMMON, **(_PICK if name in PAGE_FAULTS else {}), **SETTINGS[name]}
    given = {} if settings is True else settings
    if not isinstance(given, dict) or (unknown := given.keys() - known.keys()):
        wrong = f": {', '.join(sorted(unknown))}" if isinstance(given, dict) else ""
        raise ValueError(f"settings of {name} are an object with {', '.join(known)}{wrong}")
    full = {**known, **given}
    if full.get("when", "always") not in WHEN or full.get("manner", "engine") not in MANNERS:
        raise ValueError(f"{name}: when is one of {', '.join(WHEN)}; manner is one of {', '.join(MANNERS)}")
    return full
