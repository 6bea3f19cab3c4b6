"""How many pages one server is given at once: starts at the profile's number and follows what the server says.

Here belongs the control law, pure: answers, refusals and the server's own queue go in, a limit comes out. Not here:
who asks (live_backend.py), and which page goes where (routing.py).

The law. Several runs share a server with no coordinator, so each holds back by what it can see: W requests wait at the
server, R run, x of all R + W are mine. On a first-come queue my share of the waiting is w = W * x / (R + W). Each
client steers its own w towards a page or two (as TCP Vegas does with its packets in the queue): up when below, down
when above. All clients see the same W, so w is equal for all only where x is equal for all: the fair point is the only
resting point. And because a page of each always waits, no slot idles while an answer travels.
AIMD on W alone does not do this: between "grow" and "shrink" it rests wherever it happens to be, at 1 and 4 of 5.

Rising latency says the same later and less surely, since it also grows with a page's length: it is looked at only
where the server does not tell its queue.

A server that died with many pages in it may have run out of memory, which vLLM has no status for: from then on it gets
half as many, and more only slowly, the more slowly the oftener it died.
"""

from __future__ import annotations

from collections import deque
from statistics import median

BAND = 0.15  # share of the target, around it: no change; with 0.25 two runs can rest at 37 and 63 % (simulated)
FLOODED = 4.0  # times the target: from there the way down is quicker
RISE = 0.5  # share of the target per poll (about one a second)
# Per poll: how a target that refusals have lowered comes back; it also evens out who was refused more.
TARGET_RECOVERY = 1.05
SMOOTHING = 0.5  # of the waiting, poll to poll
WINDOW = 16  # answers for one check of the latency
FLOOR_DRIFT = 1.05  # a window; a server that stays slower is believed after a while
SLOW = 3.0  # times the floor
# Rounds of good answers at the full limit for one page more after a death, and how much longer after each further one:
# a card that was restarted is soon full again, one that is too small dies at pages 24, 60, 370 and 2,000 or so.
PROBE_ROUNDS, PROBE_BACKOFF = 2, 3


class Admission:
    """One server's limit of pages in flight, from 1 to `max_in_flight + queue_depth`.

    `max_in_flight` is the profile's number of pages the server works on at once. Where the server shows that it
    cannot take more than that (the next one waits), `queue_depth` further pages are sent to wait there, so that a slot
    is filled again at once and not one round trip later.
    """

    def __init__(self, max_in_flight: int) -> None:
        if max_in_flight < 1:
            raise ValueError(f"max_in_flight must be at least 1, not {max_in_flight}")
        self.max_in_flight = max_in_flight
        self.queue_depth = 1 if max_in_flight < 8 else 2
        self.target = float(max(1, self.queue_depth))  # pages of one's own that wait at the server
        self._safe_limit = max_in_flight  # pages that it has not died of
        self._deaths = 0
        self._before_last_death = (max_in_flight, 0)  # these two before the last death
        self._successes = 0  # answers at the full limit since the last death, or since one page more was allowed
        self._limit = float(max_in_flight)
        self._ramping = False
        self._own_waiting: float | None = None
        self._queue_known = False  # the server tells its queue
        self._pushed_at: float | None = None
        self._latencies: deque[float] = deque(maxlen=WINDOW)
        self._floor: float | None = None

    @property
    def limit(self) -> int:
        return max(1, int(self._limit + 1e-9))

    @property
    def ceiling(self) -> int:
        """`max_in_flight` and those that wait there; after a death what the server is thought to bear, none waiting."""
        return self._safe_limit if self._safe_limit < self.max_in_flight else self.max_in_flight + self.queue_depth

    def on_death(self, in_flight: int) -> None:
        """The server died with so many of our pages there. One alone tells nothing of how many it bears."""
        if in_flight > 1:
            self._before_last_death = (self._safe_limit, self._deaths)
            self._safe_limit = max(1, min(self._safe_limit, in_flight // 2))
            self._deaths += 1
            self._successes = 0
            self._set(self._limit)

    def undo_last_death(self) -> None:
        """The last death was a page's doing, or none at all: it says nothing of how many the server bears."""
        self._safe_limit, self._deaths = self._before_last_death

    def on_recovery(self) -> None:
        """The server is back after trouble: one page first, then twice as many with each round of good answers."""
        self._set(1.0)
        self._ramping = True
        self._own_waiting = None

    def on_success(self, seconds: float, in_flight: int) -> None:
        """A good answer after `seconds`, with `in_flight` pages there (this one counted)."""
        self._probe_upwards(in_flight)
        top = min(self.max_in_flight, self._safe_limit)
        if self._ramping:
            self._rise(1.0, top)
            self._ramping = self._limit < top
            return
        if self._queue_known:
            return  # the queue says more than the latency, which also grows with a page's length
        if in_flight >= self.limit:
            self._rise(1.0 / self._limit, top)
        self._latencies.append(seconds)
        if len(self._latencies) == WINDOW:
            self._check_latency(median(self._latencies))

    def on_overload(self, now: float) -> None:
        """429 or 503: half, at most once a second, since one full queue refuses many pages at once."""
        self._ramping = False
        if self._pushed_at is None or now - self._pushed_at >= 1.0:
            self._pushed_at = now
            # A server that refuses has a short queue: two runs that each keep two pages in a queue of four were
            # refused 9 % of their pages (simulated), with one each 1 %.
            self.target = max(0.25, self.target / 2)
            self._set(self._limit / 2)

    def observe_queue(self, running: float | None, waiting: float | None, in_flight: int) -> None:
        """One poll of the server's own queue, about once a second. `in_flight` is our own number."""
        self._queue_known = waiting is not None
        if waiting is None or in_flight == 0:
            self._own_waiting = None
            return
        self.target = min(self.target * TARGET_RECOVERY, float(max(1, self.queue_depth)))
        total = max((running or 0.0) + waiting, float(in_flight))
        own = waiting * in_flight / total
        before = own if self._own_waiting is None else self._own_waiting
        self._own_waiting = before + SMOOTHING * (own - before)
        if self._own_waiting > FLOODED * self.target:
            self._ramping = False
            self._set(self._limit * 0.75)
        elif self._own_waiting > (1 + BAND) * self.target:
            self._ramping = False
            self._set(self._limit * 0.9)
        elif self._own_waiting < (1 - BAND) * self.target and not self._ramping and in_flight >= self.limit:
            self._rise(RISE * self.target, self.ceiling)
        if self.limit > self.max_in_flight and not waiting and (running or 0.0) > self.max_in_flight:
            self.queue_depth = 0  # the server has more slots than the profile's number: the number is then the wish
            self._set(float(self.max_in_flight))

    def _probe_upwards(self, in_flight: int) -> None:
        if self._safe_limit < self.max_in_flight and in_flight >= self._safe_limit:
            self._successes += 1
            if self._successes >= PROBE_ROUNDS * self._safe_limit * PROBE_BACKOFF ** (self._deaths - 1):
                self._safe_limit += 1
                self._successes = 0

    def _check_latency(self, latest: float) -> None:
        """Once a window, for servers that do not tell their queue: far above the floor means that pages queue."""
        self._latencies.clear()
        self._floor = latest if self._floor is None else min(self._floor * FLOOR_DRIFT, latest)
        if latest > SLOW * self._floor:
            self._set(self._limit * 0.8)

    def _rise(self, step: float, top: int) -> None:
        if self._limit < top:
            self._set(min(self._limit + step, float(top)))

    def _set(self, limit: float) -> None:
        self._limit = min(max(limit, 1.0), float(self.ceiling))
