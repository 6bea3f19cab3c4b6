"""One page in the fleet: sent, sent again because of its text or its server, and ended in one transcript.

Here belongs the order of events for one page, and its record of attempts. Not here: which server takes it
(dispatcher.py), what a text is worth (ladder.py), what a fault means for the next try (failover.py).
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

from ocr_pipeline.ocr.fleet.failover import MAX_OWN_FAULTS, Evidence, FaultHistory, GaveUp, Poisoned
from ocr_pipeline.ocr.fleet.live_backend import LiveBackend, PendingRequest
from ocr_pipeline.ocr.fleet.routing import Choice, PageView
from ocr_pipeline.ocr.quality.ladder import Tried, next_rung, settled
from ocr_pipeline.ocr.quality.verdict import Verdict, judge
from ocr_pipeline.ocr.transcriber import Transcriber
from ocr_pipeline.ocr.vllm.answers import Answer, Ask, Fault, Rung
from ocr_pipeline.ocr.vllm.backends import BackendsConfig
from ocr_pipeline.ocr.vllm.client import request_body
from ocr_pipeline.records import Attempt, PageImage, PageStatus, Reason, Transcript

log = logging.getLogger(__name__)

URGENT_PRIORITY = -1  # vLLM: lower is earlier; servers without the priority policy accept it too (0.32, measured)
MAX_DETAIL = 500  # characters
SENDERS_FIRST = 0.004  # seconds; httpx needs some ten rounds of the loop to send a request

OnPoisoned = Callable[[Poisoned], Awaitable[None]]


class Queue(Protocol):
    """Where a page waits until it is sent to a server, or given up."""

    def enqueue(self, page_task: PageTask) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingContext:
    """What all pages of a fleet are read with."""

    config: BackendsConfig
    recipe_id: str
    queue: Queue
    clock: Callable[[], float]
    outage_wait: float  # seconds
    cpu: Transcriber | None
    on_poisoned: OnPoisoned | None
    judging_lock: asyncio.Lock  # one text at a time


class PageTask:
    """One call of `transcribe`. The fleet sends it (`send`, `hedge`), its requests come back to it (`completed`)."""

    def __init__(self, context: ReadingContext, image: PageImage, previous: Transcript | None) -> None:
        self.image = image
        self.document_id = image.document_id
        self.page_number = image.page_number
        self.urgent = image.urgent
        self.history = FaultHistory()
        self.pending: list[PendingRequest] = []
        self.hedged = False  # asked a second time because it was late; once for each way of asking
        self.stranded_since: float | None = None  # refused by one server, and no other is there
        self._context = context
        self._model = context.config.model
        self._rung: Rung = self._model.rungs[0]
        self._tried: list[Tried] = []
        self._attempts = list(previous.attempts) if previous is not None else []
        self._requests_sent = max((attempt.attempt for attempt in self._attempts), default=0)
        self._answers: list[Answer] = []
        self._died_with: list[tuple[LiveBackend, int]] = []  # which of its deaths
        self._events: asyncio.Queue[PendingRequest | GaveUp] = asyncio.Queue()
        if previous is not None and previous.reason is Reason.POISONED:
            self.history.mark_poisoned()  # somebody asked for it: alone from the start

    @property
    def asked_before(self) -> bool:
        return self._requests_sent > 0

    @property
    def is_fresh(self) -> bool:
        """Nothing has happened to it yet: where one such page of a document cannot go, no other can."""
        return not self._tried and not self.history.avoid and not self.history.refused

    # -- called by the dispatcher and by requests --------------------------------------------------------------------

    def view(self, now: float, ahead: int) -> PageView:
        return PageView(
            urgent=self.urgent,
            avoid=self.history.avoided(now),
            quality=self._rung.name if self._tried else "",
            not_on=self._tried[-1].backend if self._tried and self._rung.other_backend else None,
            ahead=ahead,
        )

    def send(self, backend: LiveBackend, choice: Choice, evidence: Evidence = Evidence.NOT_ALONE) -> None:
        self._requests_sent += 1
        ask = Ask(
            jpeg=self.image.jpeg,
            rung=self._rung,
            request_id=f"{self.document_id}-{self.page_number:04d}-{self._requests_sent}",
            priority=URGENT_PRIORITY if self.urgent else 0,
            timeout=backend.config.timeout,
        )
        self.pending.append(backend.send(self, ask, choice, self._requests_sent, evidence))

    def hedge(self, backend: LiveBackend, choice: Choice) -> None:
        self.hedged = True
        self.send(backend, choice)

    def completed(self, request: PendingRequest) -> None:
        self.pending.remove(request)
        self._events.put_nowait(request)

    def give_up(self, gave_up: GaveUp) -> None:
        self._events.put_nowait(gave_up)

    def clear_false_alarms(self) -> bool:
        """No suspect any more: each server that seemed to die with this page has turned out to live on."""
        if not self._died_with or not all(backend.deaths.was_false_alarm(death) for backend, death in self._died_with):
            return False
        self._died_with.clear()
        self.history.clear_deaths()
        return not self.history.suspect

    # -- requests and their answers --------------------------------------------------------------------------------

    async def read(self) -> Transcript:
        """Asks until there is a good text, no way to ask is left, or the page is given up."""
        try:
            rung = next_rung(self._model.rungs, self._tried)
            while rung is not None:
                self._rung, self.hedged = rung, False
                gave_up = await self._ask()
                if gave_up is not None:
                    return await self._given_up(gave_up)
                rung = next_rung(self._model.rungs, self._tried)
            return self._settled()
        finally:
            await self._cancel_pending("cancelled")

    async def _ask(self) -> GaveUp | None:
        """One rung: sends the page, wherever and however often, until a text is there (None) or no use is left."""
        self._context.queue.enqueue(self)
        while True:
            event = await self._events.get()
            if isinstance(event, GaveUp):
                return event
            await self._let_senders_run(event)
            if self._record(event, await self._evidence(event)):
                await self._cancel_pending("hedged")  # the first good answer wins
                return None
            if self.pending:
                continue  # asked elsewhere too: that one may come
            if (gave_up := self._reason_to_give_up()) is not None:
                return gave_up
            self._context.queue.enqueue(self)

    async def _let_senders_run(self, request: PendingRequest) -> None:
        """Lets the requests out that fill the slots which became free, before this text is judged.

        Judging takes 5 ms of the loop. Of 16 answers that come at once, each would be judged before the first slot
        is filled again: 80 ms of 16 idle slots (10 % of a page's time).
        """
        if request.answer is not None and request.answer.fault is None:
            async with self._context.judging_lock:
                await asyncio.sleep(SENDERS_FIRST)

    async def _evidence(self, request: PendingRequest) -> Evidence:
        """What a death says against this page. One that was none is a fault like others."""
        if request.answer is None or request.answer.fault is not Fault.DEATH:
            return Evidence.NOT_ALONE
        evidence = await request.backend.deaths.evidence_against(request.evidence, request.answer)
        if evidence is None:
            request.answer = replace(request.answer, fault=Fault.TRANSIENT)
        return evidence or Evidence.NOT_ALONE

    def _record(self, request: PendingRequest, evidence: Evidence = Evidence.NOT_ALONE) -> bool:
        """Takes down one request that is over; True where it brought a text."""
        answer, backend = request.answer, request.backend
        assert answer is not None  # noqa: S101 - a completed request has its answer
        self._answers.append(answer)
        verdict: Verdict | None = None
        if answer.fault is None:
            verdict = judge(answer.text, answer.finish_reason, self.image, self._model.format)
            self._tried.append(Tried(request.ask.rung, backend.name, answer, verdict))
            self.history.reset()
        elif answer.outcome != "hedged":
            now = self._context.clock()
            jitter = random.random()  # noqa: S311 - spreads retries, hides nothing
            self.history.record(
                backend.name,
                answer,
                now,
                evidence=evidence,
                reads_others=backend.reads_others_than(request),
                jitter=jitter,
            )
            if answer.fault is Fault.DEATH:
                self._died_with.append((backend, request.deaths_at_send + 1))
        self._attempts.append(
            Attempt(
                document_id=self.document_id,
                page_number=self.page_number,
                attempt=request.attempt,
                backend=backend.name,
                model=self._model.model,
                choice=request.choice.reason,
                started_at=request.started_at,
                seconds=round(answer.seconds, 3),
                outcome=verdict.reason.value if verdict is not None and verdict.reason else answer.outcome,
                finish_reason=answer.finish_reason,
                prompt_tokens=answer.prompt_tokens,
                completion_tokens=answer.completion_tokens,
                score=verdict.score if verdict is not None else None,
                text=answer.text if verdict is not None else None,
            )
        )
        return verdict is not None

    def _reason_to_give_up(self) -> GaveUp | None:
        servers = [backend.name for backend in self._context.config.backends]
        if self.history.poisoned:
            for backend, _ in self._died_with:
                backend.admission.undo_last_death()
            detail = f"in flight at {self.history.deaths} deaths, alone the last time: {self.history.last}"
            return GaveUp(Reason.POISONED, detail)
        if self.history.refused_by_all(servers):
            return GaveUp(Reason.REFUSED, "; ".join(f"{name}: {why}" for name, why in self.history.refused.items()))
        if self.history.own_faults >= MAX_OWN_FAULTS:
            return GaveUp(Reason.ENGINE_FAILED, f"this program failed {MAX_OWN_FAULTS} times to ask for the page")
        if self.history.exhausted(self._context.clock(), self._context.outage_wait):
            return GaveUp(Reason.BACKEND_UNAVAILABLE, f"no answer in time; at last {self.history.last}")
        return None

    async def _cancel_pending(self, outcome: str) -> None:
        """Ends what is still under way, and takes it down: every request that was sent is an attempt."""
        tasks = [request.task for request in self.pending if request.task is not None]
        for request in list(self.pending):
            request.cancel(outcome)
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)
        while not self._events.empty():
            event = self._events.get_nowait()
            if isinstance(event, PendingRequest):
                self._record(event)

    # -- the end ---------------------------------------------------------------------------------------------------

    def _settled(self) -> Transcript:
        end = settled(self._tried)
        return self._transcript(end.taken, end.reason, end.taken.verdict.detail or None)

    async def _given_up(self, gave_up: GaveUp) -> Transcript:
        if gave_up.reason is Reason.REFUSED and self._tried:
            return self._settled()  # it had a text by another prompt, and this is why it was asked again
        if gave_up.reason is Reason.POISONED:
            await self._report_poisoned()
        failed = self._transcript(self._tried[-1] if self._tried else None, gave_up.reason, gave_up.detail)
        if gave_up.reason is Reason.BACKEND_UNAVAILABLE and self._context.cpu is not None:
            return await self._read_on_cpu(self._context.cpu, failed)
        return failed

    def _transcript(self, taken: Tried | None, reason: Reason | None, detail: str | None) -> Transcript:
        answer = taken.answer if taken else None
        verdict = taken.verdict if taken else None
        attempts = tuple(sorted(self._attempts, key=lambda attempt: attempt.attempt))
        return Transcript(
            recipe_id=self._context.recipe_id,
            image_sha256=self.image.sha256,
            status=PageStatus.FAILED if reason else PageStatus.OK,
            text=answer.text if answer and not reason else "",
            format=self._model.format,
            engine="vllm",
            backend=taken.backend if taken else (attempts[-1].backend if attempts else ""),
            model=self._model.model,
            width=self.image.width,
            height=self.image.height,
            reason=reason,
            detail=detail[:MAX_DETAIL] if detail else None,
            finish_reason=answer.finish_reason if answer else None,
            quality=verdict.score if verdict else None,
            agreement=verdict.agreement if verdict else None,
            prompt_tokens=answer.prompt_tokens if answer else None,
            completion_tokens=answer.completion_tokens if answer else None,
            seconds=round(answer.seconds, 3) if answer else 0.0,
            finished_at=datetime.now(UTC),
            attempts=attempts,
        )

    async def _read_on_cpu(self, cpu: Transcriber, failed: Transcript) -> Transcript:
        """The third, slower place. The transcript stays under this recipe: that is what was asked for."""
        known = {attempt.attempt for attempt in failed.attempts}
        transcript = await cpu.transcribe(self.image, failed)
        choice = f"outage: cpu after {self._context.outage_wait:g} s"
        attempts = tuple(
            attempt if attempt.attempt in known else replace(attempt, choice=choice) for attempt in transcript.attempts
        )
        return replace(transcript, recipe_id=self._context.recipe_id, attempts=attempts)

    async def _report_poisoned(self) -> None:
        backend = self._died_with[-1][0].config
        log.error("page %d of %s killed %s: not sent again", self.page_number, self.document_id, backend.name)
        if self._context.on_poisoned is None:
            return
        ask = Ask(jpeg=b"", rung=self._rung, request_id="", priority=URGENT_PRIORITY if self.urgent else 0)
        body = json.loads(request_body(backend, ask))
        try:
            await self._context.on_poisoned(Poisoned(self.image, backend.name, body, tuple(self._answers)))
        except Exception:
            log.exception("keeping what reproduces page %d of %s", self.page_number, self.document_id)
