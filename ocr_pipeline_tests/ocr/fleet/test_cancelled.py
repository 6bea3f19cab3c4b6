"""Requests that are cancelled, at any moment of their lives, must not cost the client a connection."""

from __future__ import annotations

import asyncio
import random

import pytest

from ocr_pipeline.ocr.vllm.answers import Ask
from ocr_pipeline.ocr.vllm.client import VllmClient
from ocr_pipeline_tests.ocr.fleet.runs import MODEL, QUICK, backend, backlog, document, fleet_of, one, read_all, until
from ocr_pipeline_tests.simulator import SimulatedServer


def test_requests_cancelled_at_random_moments_take_nothing_from_those_that_follow():
    dice = random.Random(7)

    async def scene(server: SimulatedServer) -> list[str]:
        client = VllmClient(backend("one", server, "dgx-spark", 16))
        try:

            async def ask(number: int) -> None:
                image = document("a", 8)[number % 8]
                request = Ask(jpeg=image.jpeg, rung=MODEL.rungs[0], request_id=f"r{number}")
                task = asyncio.create_task(client.ask(request))
                await asyncio.wait([task], timeout=dice.random() * 0.06)
                task.cancel()
                await asyncio.wait([task])

            for start in range(0, 320, 16):
                await asyncio.gather(*(ask(number) for number in range(start, start + 16)))
            await until(lambda: not server.stats()._open)  # the server saw each of them go, or answered it
            before = server.stats().requests
            rest = [
                asyncio.create_task(client.ask(Ask(document("b", 16)[n].jpeg, MODEL.rungs[0], f"b{n}")))
                for n in range(16)
            ]
            answers = await asyncio.gather(*rest)
            assert server.stats().requests == before + 16
            return [answer.outcome for answer in answers]
        finally:
            await client.aclose()

    with SimulatedServer(profile="dgx-spark-as-asked", seconds_per_page=0.02, mean_tokens=20) as server:
        server.ready()
        assert asyncio.run(scene(server)) == ["ok"] * 16


@pytest.mark.slow
def test_after_a_death_with_all_slots_full_the_server_is_filled_again():
    async def scene(server: SimulatedServer) -> None:
        async with fleet_of(one(server, slots=16), tuning=QUICK) as fleet:
            backend, enough = fleet.backends[0], asyncio.Event()
            reading = asyncio.create_task(read_all(fleet, backlog(enough)))
            await until(lambda: backend.speed.pages >= 16 and backend.in_flight >= 16)
            await asyncio.to_thread(server.set_faults, die={"manner": "engine"})
            await until(lambda: backend.deaths.count == 1 and backend.in_flight == 0)
            await until(lambda: backend.metrics.running == 16 and not backend.breaker.why, timeout=40)
            enough.set()
            await reading

    options = {"profile": "dgx-spark-as-asked", "seconds_per_page": 0.3, "mean_tokens": 20}
    with SimulatedServer(**options) as server:
        server.ready().keep_alive(0.3)
        asyncio.run(scene(server))
