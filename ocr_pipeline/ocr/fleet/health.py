"""Whether a server may be asked: a circuit breaker, and the progress that tells a hung server from a slow one.

Here belongs pure state only: values go in with the time, the next state comes out. Not here: what /metrics says
(server_metrics.py), asking for it (watch.py), and what becomes of the pages (failover.py, dispatcher.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from ocr_pipeline.ocr.fleet.server_metrics import ServerMetrics


class Condition(StrEnum):
    CLOSED = "closed"  # takes pages
    OPEN = "open"  # takes none until `retry_at`
    HALF_OPEN = "half_open"  # takes one page, the probe


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """Seconds and counts. `first_wait` doubles with each opening that follows without a good answer between."""

    faults: int = 5  # transport faults in a row, with no good answer between, that open the breaker
    first_wait: float = 0.5
    longest_wait: float = 5.0
    health_interval: float = 2.0  # for a server that is away: a poll of its /health costs nothing, its idle slots do
    misconfigured_wait: float = 300.0  # nothing heals a wrong key by itself: poll again after a long while


@dataclass(frozen=True, slots=True)
class Breaker:
    """One server's breaker. Each method gives the breaker that follows; nothing is changed in place."""

    rules: BreakerRules = BreakerRules()
    condition: Condition = Condition.CLOSED
    why: str = ""  # of the last opening: "died", "hung", "http_503", "misconfigured: …"
    faults: int = 0  # in a row
    openings: int = 0  # since the last good answer
    retry_at: float = 0.0  # clock time from which an open breaker may be probed

    def success(self) -> Breaker:
        """A page was answered (with text or with a refusal of that page: the server works)."""
        if self.condition is Condition.CLOSED and not self.faults:
            return self
        if self.condition is Condition.OPEN:
            return self  # an answer sent before the trouble began proves nothing about now
        return Breaker(self.rules)

    def failure(self, now: float, why: str, *, jitter: float = 0.0, retry_after: float | None = None) -> Breaker:
        """A transport fault of one page. `jitter` is 0 to 1, a random number of the caller's."""
        if self.condition is Condition.OPEN:
            return self
        faults = self.faults + 1
        if self.condition is Condition.CLOSED and faults < self.rules.faults:
            return replace(self, faults=faults, why=why)
        return self.opened(now, why, jitter=jitter, at_least=retry_after or 0.0)

    def opened(self, now: float, why: str, *, jitter: float = 0.0, at_least: float = 0.0) -> Breaker:
        """Takes no page from now on: died, hung, or too many faults in a row. Doubles the wait each time."""
        openings = self.openings if self.condition is Condition.OPEN else self.openings + 1
        wait = min(self.rules.longest_wait, self.rules.first_wait * 2 ** min(openings - 1, 16)) * (1 + 0.25 * jitter)
        retry_at = max(self.retry_at if self.condition is Condition.OPEN else 0.0, now + max(wait, at_least))
        return replace(self, condition=Condition.OPEN, why=why, faults=0, openings=openings, retry_at=retry_at)

    def misconfigured(self, now: float, detail: str) -> Breaker:
        """The server refuses every page as it is set up. Out for a long while."""
        retry_at = now + self.rules.misconfigured_wait
        return replace(
            self, condition=Condition.OPEN, why=f"misconfigured: {detail}", faults=0, openings=1, retry_at=retry_at
        )

    def health_checked(self, now: float, healthy: bool, *, jitter: float = 0.0) -> Breaker:
        """An open breaker's /health was read at or after `retry_at`: one page next, or another poll later."""
        if self.condition is not Condition.OPEN or now < self.retry_at:
            return self
        if healthy:
            return replace(self, condition=Condition.HALF_OPEN, faults=0)
        return replace(self, retry_at=now + self.rules.health_interval * (1 + 0.25 * jitter))

    @property
    def is_misconfigured(self) -> bool:
        return self.condition is Condition.OPEN and self.why.startswith("misconfigured")


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of one server: generated tokens must move while requests run.

    /health is 200 for a hung vLLM (vllm issue 39863), so progress is the only sign there is.
    """

    generated: float | None = None
    started: float | None = None
    moved_at: float | None = None  # clock time of the last sign of progress; None: nothing runs
    restarted: bool = False  # the counters went back between the last two polls

    def observe(self, metrics: ServerMetrics, in_flight: int, now: float) -> Progress:
        """The progress after one poll. `in_flight` is our own number: a server that says nothing is not watched."""
        restarted = _went_back(self.generated, metrics.generated) or _later(self.started, metrics.started)
        held = (metrics.running or 0) + (metrics.waiting or 0)  # with its memory full a stuck server runs none
        runs = in_flight > 0 and held > 0 and metrics.generated is not None
        moved = self.moved_at is None or restarted or metrics.generated != self.generated
        return Progress(
            generated=self.generated if metrics.generated is None else metrics.generated,
            started=self.started if metrics.started is None else metrics.started,
            moved_at=(now if moved else self.moved_at) if runs else None,
            restarted=restarted,
        )

    def has_restarted(self, metrics: ServerMetrics) -> bool | None:
        """Whether the server that says this is another process than the one last polled; None: it cannot be told.

        A connection lost and a /health that fails are a dead server or a tunnel with a fault: only this tells which.
        """
        if _went_back(self.generated, metrics.generated) or _later(self.started, metrics.started):
            return True
        same = self.started is not None and metrics.started is not None
        return False if same or (self.generated and metrics.generated is not None) else None

    def stalled_for(self, now: float) -> float:
        """Seconds in which requests ran and no token came; 0 when nothing runs."""
        return 0.0 if self.moved_at is None else max(0.0, now - self.moved_at)


def _went_back(before: float | None, after: float | None) -> bool:
    return before is not None and after is not None and after < before


def _later(before: float | None, after: float | None) -> bool:
    # start times are floats computed from the boot time: half a second is rounding, not a restart
    return before is not None and after is not None and after > before + 0.5
