"""The batching engine on a clock of its own: exact times, and what holds whatever comes in whichever order."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocr_pipeline_tests.simulator.engine import Engine, EngineDead, Job
from ocr_pipeline_tests.simulator.options import PROFILES, Options


class Clock:
    """As much of an event loop as the engine needs; time passes only in `run`."""

    def __init__(self, futures: asyncio.AbstractEventLoop) -> None:
        self.now = 0.0
        self._futures = futures
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._numbers = itertools.count()

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[..., Any], *arguments: Any) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, arguments, self._futures)
        heapq.heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    def create_future(self) -> asyncio.Future[None]:
        return self._futures.create_future()

    def run(self, until: float = float("inf")) -> None:
        """Lets time pass, and every timer that is due fire."""
        while self._timers and self._timers[0][0] <= until:
            when, _, timer = heapq.heappop(self._timers)
            if not timer.cancelled():
                self.now = max(self.now, when)
                timer._run()
        if until != float("inf"):
            self.now = max(self.now, until)


class Bench:
    """An engine on such a clock, and what it reported."""

    def __init__(self, futures: asyncio.AbstractEventLoop, **options: Any) -> None:
        self.options = Options(**{"profile": "rtx-4090", **options})
        self.options.check()
        self.clock = Clock(futures)
        self.started: list[Job] = []
        self.ended: list[tuple[Job, float]] = []
        self.most_running = 0
        self.most_kv = 0.0
        self.engine = Engine(self.options, self._heard, cast(asyncio.AbstractEventLoop, self.clock))

    def _heard(self, what: str, job: Job) -> None:
        if what == "start":
            self.started.append(job)
        elif what == "end":
            self.ended.append((job, self.clock.now))
        self.most_running = max(self.most_running, self.engine.running)

    def ask(self, prompt: int = 915, tokens: int = 500, priority: int = 0) -> Job:
        job = self.engine.new_job(prompt, tokens, "stop", priority, "")
        self.engine.submit(job)
        return job

    def seconds(self, job: Job) -> float:
        """When it ended, on the bench's clock."""
        return next(at for ended, at in self.ended if ended is job)


@pytest.fixture(scope="module")
def futures() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def _alone(profile: str, prompt: int, tokens: int) -> float:
    speeds = PROFILES[profile]
    return prompt / speeds.prefill_tokens_per_second + tokens * (speeds.step_seconds + speeds.step_seconds_each)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_page_alone_takes_its_prefill_and_a_step_a_token(futures: asyncio.AbstractEventLoop, profile: str) -> None:
    bench = Bench(futures, profile=profile)
    job = bench.ask(900, 500)
    bench.clock.run()
    assert bench.seconds(job) == pytest.approx(_alone(profile, 900, 500))


def test_speed_divides_all_times(futures: asyncio.AbstractEventLoop) -> None:
    bench = Bench(futures, speed=25)
    job = bench.ask(900, 500)
    bench.clock.run()
    assert bench.seconds(job) == pytest.approx(_alone("rtx-4090", 900, 500) / 25)


def test_pages_together_are_each_slower_and_in_all_faster(futures: asyncio.AbstractEventLoop) -> None:
    bench = Bench(futures)
    jobs = [bench.ask(900, 500) for _ in range(32)]
    bench.clock.run()
    last = max(bench.seconds(job) for job in jobs)
    alone = _alone("rtx-4090", 900, 500)
    assert alone < last < 32 * alone


def test_with_fixed_seconds_a_page_the_slots_are_filled_row_by_row(futures: asyncio.AbstractEventLoop) -> None:
    bench = Bench(futures, seconds_per_page=0.8, max_num_seqs=4)
    jobs = [bench.ask() for _ in range(10)]
    assert (bench.engine.running, bench.engine.waiting) == (4, 6)
    bench.clock.run()
    assert [bench.seconds(job) for job in jobs] == pytest.approx([0.8] * 4 + [1.6] * 4 + [2.4] * 2)


def test_a_hang_stops_everything_and_afterwards_it_goes_on_where_it_was(futures: asyncio.AbstractEventLoop) -> None:
    bench = Bench(futures)
    job = bench.ask(900, 500)
    bench.clock.run(until=2.0)
    before = bench.engine.generation_tokens
    assert before > 0
    bench.engine.set_factor(0)
    bench.clock.run(until=100.0)
    assert bench.engine.generation_tokens == before
    assert bench.engine.running == 1
    bench.engine.set_factor(1)
    bench.clock.run()
    assert bench.seconds(job) == pytest.approx(98 + _alone("rtx-4090", 900, 500))


def test_a_crawl_is_ten_times_slower_from_the_moment_it_begins(futures: asyncio.AbstractEventLoop) -> None:
    bench = Bench(futures, seconds_per_page=1.0)
    job = bench.ask()
    bench.clock.run(until=0.5)
    bench.engine.set_factor(0.1)
    bench.clock.run()
    assert bench.seconds(job) == pytest.approx(0.5 + 5.0)


def test_first_come_first_served_whatever_the_priorities(futures: asyncio.AbstractEventLoop) -> None:
    bench = Bench(futures, max_num_seqs=1)
    jobs = [bench.ask(priority=priority) for priority in (0, 5, -5)]
    bench.clock.run()
    assert bench.started == jobs


def test_under_the_priority_policy_the_lowest_number_goes_first(futures: asyncio.AbstractEventLoop) -> None:
    bench = Bench(futures, max_num_seqs=1, scheduling_policy="priority")
    first, late, early = (bench.ask(priority=priority) for priority in (0, 5, -5))
    bench.clock.run()
    assert bench.started == [first, early, late]


def test_a_client_that_leaves_during_its_prefill_makes_room_at_once(futures: asyncio.AbstractEventLoop) -> None:
    bench = Bench(futures)
    leaver, stayer = bench.ask(8000, 500), bench.ask(900, 500)
    bench.clock.run(until=0.01)
    bench.engine.abort(leaver)
    bench.clock.run()
    assert bench.seconds(stayer) == pytest.approx(0.01 + _alone("rtx-4090", 900, 500))


def test_full_memory_pushes_the_newest_out_and_it_still_ends_whole(futures: asyncio.AbstractEventLoop) -> None:
    bench = Bench(futures, kv_tokens=8192, max_num_seqs=8)
    jobs = [bench.ask(900, 3000) for _ in range(6)]
    bench.clock.run()
    assert bench.engine.counters.preemptions > 0
    assert {job for job, _ in bench.ended} == set(jobs)
    assert bench.engine.generation_tokens == 6 * 3000
    assert bench.engine.counters.prompt_tokens == 6 * 900  # counted once, as vLLM does


def test_out_of_memory_is_reported_when_the_tokens_in_the_slots_pass_the_limit(
    futures: asyncio.AbstractEventLoop,
) -> None:
    bench = Bench(futures)
    dead: list[int] = []

    def out_of_memory() -> None:
        dead.append(sum(job.prompt_tokens for job in bench.started) + bench.engine.generation_tokens_so_far)
        bench.engine.die()

    bench.engine.on_out_of_memory = out_of_memory
    bench.engine.memory_limit = 4000
    jobs = [bench.ask(900, 1000) for _ in range(3)]
    bench.clock.run()
    assert dead == [pytest.approx(4000, abs=3)]
    assert all(job.answer.exception() is not None for job in jobs)


@settings(max_examples=60, deadline=None)
@given(
    arrivals=st.lists(
        st.tuples(st.floats(0, 3), st.integers(1, 1500), st.integers(1, 2000), st.one_of(st.none(), st.floats(0, 5))),
        min_size=1,
        max_size=30,
    ),
    slots=st.integers(1, 8),
    memory=st.integers(8192, 20_000),
    seconds=st.one_of(st.none(), st.floats(0.01, 2)),
)
def test_whatever_comes_slots_and_memory_hold_and_every_token_is_counted_once(
    arrivals: list[tuple[float, int, int, float | None]], slots: int, memory: int, seconds: float | None
) -> None:
    futures = asyncio.new_event_loop()
    try:
        bench = Bench(futures, max_num_seqs=slots, kv_tokens=memory, seconds_per_page=seconds)
        jobs: list[Job] = []
        for at, prompt, tokens, leaves_after in arrivals:

            def arrive(prompt: int = prompt, tokens: int = tokens, leaves: float | None = leaves_after) -> None:
                job = bench.ask(prompt, tokens)
                jobs.append(job)
                if leaves is not None:
                    bench.clock.call_at(bench.clock.now + leaves, bench.engine.abort, job)

            bench.clock.call_at(at, arrive)
        seen = 0
        for tick in range(100):  # readings in between, as a scrape of /metrics takes them
            bench.clock.run(until=tick / 5)
            assert bench.engine.kv_usage <= 1
            assert bench.engine.generation_tokens >= seen
            seen = bench.engine.generation_tokens
        bench.clock.run()
    finally:
        futures.close()
    answered = [job for job in jobs if job.answer.done()]
    left = [job for job in jobs if job.finish_reason == "abort"]
    assert bench.most_running <= slots
    assert len(answered) + len(left) == len(jobs) == len(bench.ended)
    assert (bench.engine.running, bench.engine.waiting, bench.engine.kv_usage) == (0, 0, 0)
    least = sum(job.tokens for job in answered)
    assert least <= bench.engine.generation_tokens <= least + sum(job.tokens for job in left)
    assert bench.engine.counters.finished["stop"] == len(answered)


def test_an_engine_that_runs_out_of_memory_as_a_request_comes_or_goes_says_nothing_more(
    futures: asyncio.AbstractEventLoop,
) -> None:
    for last_event in ("comes", "goes"):
        bench = Bench(futures, seconds_per_page=1.0, max_num_seqs=4)
        bench.engine.memory_limit = 2200
        bench.engine.on_out_of_memory = bench.engine.die
        first, second = bench.ask(900, 500), bench.ask(900, 500)
        bench.clock.now = 0.9  # the timer is late: memory ran out at 0.4
        if last_event == "comes":
            third = bench.ask(900, 500)
            assert isinstance(third.answer.exception(), EngineDead)
        else:
            bench.engine.abort(first)
        assert bench.engine.dead
        assert isinstance(second.answer.exception(), EngineDead)
        assert bench.started == [first, second]
        assert bench.ended == []
        first.answer.exception()
