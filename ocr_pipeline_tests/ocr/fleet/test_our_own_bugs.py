"""A bug of our own, between a page and its server: every page still ends, and the log tells what it was."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from ocr_pipeline.records import Reason
from ocr_pipeline_tests.ocr.fleet.runs import document, fleet_of, one, page, read_all, until
from ocr_pipeline_tests.ocr.vllm.odd_server import Request, completion, http, serving


async def reads_every_page(request: Request, writer: asyncio.StreamWriter) -> None:
    if request.path == "/v1/chat/completions":
        await asyncio.sleep(0.1)
        writer.write(http(200, completion("some words that stand on this page")))
    else:
        writer.write(http(200, ""))


def tracebacks(caplog) -> list[str]:
    return [str(record.exc_info[1]) for record in caplog.records if record.exc_info]


def test_a_page_that_cannot_be_sent_fails_after_six_tries_and_the_others_are_read(caplog):
    pages = document("a", 12)
    pages[4] = replace(pages[4], jpeg=None)  # no request can be made of it

    async def scene():
        async with serving(reads_every_page) as server, fleet_of(one(server.url), outage_wait=900) as fleet:
            return await read_all(fleet, pages)

    run = asyncio.run(asyncio.wait_for(scene(), 60))
    assert run.statuses == {"ok": 11, "engine_failed": 1}
    assert [attempt.outcome for attempt in run.transcripts["a", 5].attempts] == ["client_failed"] * 6
    assert len(tracebacks(caplog)) == 6


def test_a_page_for_which_no_server_can_be_chosen_fails_alone():
    good = document("a", 20) + document("b", 20)
    bad = replace(page("z", 1, 1), pages_in_document=None)  # no number can be compared with it

    async def scene():
        async with serving(reads_every_page) as server, fleet_of(one(server.url), outage_wait=900) as fleet:
            return await read_all(fleet, [*good, bad])

    run = asyncio.run(asyncio.wait_for(scene(), 60))
    assert run.statuses == {"ok": 40, "engine_failed": 1}


def test_pages_for_which_no_server_can_be_chosen_fail_and_the_log_shows_the_bug_once(caplog):
    async def scene():
        async with serving(reads_every_page) as server:
            config = replace(one(server.url), large_document_pages=None)  # no number can be compared with it
            async with fleet_of(config, outage_wait=900) as fleet:
                return await read_all(fleet, document("a", 12))

    run = asyncio.run(asyncio.wait_for(scene(), 60))
    assert run.statuses == {"engine_failed": 12}
    assert run.transcripts["a", 1].reason is Reason.ENGINE_FAILED
    assert "TypeError" in run.transcripts["a", 1].detail
    assert len(tracebacks(caplog)) == 1


def test_when_late_pages_cannot_be_found_an_outage_still_ends_for_those_that_wait(caplog):
    gone = False

    async def holds_pages(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.path == "/v1/chat/completions":
            await asyncio.sleep(60)
        writer.write(http(503 if gone else 200, ""))

    async def scene():
        nonlocal gone
        async with serving(holds_pages) as server, fleet_of(one(server.url, slots=1), outage_wait=1.0) as fleet:
            held, waits = (asyncio.create_task(fleet.transcribe(page("a", n, 2))) for n in (1, 2))
            backend = fleet.backends[0]
            await until(lambda: backend.in_flight == 1)
            [request] = backend.pending
            request.owner.history.avoid = None  # nothing can be read from it
            await until(lambda: tracebacks(caplog))
            gone = True
            backend.died(request)
            transcript = await waits
            held.cancel()
            await asyncio.gather(held, return_exceptions=True)
            return transcript

    with caplog.at_level(logging.ERROR):
        transcript = asyncio.run(asyncio.wait_for(scene(), 60))
    assert transcript.reason is Reason.BACKEND_UNAVAILABLE
