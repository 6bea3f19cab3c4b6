"""Which pages in flight are asked a second time elsewhere, so that a batch does not wait for its slowest server.

Here belongs the decision, pure. Not here: the sending and who wins (page_task.py).

Only slots that nobody wants are used: with a backlog the second request would cost another page its slot. (A page
that probes a recovered server is the exception: it took a risk for all the others.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ocr_pipeline.ocr.fleet.health import Condition
from ocr_pipeline.ocr.fleet.routing import SLOW_FACTOR, BackendState

LATE_FACTOR = 2.5  # times what a page usually takes there
# Times what it takes elsewhere: the least that must be left of the wait on a server that crawls. Only on those (the
# ones that routing passes by): else a page would be sent here by the rules and asked elsewhere in the same moment.
MIN_GAIN = 1.25
MIN_ELAPSED = 0.25  # seconds; below it nothing is late


@dataclass(frozen=True, slots=True, kw_only=True)
class InFlight:
    """One page at one server. `usual`: seconds a page takes there by the answers so far, None before the first."""

    page: int  # any number that tells the pages apart
    backend: str
    elapsed: float
    usual: float | None
    probe: bool = False
    not_on: frozenset[str] = frozenset()  # servers that refused it, or failed on it a moment ago


@dataclass(frozen=True, slots=True)
class Hedge:
    page: int
    backend: str
    reason: str  # for `attempts.choice`


def hedges(requests: Sequence[InFlight], states: Sequence[BackendState], *, backlog: bool) -> list[Hedge]:
    """The second requests to send now, longest expected wait first, no more than there are free slots."""
    by_name = {state.name: state for state in states}
    room = {s.name: s.limit - s.in_flight for s in states if s.condition is Condition.CLOSED and s.has_room}
    wanted: list[tuple[float, InFlight]] = []
    for request in requests:
        if backlog and not request.probe:
            continue
        others = [s for s in _elsewhere(request, states) if s.name in room]
        left = _expected_wait(request, by_name[request.backend], others)
        if left is not None:
            wanted.append((left, request))
    sent = []
    for _, request in sorted(wanted, key=lambda pair: -pair[0]):
        free = [s for s in _elsewhere(request, states) if room.get(s.name, 0) > 0]
        if not free:
            continue
        target = min(free, key=lambda s: s.seconds or 0.0)
        room[target.name] -= 1
        sent.append(Hedge(request.page, target.name, f"hedge: {request.elapsed:.1f} s on {request.backend}"))
    return sent


def _elsewhere(request: InFlight, states: Sequence[BackendState]) -> list[BackendState]:
    return [state for state in states if state.name != request.backend and state.name not in request.not_on]


def _expected_wait(request: InFlight, here: BackendState, others: Sequence[BackendState]) -> float | None:
    """How long the page is thought to stay, if that is too long; None where it may stay."""
    if not others:
        return None
    elsewhere = min((s.seconds for s in others if s.seconds), default=None)
    usual = request.usual if request.usual is not None else elsewhere
    if usual is not None and request.elapsed > max(MIN_ELAPSED, LATE_FACTOR * usual):
        return request.elapsed  # it may stay as long again: nothing is known of its end
    if here.seconds and elsewhere is not None and here.seconds > SLOW_FACTOR * elsewhere:
        left = here.seconds - request.elapsed
        if left <= 0:
            return request.elapsed  # overdue: nothing is known of its end
        if left > MIN_GAIN * elsewhere + MIN_ELAPSED:
            return left
    return None
