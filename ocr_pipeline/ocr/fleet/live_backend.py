"""One server of the fleet at run time: its client, its pending requests, and its state (breaker, admission, speed).

Here belongs sending, and what an answer changes in that state. Not here: polling the server (watch.py), whether it died
(deaths.py), which page comes next (dispatcher.py), what a page does with its answer (page_task.py).
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
from ocr_pipeline.ocr.fleet.deaths import Deaths
from ocr_pipeline.ocr.fleet.failover import Evidence
from ocr_pipeline.ocr.fleet.health import Breaker, BreakerRules, Condition
from ocr_pipeline.ocr.fleet.routing import BackendState, Choice
from ocr_pipeline.ocr.fleet.server_metrics import ServerMetrics
from ocr_pipeline.ocr.fleet.speed import Speed
from ocr_pipeline.ocr.fleet.tenancy import Tenancy
from ocr_pipeline.ocr.vllm.answers import Answer, Ask, Fault
from ocr_pipeline.ocr.vllm.backends import Backend
from ocr_pipeline.ocr.vllm.client import VllmClient

log = logging.getLogger(__name__)

OVERLOADED = ("http_429", "http_503")
UNREACHABLE = ("connect_failed",)  # nobody listens: opens the breaker at once
CLIENT_SIDE = ("client_failed", "connection_stale", "hedged", "cancelled", "hung")  # say nothing of the server
RECENT = 60.0  # seconds: so long a good answer proves that the server reads pages
STALE_SPEED = 60.0  # seconds without an answer: a server that crawled then is worth another try
LONGEST_PAUSE = 60.0  # seconds that a Retry-After may keep all pages away
DEATH_OUTCOME = {"connection_stale": "connection_lost", "engine_error": "engine_dead"}  # once it is confirmed


class RequestOwner(Protocol):
    """Who is called back with the answer."""

    def completed(self, request: PendingRequest) -> None: ...


@dataclass(eq=False, slots=True)
class PendingRequest:
    """One request that was sent and has no answer yet."""

    owner: RequestOwner
    backend: LiveBackend
    ask: Ask
    choice: Choice
    attempt: int
    evidence: Evidence  # what the server's death would say against the page
    probe: bool
    epoch: int  # of the backend, when it was sent
    deaths_at_send: int  # of the backend
    sent_at: float  # fleet's clock
    started_at: datetime
    task: asyncio.Task[None] | None = None
    cancelled_as: tuple[str, Fault] | None = None  # outcome and fault of our own cancel
    answer: Answer | None = None
    released: bool = False

    @property
    def alone(self) -> bool:
        return self.evidence is not Evidence.NOT_ALONE

    def cancel(self, outcome: str, fault: Fault = Fault.TRANSIENT) -> None:
        """Cancels the request; it completes with this outcome."""
        if self.answer is None and self.cancelled_as is None and self.task is not None:
            self.cancelled_as = (outcome, fault)
            self.task.cancel()


class LiveBackend:
    """One server."""

    def __init__(
        self,
        config: Backend,
        *,
        rules: BreakerRules,
        recovery_timeout: float,
        clock: Callable[[], float],
        changed: Callable[[], None],
    ) -> None:
        """`recovery_timeout`: longest wait for its return, in seconds. `changed` is called when it may take pages that
        it did not take before.
        """
        self.config = config
        self.name = config.name
        self.client = VllmClient(config)
        self.breaker = Breaker(rules)
        self.admission = Admission(config.max_in_flight)
        self.speed = Speed()
        self.metrics = ServerMetrics()
        self.pending: set[PendingRequest] = set()
        self.reserved_for: RequestOwner | None = None  # a page that is to be alone here
        self.deaths = Deaths(self.client, recovery_timeout=recovery_timeout, clock=clock, changed=changed)
        self.tenancy = Tenancy()
        self.epoch = 0  # counts openings of the breaker: an answer from an earlier epoch says nothing of now
        self.poll_soon = asyncio.Event()  # the time to the next poll has become shorter
        self._clock = clock
        self._changed = changed
        self._paused_until = 0.0

    # -- state -----------------------------------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        return len(self.pending)

    @property
    def is_paused(self) -> bool:
        """Takes no page at this moment although its breaker is not open."""
        held_alone = any(request.alone for request in self.pending)
        return self.deaths.is_confirming or held_alone or self._clock() < self._paused_until

    def reads_others_than(self, request: PendingRequest) -> bool:
        """Whether it gave a text while this page was there, or shortly before."""
        return self.speed.pages > 0 and self.speed.last_at >= request.sent_at - RECENT

    def expected_seconds(self) -> float | None:
        """Seconds a page takes here now. Pages in flight count too: a server that crawls gives no answers to count."""
        now = self._clock()
        if self.speed.average is None or (not self.pending and now - self.speed.last_at > STALE_SPEED):
            return None
        elapsed = median(now - request.sent_at for request in self.pending) if self.pending else 0.0
        return max(self.speed.average, elapsed)

    def state(self) -> BackendState:
        config = self.config
        return BackendState(
            name=self.name,
            size=config.gpu.size,
            condition=self.breaker.condition,
            why=self.breaker.why,
            in_flight=len(self.pending),
            limit=self.admission.limit,
            reserved=self.reserved_for is not None or self.is_paused,
            waiting=self.metrics.waiting if self.pending else None,
            kv_usage=self.metrics.kv_usage,
            seconds=self.expected_seconds(),
            max_pages=config.max_pages,
            shares=config.gpu.document_shares,
        )

    # -- sending ---------------------------------------------------------------------------------------------------

    def reserve(self, owner: RequestOwner, quiet: float) -> None:
        """Keeps the server free for a page that is to be alone, for `quiet` seconds at least, and has it polled more
        often until it is empty.
        """
        self.reserved_for = owner
        self.tenancy.begin_reservation(self._clock(), quiet)
        self.poll_soon.set()

    def evidence_if_sent(self, owner: RequestOwner, patience: float) -> Evidence | None:
        """What a death would say against the page if it were sent now; None where it is not alone yet."""
        if self.reserved_for is not owner or self.pending:
            return None
        return self.tenancy.evidence_if_sent(self._clock(), patience)

    def send(
        self, owner: RequestOwner, ask: Ask, choice: Choice, attempt: int, evidence: Evidence = Evidence.NOT_ALONE
    ) -> PendingRequest:
        """Sends one page now. `owner.completed` is called when it is over, whatever happens but a cancelled owner."""
        request = PendingRequest(
            owner=owner,
            backend=self,
            ask=ask,
            choice=choice,
            attempt=attempt,
            evidence=evidence,
            probe=self.breaker.condition is Condition.HALF_OPEN,
            epoch=self.epoch,
            deaths_at_send=self.deaths.count,
            sent_at=self._clock(),
            started_at=datetime.now(UTC),
        )
        if self.reserved_for is owner:
            self.reserved_for = None
        self.tenancy.invalidate()
        self.pending.add(request)
        request.task = asyncio.create_task(self._run(request), name=f"ask {self.name} {ask.request_id}")
        # a task cancelled before its first step never runs its `finally`
        request.task.add_done_callback(lambda _: self._release(request))
        return request

    async def _run(self, request: PendingRequest) -> None:
        try:
            try:
                answer = await self._answer(request)
                self._account(request, answer)
            except Exception as error:  # a bug of ours: without an answer the page would wait for ever
                log.exception("request %s to %s", request.ask.request_id, self.name)
                elapsed = self._clock() - request.sent_at
                answer = Answer("client_failed", elapsed, fault=Fault.TRANSIENT, detail=type(error).__name__)
            request.answer = answer
        finally:
            self._release(request)
        request.owner.completed(request)

    async def _answer(self, request: PendingRequest) -> Answer:
        try:
            answer = await self.client.ask(request.ask)
            if answer.fault is Fault.DEATH or answer.outcome == "connection_stale":
                answer = await self._confirm_death(request, answer)
        except asyncio.CancelledError:
            if request.cancelled_as is None:
                raise
            outcome, fault = request.cancelled_as
            answer = Answer(outcome, self._clock() - request.sent_at, fault=fault, detail="cancelled")
        return answer

    def _release(self, request: PendingRequest) -> None:
        if request in self.pending:
            self.pending.discard(request)
            self._changed()
        if request.answer is None and request.cancelled_as is not None and not request.released:
            # cancelled before its first step: it still has to complete
            request.answer = Answer(
                request.cancelled_as[0], 0.0, fault=request.cancelled_as[1], detail="cancelled before it was sent"
            )
            request.owner.completed(request)
        request.released = True

    # -- what an answer changes ------------------------------------------------------------------------------------

    def _account(self, request: PendingRequest, answer: Answer) -> None:
        now = self._clock()
        if answer.fault is None or answer.fault is Fault.PAGE:
            if request.epoch == self.epoch:
                self._record_success(request)
            if answer.fault is None:
                self.speed.record(answer, now)
                self.admission.on_success(answer.seconds, len(self.pending))
        elif answer.fault is Fault.CONFIG:
            if self.breaker.condition is not Condition.OPEN:
                log.error("%s takes no page as it is set up: %s", self.name, answer.detail or answer.outcome)
            self._set_breaker(self.breaker.misconfigured(now, answer.detail or answer.outcome))
        elif answer.outcome == "hedged":
            self.speed.at_least(answer.seconds)
        elif answer.fault is Fault.TRANSIENT and answer.outcome not in CLIENT_SIDE:
            if answer.outcome in OVERLOADED:
                self.admission.on_overload(now)
                if answer.retry_after:
                    self._paused_until = max(self._paused_until, now + min(answer.retry_after, LONGEST_PAUSE))
            if request.epoch != self.epoch:
                return
            jitter = random.random()  # noqa: S311 - spreads retries, hides nothing
            if answer.outcome in UNREACHABLE:
                self._set_breaker(self.breaker.opened(now, answer.outcome, jitter=jitter))
            else:
                after = self.breaker.failure(now, answer.outcome, jitter=jitter, retry_after=answer.retry_after)
                self._set_breaker(after)

    def _record_success(self, request: PendingRequest) -> None:
        recovering = self.breaker.condition is Condition.HALF_OPEN
        self.breaker = self.breaker.success()
        if recovering:
            log.info("%s is back: takes pages again, one at first", self.name)
            self.admission.on_recovery()
            self.speed.average = None  # it is another server now, or the same one well again

    def _set_breaker(self, breaker: Breaker) -> None:
        """Takes over the breaker's next state; an opening begins a new epoch."""
        opened = breaker.condition is Condition.OPEN and self.breaker.condition is not Condition.OPEN
        self.breaker = breaker
        if opened:
            self.epoch += 1
            self.reserved_for = None
            log.warning("%s takes no pages for now: %s", self.name, breaker.why)

    # -- death -----------------------------------------------------------------------------------------------------

    async def _confirm_death(self, request: PendingRequest, answer: Answer) -> Answer:
        """A 500 of a dead engine is proof by itself. A lost connection, or an engine's error in other words, counts as
        a death only if /health fails too.

        The same holds for a connection that was lost at once. As a rule it was only stale; but a page that kills a
        server within a quarter of a second must not be taken for that again and again.
        """
        if request.deaths_at_send == self.deaths.count:  # else it died since the page was sent, and others saw it first
            if not (answer.outcome == "engine_dead" or await self.deaths.confirm()):
                return replace(answer, fault=Fault.TRANSIENT)
            if request.deaths_at_send == self.deaths.count:
                self.died(request)
        outcome = DEATH_OUTCOME.get(answer.outcome, answer.outcome)
        return replace(answer, outcome=outcome, fault=Fault.DEATH)

    def died(self, seen_by: PendingRequest | None = None) -> None:
        """The server died: whatever is in flight there is lost, and suspect."""
        if self.breaker.condition is Condition.OPEN:
            self.epoch += 1
        self.deaths.record()
        self.admission.on_death(len(self.pending))
        self._set_breaker(self.breaker.opened(self._clock(), "died"))
        for request in self.pending - {seen_by}:
            request.cancel("connection_lost", Fault.DEATH)

    # -- what a poll changes ---------------------------------------------------------------------------------------

    def health_checked(self, healthy: bool) -> bool:
        """Its /health was read while the breaker was open. Returns whether it takes a page again."""
        self.breaker = self.breaker.health_checked(self._clock(), healthy, jitter=random.random())  # noqa: S311
        return self.breaker.condition is not Condition.OPEN

    def hung(self) -> None:
        """It runs requests and makes no token: they are cancelled."""
        self._set_breaker(self.breaker.opened(self._clock(), "hung"))
        for request in list(self.pending):
            request.cancel("hung")

    async def aclose(self) -> None:
        tasks = [request.task for request in self.pending if request.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.deaths.aclose()
        await self.client.aclose()
