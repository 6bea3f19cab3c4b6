"""How a server dies: what those in flight hear, what /health says, and that one valid image can do it.

The server is the plain one because it tracks its load. The conftest runs these last: each costs the real one a restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
from PIL import Image

from ocr_pipeline.ocr.vllm.answers import Answer, Ask, Fault
from ocr_pipeline.ocr.vllm.backends import Backend
from ocr_pipeline.ocr.vllm.client import VllmClient
from ocr_pipeline_tests.vllm_contract.asking import (
    PATH,
    body,
    data_url,
    paused,
    picture,
    poison,
    read_all,
    sent,
)
from ocr_pipeline_tests.vllm_contract.conftest import BackendOf, Connect
from ocr_pipeline_tests.vllm_contract.servers import ServerUnderTest


def test_when_the_engine_is_killed_those_in_flight_get_a_500_and_the_server_goes(
    plain_server: ServerUnderTest, connect: Connect, backend_of: BackendOf
) -> None:
    server = plain_server
    backend = backend_of(server)
    with ThreadPoolExecutor(1) as pool, paused(server, connect(server)) as wait_for_in_flight:
        ours = pool.submit(_our_client_asks, backend)
        with sent(server.url, body()) as first, sent(server.url, body(stream=True)) as streamed:
            wait_for_in_flight(3)
            server.kill_engine()
            whole, stream = read_all(first), read_all(streamed)
        answer = ours.result()
    assert whole.startswith(b"HTTP/1.1 500 ")
    _assert_dead_engine(json.loads(whole.partition(b"\r\n\r\n")[2])["error"])
    # A stream has begun with 200: the error comes within it, and then [DONE] as though all were well.
    assert stream.startswith(b"HTTP/1.1 200 ")
    events = [line[6:] for line in stream.splitlines() if line.startswith(b"data: ")]
    assert events[-1] == b"[DONE]"
    _assert_dead_engine(json.loads(events[-2])["error"])
    assert (answer.outcome, answer.fault) == ("engine_dead", Fault.DEATH)
    _wait_until_gone(server)
    gone = _our_client_asks(backend)
    assert (gone.outcome, gone.fault) == ("connect_failed", Fault.TRANSIENT)


def _our_client_asks(backend: Backend) -> Answer:
    rung = replace(backend.model.rungs[0], extra_body={})

    async def ask() -> Answer:
        client = VllmClient(backend)
        try:
            return await client.ask(Ask(jpeg=picture(kind="JPEG"), rung=rung, request_id="page-1", timeout=60))
        finally:
            await client.aclose()

    return asyncio.run(ask())


def test_one_valid_image_kills_the_server_and_with_it_every_request_in_flight(
    plain_server: ServerUnderTest, connect: Connect
) -> None:
    server = plain_server
    http = connect(server)
    harmless = http.post(PATH, json=body("Text.", data_url(_one_pixel_off()), max_tokens=1))
    assert harmless.status_code == 200
    small = http.post(PATH, json=body("Text.", data_url(poison(640, 640)), max_tokens=1))
    assert small.status_code == 200
    with contextlib.ExitStack() as connections:
        with paused(server, http) as wait_for_in_flight:
            innocent = connections.enter_context(sent(server.url, body("loop!", max_tokens=8000)))
            wait_for_in_flight(1)
            guilty = connections.enter_context(sent(server.url, body("Text.", data_url(poison()))))
            wait_for_in_flight(2)
        answers = [read_all(guilty), read_all(innocent)]
    for answer in answers:
        assert answer.startswith(b"HTTP/1.1 500 ")
        _assert_dead_engine(json.loads(answer.partition(b"\r\n\r\n")[2])["error"])
    _wait_until_gone(server)


def _one_pixel_off() -> bytes:
    with Image.open(io.BytesIO(poison())) as image:
        image.putpixel((5, 5), (9, 9, 9))
        file = io.BytesIO()
        image.save(file, "PNG")
    return file.getvalue()


def _assert_dead_engine(error: dict[str, object]) -> None:
    assert (error["type"], error["param"], error["code"]) == ("InternalServerError", None, 500)
    assert "EngineCore encountered an issue" in str(error["message"])


def _wait_until_gone(server: ServerUnderTest) -> None:
    """200 at first, then perhaps 503, then nobody listens any more."""
    seen: list[int] = []
    until = time.monotonic() + 30
    while True:
        try:
            seen.append(httpx.get(f"{server.url}/health", timeout=5, trust_env=False).status_code)
        except httpx.TransportError as gone:
            if isinstance(gone, httpx.ConnectError):
                break
        assert time.monotonic() < until, seen
        time.sleep(0.02)  # between two polls
    assert set(seen) <= {200, 503}
    assert 200 not in seen[seen.index(503) :] if 503 in seen else True
