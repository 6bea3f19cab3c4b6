"""A page that a server answers with an error for ever while it reads all others: it must not hold its batch up."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import Callable

import pytest

from ocr_pipeline_tests.ocr.fleet.runs import document, fleet_of, one, read_all
from ocr_pipeline_tests.ocr.vllm.odd_server import Handler, Request, completion, http, serving

PAGES = document("a", 12)
BAD = PAGES[4]
METRICS = "vllm:num_requests_running 1\nvllm:num_requests_waiting 0\nprocess_start_time_seconds 5\n"


def a_server(bad_answer: bytes, healthy: Callable[[], bool] = lambda: True) -> Handler:
    """Reads every page in 0.1 s but one, which it answers with `bad_answer`."""

    async def handler(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.path == "/health":
            writer.write(http(200 if healthy() else 503, ""))
        elif request.path == "/metrics":
            writer.write(http(200, METRICS, type="text/plain"))
        elif b64encode(BAD.jpeg) in request.body:
            writer.write(bad_answer)
        else:
            await asyncio.sleep(0.1)
            writer.write(http(200, completion("some words that stand on this page")))

    return handler


def error(message: str) -> bytes:
    return http(500, {"error": {"message": message, "type": "InternalServerError", "param": None, "code": 500}})


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (error("tensor of size 5 does not match"), "http_500"),
        (error(""), "engine_error"),
        (error("CUDA out of memory"), "engine_error"),
        (http(200, json.dumps({"choices": []})), "bad_answer"),
    ],
)
def test_a_page_that_gets_an_error_three_times_from_a_server_that_reads_the_others_is_refused(answer, outcome):
    async def scene():
        async with serving(a_server(answer)) as server, fleet_of(one(server.url), outage_wait=900) as fleet:
            return await read_all(fleet, PAGES), fleet.backends[0].deaths.count

    run, deaths = asyncio.run(asyncio.wait_for(scene(), 60))
    assert run.statuses == {"ok": 11, "refused": 1}
    assert deaths == 0  # its /health says that it lives
    refused = run.transcripts["a", 5]
    assert [attempt.outcome for attempt in refused.attempts] == [outcome] * 3
    assert "while other pages were read" in refused.detail
    assert all(len(t.attempts) == 1 for key, t in run.transcripts.items() if key != ("a", 5))


def test_an_engines_error_with_a_health_that_fails_is_a_death():
    said: list[str] = []

    async def scene():
        async with (
            serving(a_server(error(""), healthy=lambda: bool(said))) as server,
            fleet_of(one(server.url)) as fleet,
        ):
            reading = asyncio.create_task(fleet.transcribe(BAD))
            while not fleet.backends[0].deaths.count:
                await asyncio.sleep(0.02)
            said.append("well again")
            reading.cancel()
            await asyncio.wait([reading])
            return fleet.backends[0].breaker.why

    assert asyncio.run(asyncio.wait_for(scene(), 30)) == "died"
