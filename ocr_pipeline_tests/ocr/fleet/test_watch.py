"""What polls that are not answered say of a server: that it is gone, or only that its /metrics are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from ocr_pipeline.ocr.fleet.health import BreakerRules, Condition
from ocr_pipeline.ocr.fleet.live_backend import LiveBackend, PendingRequest
from ocr_pipeline.ocr.fleet.routing import Choice
from ocr_pipeline.ocr.fleet.watch import Watch, WatchRules
from ocr_pipeline.ocr.vllm import client
from ocr_pipeline.ocr.vllm.answers import Ask
from ocr_pipeline_tests.ocr.fleet.runs import MODEL, QUICK, document, fleet_of, one, page, read_all, until
from ocr_pipeline_tests.ocr.vllm.odd_server import Request, completion, http, serving

METRICS = "vllm:num_requests_running 1\nvllm:num_requests_waiting 0\n"


@pytest.fixture(autouse=True)
def _short_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PROBE_SECONDS", 0.3)


class Server:
    """Reads pages; its paths in `silent` take requests and never answer them."""

    def __init__(self) -> None:
        self.silent: set[str] = set()
        self.page_seconds = 0.0

    async def handle(self, request: Request, writer: asyncio.StreamWriter) -> None:
        if request.path in self.silent:
            return
        if request.path == "/v1/chat/completions":
            await asyncio.sleep(self.page_seconds)
            writer.write(http(200, completion("some words that stand on this page")))
        else:
            writer.write(http(200, METRICS if request.path == "/metrics" else "", type="text/plain"))

    def gone(self) -> None:
        self.silent = {"/metrics", "/health", "/v1/chat/completions"}

    def back(self) -> None:
        self.silent = set()


class Watched:
    """One server under watch, on a clock that the test moves."""

    def __init__(self, url: str) -> None:
        self.now = 0.0
        [config] = one(url).backends
        self.backend = LiveBackend(
            config, rules=BreakerRules(), recovery_timeout=1.0, clock=lambda: self.now, changed=lambda: None
        )
        self.watch = Watch(self.backend, WatchRules(), clock=lambda: self.now, changed=lambda: None)
        self._image = page("a", 1, 1)

    def completed(self, request: PendingRequest) -> None:
        """The pages' owner; what became of them is in `pending`."""

    def send(self) -> None:
        self.backend.send(self, Ask(self._image.jpeg, MODEL.rungs[0], "a-0001"), Choice("rtx4090", "default"), 1)

    async def read(self) -> None:
        pages = self.backend.speed.pages
        self.send()
        await until(lambda: self.backend.speed.pages > pages)

    async def poll(self, at: float) -> int:
        """The deaths after a poll at this time."""
        self.now = at
        await self.watch.poll()
        return self.backend.deaths.count


@asynccontextmanager
async def watched() -> AsyncIterator[tuple[Server, Watched]]:
    server = Server()
    async with serving(server.handle) as odd:
        watched = Watched(odd.url)
        yield server, watched
        await watched.backend.aclose()


def test_a_server_that_answers_nothing_for_half_a_minute_while_it_has_a_page_is_dead():
    async def scene():
        async with watched() as (server, it):
            server.gone()
            it.send()
            return [await it.poll(at) for at in (10.0, 25.0, 39.0, 40.0)]

    assert asyncio.run(scene()) == [0, 0, 0, 1]


def test_one_poll_that_was_late_since_this_process_stood_still_is_no_death():
    async def scene():
        async with watched() as (server, it):
            server.gone()
            it.send()
            poll = asyncio.create_task(it.watch.poll())
            await asyncio.sleep(0)  # it is sent
            it.now = 40.0  # the machine was paused
            await poll
            return it.backend.deaths.count

    assert asyncio.run(scene()) == 0


def test_a_poll_without_an_answer_before_an_outage_does_not_count_after_it():
    async def scene():
        async with watched() as (server, it):
            server.gone()
            it.send()
            await it.poll(0.0)
            it.backend.died()
            await until(lambda: not it.backend.pending)
            server.back()
            await it.poll(610.0)
            assert it.backend.breaker.condition is Condition.HALF_OPEN
            server.gone()
            it.send()
            return await it.poll(620.0)

    assert asyncio.run(scene()) == 1  # the outage itself


def test_a_poll_without_an_answer_before_an_idle_time_does_not_count_after_it():
    async def scene():
        async with watched() as (server, it):
            server.gone()
            it.send()
            await it.poll(0.0)
            [request] = it.backend.pending
            request.cancel("hedged")
            await until(lambda: not it.backend.pending)
            await it.poll(1.0)
            it.now = 600.0
            it.send()
            return await it.poll(600.0)

    assert asyncio.run(scene()) == 0


def test_a_page_that_is_answered_between_two_polls_that_are_not_shows_that_the_server_lives():
    async def scene():
        async with watched() as (server, it):
            server.silent = {"/metrics", "/health"}
            server.page_seconds = 0.1
            it.send()
            await it.poll(0.0)
            it.now = 25.0
            await it.read()
            server.gone()
            it.send()
            return [await it.poll(at) for at in (31.0, 54.0, 55.0)]

    assert asyncio.run(scene()) == [0, 0, 1]


def test_a_server_whose_metrics_alone_do_not_answer_keeps_its_pages():
    server = Server()
    server.silent, server.page_seconds = {"/metrics"}, 0.5
    tuning = replace(QUICK, watch=WatchRules(interval=0.1, unreachable_after=1.0, metrics_again=1.0))

    async def scene():
        async with serving(server.handle) as odd, fleet_of(one(odd.url), tuning=tuning) as fleet:
            backend = fleet.backends[0]
            run = await read_all(fleet, document("a", 24))
            available, deaths = backend.tenancy.metrics_available, backend.deaths.count
            server.back()
            reading = asyncio.create_task(read_all(fleet, document("b", 24)))
            await until(lambda: backend.tenancy.metrics_available and backend.metrics.running)
            reading.cancel()
            return run, deaths, available

    run, deaths, available = asyncio.run(scene())
    assert (run.statuses, run.outcomes) == ({"ok": 24}, {"ok": 24})
    assert deaths == 0
    assert not available


def test_metrics_that_stop_and_begin_again_are_read_again_and_no_stale_ones_are_used_meanwhile():
    async def scene():
        async with watched() as (server, it):
            server.silent = {"/v1/chat/completions"}
            it.send()
            seen = []
            for at, silent in ((0.0, False), (1.0, True), (2.0, False), (32.0, False)):
                server.silent = {"/v1/chat/completions"} | ({"/metrics"} if silent else set())
                await it.poll(at)
                seen.append((it.backend.metrics.running, it.backend.tenancy.metrics_available))
            return seen

    assert asyncio.run(scene()) == [(1, True), (None, False), (None, False), (1, True)]
