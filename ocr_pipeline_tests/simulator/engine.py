"""Continuous batching: a waiting queue, slots, prefill, decode at a speed that depends on the batch, KV memory.

Nothing is stepped token by token: between two events (an arrival, a prefill or a page that ends, memory that is full)
all running sequences move at one known speed, so that the next event is computed and slept for. A thousand pages cost
a few thousand events. Not here: HTTP, what the text is, faults but for the speed factor they set.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from time import time

from ocr_pipeline_tests.simulator.options import Options


class EngineDead(Exception):
    """The engine died with this job in it."""


@dataclass(slots=True, eq=False)
class Job:
    """One sequence. Times are wall clock seconds; `tokens` counts the end token."""

    number: int
    prompt_tokens: int
    tokens: int
    priority: int
    sha256: str
    answer: asyncio.Future[None]
    arrived: float
    started: float | None = None  # got its first slot
    first_token: float | None = None
    ended: float | None = None
    preemptions: int = 0
    work: float = 0.0  # decode work in all: tokens, or seconds with --seconds-per-page
    done: float = 0.0  # of it, before the present stretch of decoding
    since: float | None = None  # the decode clock when the present stretch began; None: not decoding
    prefilled_once: bool = False
    finish_reason: str = "stop"  # how it will end if nothing happens


@dataclass(slots=True)
class Counters:
    """What has ended so far. What is under way is added when it is asked for."""

    prompt_tokens: int = 0
    generation_tokens: int = 0
    preemptions: int = 0
    finished: dict[str, int] = field(default_factory=lambda: {"stop": 0, "length": 0, "repetition": 0})


class Engine:
    """`on_event(name, job)` hears of "start" (a slot is taken), "preempted" and "end"."""

    def __init__(
        self,
        options: Options,
        on_event: Callable[[str, Job], None],
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """`loop` is for tests, which have a clock of their own."""
        self._options = options
        self._speeds = options.speeds
        self._on_event = on_event
        self._loop = loop or asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: list[tuple[int, int, Job]] = []
        self._running: dict[Job, None] = {}  # in order of admission
        self._prefilling: deque[Job] = deque()
        self._ends: list[tuple[float, int, Job]] = []  # decode clock at which a job ends
        self._model_time = 0.0  # seconds of the model; stands still while the engine hangs
        self._clock = 0.0  # decode work that each decoding job has been given so far
        self._prefill_ends = 0.0  # model time at which the head of the prefill queue is done
        self._at = self._loop.time()
        self._factor = options.speed
        self._numbers = 0
        self.memory_limit: int | None = None  # tokens above which the engine dies of out of memory
        self.on_out_of_memory: Callable[[], None] = lambda: None
        self.dead = False
        self.counters = Counters()

    # ---- what comes from outside

    def submit(self, job: Job) -> None:
        """Puts a job into the queue; its `answer` is done when its last token is."""
        self._advance()
        if self.dead:  # it ran out of memory on the way to this moment
            job.answer.set_exception(EngineDead())
            return
        seconds = self._options.seconds_per_page
        job.work = float(job.tokens) if seconds is None else max(seconds, 1e-6)
        self._enqueue(job)
        self._admit()
        self._sleep()

    def new_job(self, prompt_tokens: int, tokens: int, finish_reason: str, priority: int, sha256: str) -> Job:
        self._numbers += 1
        answer: asyncio.Future[None] = self._loop.create_future()
        return Job(self._numbers, prompt_tokens, tokens, priority, sha256, answer, time(), finish_reason=finish_reason)

    def abort(self, job: Job) -> None:
        """The client went away. Nothing happens to a job that has ended, nor in a dead engine."""
        if job.ended is not None or self.dead:
            return
        self._advance()
        if job.ended is None and not self.dead:
            self._finish(job, aborted=True)
            self._admit()
            self._sleep()

    def set_factor(self, factor: float) -> None:
        """Speed: 1 is real, 0 is a hang."""
        self._advance()
        self._factor = factor
        self._sleep()

    def die(self) -> None:
        """Every job under way fails with EngineDead."""
        self.dead = True
        for job in [*self._running, *(entry[2] for entry in self._waiting)]:
            if not job.answer.done():
                job.answer.set_exception(EngineDead())
        if self._timer is not None:
            self._timer.cancel()

    # ---- what can be seen

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return sum(1 for entry in self._waiting if entry[2].ended is None)

    @property
    def kv_usage(self) -> float:
        """Share of the KV memory in use, 0 to 1."""
        self._advance()
        return min(1.0, self._kv_used() / self._options.kv_capacity)

    @property
    def generation_tokens(self) -> int:
        self._advance()
        return self.generation_tokens_so_far

    @property
    def generation_tokens_so_far(self) -> int:
        """As of the last event."""
        under_way = [*self._running, *(entry[2] for entry in self._waiting if entry[2].ended is None)]
        return self.counters.generation_tokens + sum(self._generated(job) for job in under_way)

    # ---- the model

    def _decoding(self) -> list[Job]:
        return [job for job in self._running if job.since is not None]

    def _rate(self, decoding: int) -> float:
        """Decode work a second of model time that each decoding job is given."""
        if self._options.seconds_per_page is not None:
            return 1.0
        return 1.0 / (self._speeds.step_seconds + decoding * self._speeds.step_seconds_each)

    def _progress(self, job: Job) -> float:
        return min(job.work, job.done + (self._clock - job.since if job.since is not None else 0.0))

    def _generated(self, job: Job) -> int:
        return int(self._progress(job) / job.work * job.tokens + 1e-9)

    def _kv_used(self) -> float:
        return sum(job.prompt_tokens + self._progress(job) / job.work * job.tokens for job in self._running)

    def _enqueue(self, job: Job) -> None:
        by_priority = self._options.scheduling_policy == "priority"
        heapq.heappush(self._waiting, (job.priority if by_priority else 0, job.number, job))

    def _admit(self) -> None:
        while self._waiting and len(self._running) < self._options.slots:
            job = self._waiting[0][2]
            if job.ended is not None:
                heapq.heappop(self._waiting)
                continue
            # Some room for those that run already, or the next token would push somebody out again.
            need = job.prompt_tokens + self._generated(job) + 16 * len(self._running)
            if self._running and self._kv_used() + need > self._options.kv_capacity:
                return
            heapq.heappop(self._waiting)
            self._start(job)

    def _start(self, job: Job) -> None:
        self._running[job] = None
        if job.started is None:
            job.started = time()
        if self._options.seconds_per_page is not None:
            self._prefilled(job)
        else:
            self._prefilling.append(job)
            if len(self._prefilling) == 1:
                self._prefill_ends = self._model_time + self._prefill_seconds(job)
        self._on_event("start", job)

    def _prefill_seconds(self, job: Job) -> float:
        return (job.prompt_tokens + self._generated(job)) / self._speeds.prefill_tokens_per_second

    def _prefilled(self, job: Job) -> None:
        if not job.prefilled_once:
            job.prefilled_once = True
            self.counters.prompt_tokens += job.prompt_tokens
            job.first_token = time()
        job.since = self._clock
        heapq.heappush(self._ends, (self._clock + job.work - job.done, job.number, job))

    def _leave(self, job: Job) -> None:
        """Takes a job out of its slot; what it has generated stays with it."""
        job.done, job.since = self._progress(job), None
        self._running.pop(job, None)
        if job in self._prefilling:
            head = self._prefilling[0] is job
            self._prefilling.remove(job)
            if head and self._prefilling:
                self._prefill_ends = self._model_time + self._prefill_seconds(self._prefilling[0])

    def _finish(self, job: Job, *, aborted: bool) -> None:
        self._leave(job)
        job.ended = time()
        if aborted:  # vLLM counts it nowhere, not even in request_success_total{finished_reason="abort"} (measured)
            job.finish_reason = "abort"
            self.counters.generation_tokens += self._generated(job)
        else:
            self.counters.generation_tokens += job.tokens
            self.counters.finished[job.finish_reason] += 1
            if not job.answer.done():
                job.answer.set_result(None)
        self._on_event("end", job)

    def _preempt_newest(self) -> None:
        job = next(reversed(self._running))
        self._leave(job)
        job.preemptions += 1
        self.counters.preemptions += 1
        self._enqueue(job)
        self._on_event("preempted", job)

    @property
    def _can_run_out_of_memory(self) -> bool:
        return self.memory_limit is not None and self.memory_limit <= self._options.kv_capacity

    # ---- time

    def _next_event(self) -> tuple[float, str] | None:
        """Model seconds from now, and which: "prefill", "end" or "memory"."""
        events: list[tuple[float, str]] = []
        if self._prefilling:
            events.append((self._prefill_ends - self._model_time, "prefill"))
        while self._ends and not self._is_current(self._ends[0]):
            heapq.heappop(self._ends)
        decoding = self._decoding()
        rate = self._rate(len(decoding))
        if self._ends:
            events.append(((self._ends[0][0] - self._clock) / rate, "end"))
        if decoding and (self._can_run_out_of_memory or len(self._running) > 1):
            limit = min(self._options.kv_capacity, self.memory_limit or self._options.kv_capacity)
            growth = sum(job.tokens / job.work for job in decoding) * rate
            events.append((max(0.0, limit - self._kv_used()) / growth, "memory"))
        return min(events, default=None)

    @staticmethod
    def _is_current(entry: tuple[float, int, Job]) -> bool:
        end, _, job = entry
        return job.since is not None and abs(job.since + job.work - job.done - end) < 1e-9

    def _advance(self) -> None:
        """Brings the model to this moment, through every event that was due."""
        now = self._loop.time()
        left = (now - self._at) * self._factor
        self._at = now
        while not self.dead:
            event = self._next_event()
            step = left if event is None else min(left, max(0.0, event[0]))
            decoding = sum(1 for job in self._running if job.since is not None)
            self._model_time += step
            self._clock += step * self._rate(decoding)
            left -= step
            if event is None or event[0] > step + 1e-9:
                return
            self._happens(event[1])

    def _happens(self, what: str) -> None:
        if what == "prefill":
            job = self._prefilling.popleft()
            if self._prefilling:
                self._prefill_ends = self._model_time + self._prefill_seconds(self._prefilling[0])
            self._prefilled(job)
        elif what == "end":
            job = heapq.heappop(self._ends)[2]
            job.done, job.since = job.work, None
            self._finish(job, aborted=False)
        elif self._can_run_out_of_memory:
            self.on_out_of_memory()
            return
        else:
            self._preempt_newest()
        self._admit()

    def _sleep(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        event = self._next_event()
        if event is not None and self._factor > 0 and not self.dead:
            self._timer = self._loop.call_at(self._at + event[0] / self._factor, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._advance()
        self._sleep()
