"""One page's history of transport faults, and what follows from it: which servers to avoid for how long, when to give
up.

Here belongs the record of one page's transport troubles, pure. Not here: troubles with the text (ladder.py), and the
health of servers (health.py). The two budgets never mix: nothing here counts as an attempt at quality.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ocr_pipeline.ocr.vllm.answers import Answer, Fault
from ocr_pipeline.records import PageImage, Reason

FIRST_WAIT = 0.5  # seconds; doubles with each fault of this page on this server
LONGEST_WAIT = 30.0
MAX_TIMEOUTS = 3  # of 600 s each, as a rule: a page that is never answered must end
# Outcomes that one page may get every time while all other pages are read. After so many it counts as refused.
PAGE_RELATED = ("http_500", "bad_answer", "engine_error", "answer_too_large", "finish_error", "hung")
MAX_STRIKES = 3
MAX_OWN_FAULTS = 6  # exceptions of this program while it asked for one page: some pass (memory), a bug does not
DOUBTFUL_DEATHS = 2  # with a page alone: as much as one that is proved


class Evidence(StrEnum):
    """What a server's death says against a page that was in flight there."""

    NOT_ALONE = "not_alone"  # other pages of ours were there too
    DOUBTFUL = "doubtful"  # ours was alone; another run may have had one there, or the server may not have died
    PROVED = "proved"  # it was the only page on the server, and the server died


@dataclass(frozen=True, slots=True)
class GaveUp:
    """The page is not asked any more."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Poisoned:
    """Enough to reproduce the death of a server."""

    image: PageImage
    backend: str  # that died last
    request: Mapping[str, Any]  # as it was sent there, without the image
    answers: tuple[Answer, ...]  # every one to this page, in their order


def backoff(faults: int, retry_after: float | None, jitter: float) -> float:
    """Seconds before this page is sent to this server again. `jitter` is 0 to 1: half to all of the wait."""
    wait = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(faults - 1, 10))
    return max(wait * (0.5 + 0.5 * jitter), retry_after or 0.0)


@dataclass(slots=True)
class FaultHistory:
    """One page's history on the wire. Times are the fleet's clock."""

    avoid: dict[str, tuple[float, str]] = field(default_factory=dict)  # server: until when, and what happened
    refused: dict[str, str] = field(default_factory=dict)  # server: its words
    faults: dict[str, int] = field(default_factory=dict)  # by server, transient ones
    strikes: dict[str, int] = field(default_factory=dict)  # server: answers that may be the page's own fault
    timeouts: int = 0
    own_faults: int = 0  # `client_failed`: it is this program that could not ask
    deaths: int = 0  # of servers with this page in flight
    deaths_before: int = 0  # of them in an earlier run
    proved: bool = False  # one of them is this page's doing
    doubtful: int = 0  # of them while this page was the only one of ours
    first_at: float | None = None  # of the transient faults since the last text
    last: str = ""  # "rtx4090 http_503"

    @property
    def suspect(self) -> bool:
        """Was in flight at a death: from then on it is sent with nothing beside it."""
        return self.deaths > 0

    @property
    def poisoned(self) -> bool:
        """Killed a server. A page is blamed only on proof, or when chance has twice pointed at it alone."""
        return self.proved or self.doubtful >= DOUBTFUL_DEATHS

    def record(
        self,
        server: str,
        answer: Answer,
        now: float,
        *,
        evidence: Evidence = Evidence.NOT_ALONE,
        reads_others: bool = False,
        jitter: float,
    ) -> None:
        """Takes down one answer without a text. `reads_others`: the server has given other pages a text of late."""
        self.last = f"{server} {answer.outcome}"
        if answer.fault is Fault.PAGE:
            self.refused[server] = answer.detail or answer.outcome
            return
        if answer.fault is Fault.CONFIG:
            return  # the server is out for everybody; nothing to remember of the page
        if answer.fault is Fault.DEATH:
            self.deaths += 1
            self.proved = self.proved or evidence is Evidence.PROVED
            self.doubtful += evidence is Evidence.DOUBTFUL
            self.avoid[server] = (now, "died")
            return
        self.first_at = now if self.first_at is None else self.first_at
        self.faults[server] = self.faults.get(server, 0) + 1
        self.timeouts += answer.outcome == "timeout"
        self.own_faults += answer.outcome == "client_failed"
        if reads_others and answer.outcome in PAGE_RELATED:
            self.strikes[server] = self.strikes.get(server, 0) + 1
            if self.strikes[server] >= MAX_STRIKES:
                words = f"{answer.outcome} {MAX_STRIKES} times while other pages were read"
                self.refused[server] = f"{words} ({answer.detail})" if answer.detail else words
        self.avoid[server] = (now + backoff(self.faults[server], answer.retry_after, jitter), answer.outcome)

    def mark_poisoned(self) -> None:
        """It is asked again although it killed servers before: one more death is enough."""
        self.deaths = self.deaths_before = 1

    def clear_deaths(self) -> None:
        """No server has died with this page in this run."""
        self.deaths, self.doubtful = self.deaths_before, 0

    def reset(self) -> None:
        """A text came: the troubles on the wire are over, and a page that a server survived alone is cleared."""
        self.deaths = self.doubtful = 0
        self.avoid.clear()
        self.faults.clear()
        self.strikes.clear()
        self.timeouts = self.own_faults = 0
        self.first_at = None

    def avoided(self, now: float) -> Mapping[str, str]:
        """Servers that this page is not sent to now, and why."""
        failed = {server: why for server, (until, why) in self.avoid.items() if until > now}
        return failed | dict.fromkeys(self.refused, "refused")

    def refused_by_all(self, servers: Collection[str]) -> bool:
        """One refusal and one second opinion are enough, however many servers there are."""
        return len(self.refused) >= min(2, len(servers))

    def exhausted(self, now: float, outage_wait: float) -> bool:
        """Too long or too often without an answer, although servers are there."""
        too_long = self.first_at is not None and now - self.first_at >= outage_wait
        return too_long or self.timeouts >= MAX_TIMEOUTS
