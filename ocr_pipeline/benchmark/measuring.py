"""One server at one concurrency: holds so many requests in flight, and notes what came back.

Requests are those of the pipeline (`VllmClient`, the model's first way of asking). No retries: a failure is a figure.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from ocr_pipeline.benchmark.steps import Step, goes_on, ladder, requests_of, summarise
from ocr_pipeline.ocr.vllm.answers import Answer, Ask
from ocr_pipeline.ocr.vllm.backends import Backend
from ocr_pipeline.ocr.vllm.client import VllmClient

WARM_UP = 2  # requests before the first step: compilation, connections


async def measure(
    backend: Backend, images: Iterator[bytes], *, most: int, pages: int, told: Callable[[Step], None]
) -> list[Step]:
    """Steps at rising concurrency until it gains nothing, fails, or `most` is reached. `images` never ends, and gives
    no image twice (a server that has seen one answers faster)."""
    client = VllmClient(replace(backend, max_in_flight=most))  # its pool holds as many connections
    steps: list[Step] = []
    try:
        await hold(client, images, in_flight=1, requests=WARM_UP)
        for in_flight in ladder(most):
            if not goes_on(steps):
                break
            steps.append(await hold(client, images, in_flight=in_flight, requests=requests_of(in_flight, pages)))
            told(steps[-1])
    finally:
        await client.aclose()
    return steps


async def hold(client: VllmClient, images: Iterator[bytes], *, in_flight: int, requests: int) -> Step:
    """`requests` requests, `in_flight` at a time."""
    answers: list[tuple[float, Answer]] = []
    sent = 0
    started = last_sent = time.monotonic()

    async def slot() -> None:
        nonlocal sent, last_sent
        while sent < requests:
            sent += 1
            jpeg = next(images)
            last_sent = time.monotonic()
            ask = Ask(jpeg=jpeg, rung=client.backend.model.rungs[0], request_id=f"benchmark-{in_flight}-{sent}")
            answer = await client.ask(ask)
            answers.append((time.monotonic(), answer))

    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(slot())
    return summarise(
        in_flight,
        [answer for _, answer in answers],
        last_sent - started,
        [answer for at, answer in answers if at <= last_sent],
    )
