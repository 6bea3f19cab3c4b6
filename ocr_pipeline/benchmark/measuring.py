"""One server at one concurrency: holds so many requests in flight, and notes what came back.

Requests are those of the pipeline (`VllmClient`, the model's first way of asking). No retries: a failure is a figure.
A server that answers nothing is given up soon: a hung one would hold each request for its whole time limit.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

from ocr_pipeline.benchmark.steps import Step, given_up, goes_on, ladder, requests_of, summarise
from ocr_pipeline.ocr.vllm.answers import Answer, Ask
from ocr_pipeline.ocr.vllm.backends import Backend
from ocr_pipeline.ocr.vllm.client import VllmClient

WARM_UP = 2  # requests before the first step, side by side: compilation, connections


class Watch(Protocol):
    """Who is told how far it is, on the event loop: be quick."""

    def begins(self, in_flight: int, requests: int) -> None: ...

    def answered(self) -> None: ...

    def ended(self, step: Step) -> None: ...


async def measure(
    backend: Backend, images: Iterator[bytes], *, most: int, pages: int, seconds: float, watch: Watch
) -> str | None:
    """Steps at rising concurrency until it gains nothing, fails, or `most` is reached; each is told to `watch`.

    `images` never ends, and gives no image twice (a server that has seen one answers faster). A request is given up
    after `seconds`. Returns why the server was given up, None where it was not.
    """
    client = VllmClient(replace(backend, max_in_flight=most, timeout=min(seconds, backend.timeout)))
    steps: list[Step] = []
    try:
        watch.begins(WARM_UP, WARM_UP)
        first = await _hold(client, images, in_flight=WARM_UP, requests=WARM_UP, watch=watch)
        if all(answer.fault is not None for answer in first.answers):
            return f"each of the first {WARM_UP} requests failed ({_told(first.answers)})"
        for in_flight in ladder(most):
            if not goes_on(steps):
                break
            requests = requests_of(in_flight, pages)
            watch.begins(in_flight, requests)
            held = await _hold(client, images, in_flight=in_flight, requests=requests, watch=watch)
            steps.append(held.step)
            watch.ended(held.step)
            if given_up(held.answers, in_flight):
                return f"with {in_flight} in flight no request was answered any more ({_told(held.answers)})"
    finally:
        await client.aclose()
    return None


class _Held:
    """What came back while so many requests were held in flight."""

    def __init__(self, in_flight: int) -> None:
        self.in_flight = in_flight
        self.answers: list[Answer] = []
        self.times: list[float] = []  # of the answers
        self.started = self.last_sent = 0.0

    @property
    def step(self) -> Step:
        in_window = [answer for at, answer in zip(self.times, self.answers, strict=True) if at <= self.last_sent]
        return summarise(self.in_flight, self.answers, self.last_sent - self.started, in_window)


async def _hold(client: VllmClient, images: Iterator[bytes], *, in_flight: int, requests: int, watch: Watch) -> _Held:
    """`requests` requests, `in_flight` at a time; fewer when the server is given up."""
    # marking an image takes 9 ms: before the clock starts, and not on the event loop, which times the answers
    ready = enumerate(await asyncio.to_thread(lambda: list(itertools.islice(images, requests))), 1)
    held = _Held(in_flight)

    async def slot() -> None:
        for number, jpeg in ready:
            held.last_sent = time.monotonic()
            request_id = f"benchmark-{in_flight}-{number}"
            answer = await client.ask(Ask(jpeg=jpeg, rung=client.backend.model.rungs[0], request_id=request_id))
            held.answers.append(answer)
            held.times.append(time.monotonic())
            watch.answered()
            if given_up(held.answers, in_flight):
                return

    held.started = held.last_sent = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(slot())
    return held


def _told(answers: list[Answer]) -> str:
    last = next(answer for answer in reversed(answers) if answer.fault is not None)
    return f"{last.outcome}: {last.detail}" if last.detail else last.outcome
