"""One server of the fleet at run time: its client, the pages in flight there, and what is known of its state.

Here belongs what is true of one server: sending, and taking answers into account (breaker, admission, speed). Not here:
looking at it while pages are there (watch.py), whether it died (deaths.py), which page comes (dispatcher.py), what a
page does with its answer (page_reading.py).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from statistics import median
from typing import Protocol

from ocr_pipeline.ocr.fleet.admission import Admission
from ocr_pipeline.ocr.fleet.company import Company
from ocr_pipeline.ocr.fleet.deaths import Deaths
from ocr_pipeline.ocr.fleet.failover import Evidence
from ocr_pipeline.ocr.fleet.health import Breaker, BreakerRules, Condition
from ocr_pipeline.ocr.fleet.routing import BackendState, Choice
from ocr_pipeline.ocr.fleet.speed import Speed
from ocr_pipeline.ocr.fleet.vitals import Vitals
from ocr_pipeline.ocr.vllm.answers import Answer, Ask, Fault
from ocr_pipeline.ocr.vllm.backends import Backend
from ocr_pipeline.ocr.vllm.client import VllmClient

log = logging.getLogger(__name__)

PUSHED_BACK = ("http_429", "http_503")
NOT_THERE = ("connect_failed",)  # nobody listens: no need to count to five
OUR_OWN = ("client_failed", "connection_stale", "hedged", "cancelled", "hung")  # say nothing of it
LATELY = 60.0  # seconds: so long a good answer proves that the server reads pages
STALE_SPEED = 60.0  # seconds without an answer: a server that crawled then is worth another try
LONGEST_PAUSE = 60.0  # seconds that a Retry-After may keep all pages away
DEATHS_OWN_NAME = {"connection_stale": "connection_lost", "engine_error": "engine_dead"}  # once it is sure


class Reader(Protocol):
    """Who gets the answer."""

    def landed(self, flight: Flight) -> None: ...


@dataclass(eq=False, slots=True)
class Flight:
    """One request on its way."""

    reader: Reader
    station: Station
    ask: Ask
    choice: Choice
    attempt: int
    evidence: Evidence  # what the server's death would say against the page
    probe: bool
    era: int  # of the station, when it was sent
    deaths: int  # of the station, when it was sent
    since: float  # fleet's clock
    started_at: datetime
    task: asyncio.Task[None] | None = None
    cause: tuple[str, Fault] | None = None  # why we took it back
    answer: Answer | None = None
    freed: bool = False

    @property
    def alone(self) -> bool:
        return self.evidence is not Evidence.BESIDE

    def take_back(self, outcome: str, fault: Fault = Fault.TRANSIENT) -> None:
        """Cancels the request; it lands with this outcome."""
        if self.answer is None and self.cause is None and self.task is not None:
            self.cause = (outcome, fault)
            self.task.cancel()


class Station:
    """One server."""

    def __init__(
        self,
        backend: Backend,
        *,
        rules: BreakerRules,
        back: float,
        clock: Callable[[], float],
        changed: Callable[[], None],
    ) -> None:
        """`back`: longest wait for its return, in seconds. `changed` is called when it may take pages it did not."""
        self.backend = backend
        self.name = backend.name
        self.client = VllmClient(backend)
        self.breaker = Breaker(rules)
        self.admission = Admission(backend.max_in_flight)
        self.speed = Speed()
        self.vitals = Vitals()
        self.flights: set[Flight] = set()
        self.reserved_for: Reader | None = None  # a page that is to be alone here
        self.deaths = Deaths(self.client, patience=back, clock=clock, changed=changed)
        self.company = Company()
        self.era = 0  # counts openings: an answer of an earlier era says nothing of now
        self.hurry = asyncio.Event()  # the pause between two looks has become another
        self._clock = clock
        self._changed = changed
        self._paused_until = 0.0

    # -- what others want to know ----------------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        return len(self.flights)

    @property
    def in_doubt(self) -> bool:
        """Takes no page at this moment although its breaker is not open."""
        held_alone = any(flight.alone for flight in self.flights)
        return self.deaths.in_doubt or held_alone or self._clock() < self._paused_until

    def reads_others_than(self, flight: Flight) -> bool:
        """Whether it gave a text while this page was there, or shortly before."""
        return self.speed.pages > 0 and self.speed.last_at >= flight.since - LATELY

    def expected(self) -> float | None:
        """Seconds a page takes here now. Pages in flight count too: a server that crawls gives no answers to count."""
        now = self._clock()
        if self.speed.average is None or (not self.flights and now - self.speed.last_at > STALE_SPEED):
            return None
        elapsed = median(now - flight.since for flight in self.flights) if self.flights else 0.0
        return max(self.speed.average, elapsed)

    def state(self) -> BackendState:
        backend = self.backend
        return BackendState(
            name=self.name,
            size=backend.gpu.size,
            condition=self.breaker.condition,
            why=self.breaker.why,
            in_flight=len(self.flights),
            limit=self.admission.limit,
            reserved=self.reserved_for is not None or self.in_doubt,
            waiting=self.vitals.waiting if self.flights else None,
            kv_usage=self.vitals.kv_usage,
            seconds=self.expected(),
            max_pages=backend.max_pages,
            shares=backend.gpu.document_shares,
        )

    # -- sending ---------------------------------------------------------------------------------------------------

    def reserve(self, reader: Reader) -> None:
        """Keeps the server free for a page that is to be alone, and looks more often whether it is."""
        self.reserved_for = reader
        self.company.changed()
        self.hurry.set()

    def solitude(self, reader: Reader, patience: float) -> Evidence | None:
        """What a death would say against the page if it were sent now; None where it is not alone yet."""
        if self.reserved_for is not reader or self.flights:
            return None
        return self.company.solitude(self._clock(), patience)

    def launch(
        self, reader: Reader, ask: Ask, choice: Choice, attempt: int, evidence: Evidence = Evidence.BESIDE
    ) -> Flight:
        """Sends one page now. `reader.landed` is called when it is over, whatever happens but a cancelled reader."""
        flight = Flight(
            reader=reader,
            station=self,
            ask=ask,
            choice=choice,
            attempt=attempt,
            evidence=evidence,
            probe=self.breaker.condition is Condition.HALF_OPEN,
            era=self.era,
            deaths=self.deaths.count,
            since=self._clock(),
            started_at=datetime.now(UTC),
        )
        if self.reserved_for is reader:
            self.reserved_for = None
        self.company.changed()
        self.flights.add(flight)
        flight.task = asyncio.create_task(self._fly(flight), name=f"ask {self.name} {ask.request_id}")
        # a task cancelled before its first step never runs its `finally`
        flight.task.add_done_callback(lambda _: self._free(flight))
        return flight

    async def _fly(self, flight: Flight) -> None:
        try:
            try:
                answer = await self.client.ask(flight.ask)
                if answer.fault is Fault.DEATH or answer.outcome == "connection_stale":
                    answer = await self._weigh_death(flight, answer)
            except asyncio.CancelledError:
                if flight.cause is None:
                    raise
                outcome, fault = flight.cause
                answer = Answer(outcome, self._clock() - flight.since, fault=fault, detail="taken back")
            self._account(flight, answer)
            flight.answer = answer
        finally:
            self._free(flight)
        flight.reader.landed(flight)

    def _free(self, flight: Flight) -> None:
        if flight in self.flights:
            self.flights.discard(flight)
            self._changed()
        if flight.answer is None and flight.cause is not None and not flight.freed:
            # taken back before its first step: it still has to land
            flight.answer = Answer(flight.cause[0], 0.0, fault=flight.cause[1], detail="taken back before it was sent")
            flight.reader.landed(flight)
        flight.freed = True

    # -- what an answer says of the server -------------------------------------------------------------------------

    def _account(self, flight: Flight, answer: Answer) -> None:
        now = self._clock()
        if answer.fault is None or answer.fault is Fault.PAGE:
            if flight.era == self.era:
                self._well(flight)
            if answer.fault is None:
                self.speed.add(answer, now)
                self.admission.answered(answer.seconds, len(self.flights))
        elif answer.fault is Fault.CONFIG:
            if self.breaker.condition is not Condition.OPEN:
                log.error("%s takes no page as it is set up: %s", self.name, answer.detail or answer.outcome)
            self._turn(self.breaker.misconfigured(now, answer.detail or answer.outcome))
        elif answer.outcome == "hedged":
            self.speed.at_least(answer.seconds)
        elif answer.fault is Fault.TRANSIENT and answer.outcome not in OUR_OWN:
            if answer.outcome in PUSHED_BACK:
                self.admission.pushed_back(now)
                if answer.retry_after:
                    self._paused_until = max(self._paused_until, now + min(answer.retry_after, LONGEST_PAUSE))
            if flight.era != self.era:
                return
            jitter = random.random()  # noqa: S311 - spreads retries, hides nothing
            if answer.outcome in NOT_THERE:
                self._turn(self.breaker.opened(now, answer.outcome, jitter=jitter))
            else:
                after = self.breaker.fault(now, answer.outcome, jitter=jitter, retry_after=answer.retry_after)
                self._turn(after)

    def _well(self, flight: Flight) -> None:
        recovering = self.breaker.condition is Condition.HALF_OPEN
        self.breaker = self.breaker.good()
        if recovering:
            log.info("%s is back: takes pages again, one at first", self.name)
            self.admission.recovered()
            self.speed.average = None  # it is another server now, or the same one well again

    def _turn(self, breaker: Breaker) -> None:
        """Takes over the breaker's next state; an opening begins a new era."""
        opened = breaker.condition is Condition.OPEN and self.breaker.condition is not Condition.OPEN
        self.breaker = breaker
        if opened:
            self.era += 1
            self.reserved_for = None
            log.warning("%s takes no pages for now: %s", self.name, breaker.why)

    # -- death -----------------------------------------------------------------------------------------------------

    async def _weigh_death(self, flight: Flight, answer: Answer) -> Answer:
        """A dead engine's 500 is evidence by itself; a lost connection, and an engine's error in other words, need a
        failing /health beside it.

        So does a connection that was lost at once: as a rule it was only stale, but a page that kills a server within
        a quarter of a second must not pass for that again and again.
        """
        if flight.deaths == self.deaths.count:  # else it died since the page was sent, and others saw it first
            if not (answer.outcome == "engine_dead" or await self.deaths.confirm()):
                return replace(answer, fault=Fault.TRANSIENT)
            if flight.deaths == self.deaths.count:
                self.died(flight)
        outcome = DEATHS_OWN_NAME.get(answer.outcome, answer.outcome)
        return replace(answer, outcome=outcome, fault=Fault.DEATH)

    def died(self, seen_by: Flight | None = None) -> None:
        """The server died: whatever is in flight there is lost, and suspect."""
        if self.breaker.condition is Condition.OPEN:
            self.era += 1
        self.deaths.happened()
        self.admission.died(len(self.flights))
        self._turn(self.breaker.opened(self._clock(), "died"))
        for flight in self.flights - {seen_by}:
            flight.take_back("connection_lost", Fault.DEATH)

    # -- what a look says of the server ----------------------------------------------------------------------------

    def looked(self, healthy: bool) -> bool:
        """Its /health was read while the breaker was open. Returns whether it takes a page again."""
        self.breaker = self.breaker.looked(self._clock(), healthy, jitter=random.random())  # noqa: S311
        return self.breaker.condition is not Condition.OPEN

    def hung(self) -> None:
        """It runs requests and makes no token: they are taken back."""
        self._turn(self.breaker.opened(self._clock(), "hung"))
        for flight in list(self.flights):
            flight.take_back("hung")

    async def aclose(self) -> None:
        tasks = [flight.task for flight in self.flights if flight.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.deaths.aclose()
        await self.client.aclose()
