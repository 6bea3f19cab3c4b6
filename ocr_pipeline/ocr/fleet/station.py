"""One server of the fleet at run time: its client, the pages in flight there, and what is known of its state.

Here belongs what is true of one server: sending, taking answers into account (breaker, admission, speed), watching it
while pages are there. Not here: which page comes (dispatcher.py), what a page does with its answer (page_reading.py).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from statistics import median
from typing import Protocol

from ocr_pipeline.ocr.fleet.admission import Admission
from ocr_pipeline.ocr.fleet.company import Company, held_by
from ocr_pipeline.ocr.fleet.failover import Evidence
from ocr_pipeline.ocr.fleet.health import Breaker, BreakerRules, Condition, Progress
from ocr_pipeline.ocr.fleet.routing import BackendState, Choice
from ocr_pipeline.ocr.fleet.vitals import Vitals, parse_metrics
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
EWMA = 0.2
DEATHS_OWN_NAME = {"connection_stale": "connection_lost", "engine_error": "engine_dead"}  # once it is sure
CONFIRM_AFTER = (0.0, 0.3)  # seconds before each look: a server whose connections are lost refuses at once


@dataclass(frozen=True, slots=True)
class Watching:
    """How closely servers are watched. Seconds."""

    look: float = 1.0  # between looks at /metrics while pages are in flight
    hung: float = 45.0  # requests run and no token comes: longer than any prefill that was measured
    unreachable: float = 30.0  # neither /metrics nor /health answer, while pages are in flight
    # Longest wait for a server's return, which tells whether it died or only its connection did: a vLLM that starts
    # again needs 60 to 120 (measured).
    back: float = 180.0


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


@dataclass(slots=True)
class Speed:
    """What a page takes on a server, in seconds, by the answers of late."""

    average: float | None = None  # exponentially weighted, so that a crawl shows after a few answers
    last_at: float = 0.0  # fleet's clock
    pages: int = 0
    tokens: int = 0

    def add(self, answer: Answer, now: float) -> None:
        self.last_at = now
        self.average = answer.seconds if self.average is None else self.average + EWMA * (answer.seconds - self.average)
        self.pages += 1
        self.tokens += answer.completion_tokens or 0

    def at_least(self, seconds: float) -> None:
        """A page that was taken back after `seconds` would have taken longer: else a crawl that hedging hides is
        never learnt."""
        if self.average is not None and seconds > self.average:
            self.average += (seconds - self.average) / 2


class Station:
    """One server. Everything but `launch` and `watch` returns at once."""

    def __init__(
        self,
        backend: Backend,
        *,
        rules: BreakerRules,
        watching: Watching,
        clock: Callable[[], float],
        changed: Callable[[], None],
    ) -> None:
        self.backend = backend
        self.name = backend.name
        self.client = VllmClient(backend)
        self.breaker = Breaker(rules)
        self.admission = Admission(backend.max_in_flight)
        self.speed = Speed()
        self.vitals = Vitals()
        self.flights: set[Flight] = set()
        self.reserved_for: Reader | None = None  # a page that is to be alone here
        self.deaths = 0
        self._survived: set[int] = set()  # of those deaths, by number: it was only the way to the server
        self.company = Company()
        self._called = asyncio.Event()  # the pause between two looks has become another
        self._returned: asyncio.Future[bool | None] | None = None  # since the last death: is it another process?
        self._watching = watching
        self._clock = clock
        self._changed = changed
        self._progress = Progress()
        self._silent_since: float | None = None
        self._tells_metrics = True
        self._paused_until = 0.0
        self._era = 0  # counts openings: an answer of an earlier era says nothing of now
        self._confirming: asyncio.Task[bool] | None = None

    # -- what others want to know ----------------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        return len(self.flights)

    @property
    def in_doubt(self) -> bool:
        """Takes no page at this moment although its breaker is not open."""
        held_alone = any(flight.alone for flight in self.flights)
        return self._confirming is not None or held_alone or self._clock() < self._paused_until

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
        self._called.set()

    def solitude(self, reader: Reader, patience: float) -> Evidence | None:
        """What a death would say against the page if it were sent now; None where it is not alone yet."""
        if self.reserved_for is not reader or self.flights:
            return None
        return self.company.solitude(self._clock(), patience, tells=self._tells_metrics)

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
            era=self._era,
            deaths=self.deaths,
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
            if flight.era == self._era:
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
            if flight.era != self._era:
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
            self._era += 1
            self.reserved_for = None
            log.warning("%s takes no pages for now: %s", self.name, breaker.why)

    # -- death -----------------------------------------------------------------------------------------------------

    async def _weigh_death(self, flight: Flight, answer: Answer) -> Answer:
        """A dead engine's 500 is evidence by itself; a lost connection, and an engine's error in other words, need a
        failing /health beside it.

        So does a connection that was lost at once: as a rule it was only stale, but a page that kills a server within
        a quarter of a second must not pass for that again and again.
        """
        if flight.deaths == self.deaths:  # else it died since the page was sent, and others saw it first
            if not (answer.outcome == "engine_dead" or await self._confirm_death()):
                return replace(answer, fault=Fault.TRANSIENT)
            if flight.deaths == self.deaths:
                self._died(flight)
        outcome = DEATHS_OWN_NAME.get(answer.outcome, answer.outcome)
        return replace(answer, outcome=outcome, fault=Fault.DEATH)

    async def _confirm_death(self) -> bool:
        if self._confirming is None:
            self._confirming = asyncio.create_task(self._looks_dead(), name=f"is {self.name} dead")
            self._confirming.add_done_callback(self._confirmed)
        return await asyncio.shield(self._confirming)

    def _confirmed(self, task: asyncio.Task[bool]) -> None:
        self._confirming = None
        self._changed()

    async def _looks_dead(self) -> bool:
        for pause in CONFIRM_AFTER:
            await asyncio.sleep(pause)
            if not (await self.client.health()).ok:
                return True
        # well again at once: a supervisor was quick, or it was only the connection
        probed = await self.client.metrics_text()
        return probed.ok and self._progress.seen(parse_metrics(probed.text), 0, self._clock()).restarted

    async def against(self, flight: Flight) -> Evidence | None:
        """What the death with this page in flight says against it; None if the server did not die.

        A dead engine says so. Else a page that was alone waits here for the server's return, since a tunnel that is
        away for a second looks like a death too: a page is not blamed for a death that was none.
        """
        if not flight.alone or flight.answer is None or flight.answer.outcome == "engine_dead":
            return flight.evidence
        restarted = None
        if self._returned is not None:
            with suppress(TimeoutError):
                restarted = await asyncio.wait_for(asyncio.shield(self._returned), self._watching.back)
        if restarted is None:
            return Evidence.DOUBTFUL
        return flight.evidence if restarted else None

    def survived(self, death: int) -> bool:
        """Whether its n-th death has turned out to be none."""
        return death in self._survived

    def _died(self, seen_by: Flight | None = None) -> None:
        """The server died: whatever is in flight there is lost, and suspect."""
        if self.breaker.condition is Condition.OPEN:
            self._era += 1
        self.deaths += 1
        self.admission.died(len(self.flights))
        self._tell_return(None)
        self._returned = asyncio.get_running_loop().create_future()
        self._turn(self.breaker.opened(self._clock(), "died"))
        for flight in self.flights - {seen_by}:
            flight.take_back("connection_lost", Fault.DEATH)

    # -- watching --------------------------------------------------------------------------------------------------

    async def watch(self) -> None:
        """Looks at the server for as long as there is work for the fleet; the caller cancels it."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pause()):
                    await self._called.wait()
                self._called.clear()
                continue
            try:
                await self.look()
            except Exception:
                log.exception("looking at %s", self.name)

    def _pause(self) -> float:
        if self.breaker.condition is not Condition.OPEN:
            # At random moments, so that two runs that wait for an empty server do not both find it so.
            hurry = random.uniform(0.05, 0.3) if self.reserved_for is not None else 1.0  # noqa: S311
            return self._watching.look * hurry
        return min(max(self.breaker.retry_at - self._clock(), 0.05), self._watching.look)

    async def look(self) -> None:
        """One look: at /health when the breaker is open and may be probed, at /metrics while pages are in flight."""
        now = self._clock()
        if self.breaker.condition is Condition.OPEN:
            if now >= self.breaker.retry_at:
                healthy = (await self.client.health()).ok and not await self._still_hangs()
                if healthy:
                    await self._look_who_returned()
                before = self.breaker
                self.breaker = before.looked(self._clock(), healthy, jitter=random.random())  # noqa: S311
                if self.breaker.condition is not before.condition:
                    log.info("%s answers again: one page is sent as a probe", self.name)
                    self._changed()
        elif self.flights or self.reserved_for is not None:
            await self._take_vitals()

    async def _look_who_returned(self) -> None:
        if self._returned is not None and not self._returned.done():
            probed = await self.client.metrics_text()
            self._tell_return(self._progress.has_restarted(parse_metrics(probed.text)) if probed.ok else None)

    def _tell_return(self, restarted: bool | None) -> None:
        if self._returned is not None and not self._returned.done():
            self._returned.set_result(restarted)
            if restarted is False:
                self._survived.add(self.deaths)
                self.admission.absolved()

    async def _still_hangs(self) -> bool:
        """A hung server keeps its requests running and makes no token, and its /health is 200."""
        if self.breaker.why != "hung":
            return False
        probed = await self.client.metrics_text()
        if not probed.ok:
            return False
        vitals = parse_metrics(probed.text)
        before, self._progress = self._progress, self._progress.seen(vitals, 0, self._clock())
        return bool(vitals.running) and vitals.generated == before.generated and not self._progress.restarted

    async def _take_vitals(self) -> None:
        era, ours = self._era, len(self.flights)
        probed = await self.client.metrics_text() if self._tells_metrics else await self.client.health()
        if era != self._era:
            return
        now = self._clock()
        if probed.outcome in ("not_found", "forbidden", "unauthorized"):
            self._tells_metrics = False  # a tunnel that lets only /v1 and /health through: routing does without
        answers = probed.ok or probed.outcome not in ("connect_failed", "connect_timeout", "timeout")
        if not answers:
            self._silent_since = now if self._silent_since is None else self._silent_since
            if now - self._silent_since >= self._watching.unreachable:
                self._silent_since = None
                log.warning("%s has not answered for %.0f s", self.name, self._watching.unreachable)
                self._died()
            return
        self._silent_since = None
        if self.reserved_for is not None and not self.flights:
            self.company.kept_free(now)
        if not (probed.ok and self._tells_metrics):
            return
        self.vitals = parse_metrics(probed.text)
        self.company.looked(self.vitals, max(ours, len(self.flights)))
        for flight in self.flights:
            if flight.alone and (held_by(self.vitals) or 0) > 1:
                flight.evidence = Evidence.DOUBTFUL
        self._progress = self._progress.seen(self.vitals, len(self.flights), now)
        self.admission.looked(self.vitals.running, self.vitals.waiting, len(self.flights))
        oldest = max((now - flight.since for flight in self.flights), default=0.0)
        if min(self._progress.stalled_for(now), oldest) >= self._watching.hung:
            self._turn(self.breaker.opened(now, "hung"))
            for flight in list(self.flights):
                flight.take_back("hung")
        self._changed()

    async def aclose(self) -> None:
        tasks: list[asyncio.Task[None] | asyncio.Task[bool]] = [f.task for f in self.flights if f.task is not None]
        if self._confirming is not None:
            tasks.append(self._confirming)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.client.aclose()
