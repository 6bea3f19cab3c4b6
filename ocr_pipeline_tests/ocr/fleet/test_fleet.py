"""The fleet on simulated servers with real sockets, mostly well: sharing, order, texts, closing. In short runs."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from ocr_pipeline.ocr.fleet.fleet import Fleet
from ocr_pipeline.ocr.fleet.health import Condition
from ocr_pipeline.ocr.fleet.live_backend import LiveBackend
from ocr_pipeline.records import PageStatus, Reason
from ocr_pipeline_tests.ocr.fleet.runs import MODEL, document, fleet_of, one, page, read_all, two, until
from ocr_pipeline_tests.ocr.vllm.odd_server import Request, completion, http, serving

NOBODY = "http://127.0.0.1:9"  # the discard port: refused at once


def test_every_page_is_read_on_both_servers_and_each_choice_has_its_reason(servers):
    async def scene():
        async with fleet_of(two(servers["rtx4090"], servers["spark"])) as fleet:
            pages = [*document("now", 2, urgent=True), *document("letter", 5), *document("book", 30)]
            return await read_all(fleet, pages), fleet.recipe_id

    run, recipe_id = asyncio.run(scene())
    assert run.statuses == {"ok": 37}
    assert set(run.backends()) == {"rtx4090", "spark"}
    for (name, _), transcript in run.transcripts.items():
        assert transcript.recipe_id == recipe_id
        assert [a.attempt for a in transcript.attempts] == list(range(1, len(transcript.attempts) + 1))
        reason = transcript.attempts[0].choice
        rule = {"letter": "default: 5 pages < 10", "book": "large: 30 pages > 20", "now": "urgent"}[name]
        assert reason == rule or reason.startswith("overloaded: ")
    assert run.choices["large"] > 0
    assert run.choices["default"] > 0
    assert run.choices["urgent"] == 2


def test_a_backlog_never_has_more_in_flight_than_admission_allows(fresh_servers):
    async def scene():
        async with fleet_of(two(fresh_servers["rtx4090"], fresh_servers["spark"])) as fleet:
            return await read_all(fleet, document("a", 60) + document("b", 8))

    asyncio.run(scene())
    stats = fresh_servers.stats()
    assert stats["rtx4090"].max_running == 4
    assert stats["rtx4090"].max_waiting <= 1
    assert stats["spark"].max_running == 16
    assert stats["spark"].max_waiting <= 2


def test_a_large_document_beside_others_has_one_page_at_a_time_on_the_small_card(servers):
    images = [image for n in range(40) for image in (page("book", n + 1, 40), page(f"s{n}", 1, 1))]

    def in_flight(*backends: LiveBackend) -> set[str]:
        return {request.ask.request_id.rpartition("-")[0] for backend in backends for request in backend.pending}

    async def scene():
        most = 0
        async with fleet_of(two(servers["rtx4090"], servers["spark"])) as fleet:
            unsent = {f"{image.document_id}-{image.page_number:04d}" for image in images}
            tasks = [asyncio.create_task(fleet.transcribe(image)) for image in images]
            while True:
                unsent -= in_flight(*fleet.backends)
                if all(name.startswith("book") for name in unsent):
                    break  # no other document wants the card
                most = max(most, sum(name.startswith("book") for name in in_flight(fleet.backends[0])))
                await asyncio.sleep(0.01)  # a page takes 20 times as long
            return await asyncio.gather(*tasks), most

    transcripts, most = asyncio.run(asyncio.wait_for(scene(), 60))
    assert {transcript.status for transcript in transcripts} == {PageStatus.OK}
    assert most <= 1


def test_a_page_that_one_server_refuses_is_tried_at_the_other_once_and_then_refused(servers):
    broken = replace(page("a", 1, 1), jpeg=b"\xff\xd8 no picture", sha256="0" * 64)

    async def scene():
        async with fleet_of(two(servers["rtx4090"], servers["spark"])) as fleet:
            return await fleet.transcribe(broken), await fleet.transcribe(page("b", 1, 1))

    refused, good = asyncio.run(scene())
    assert refused.reason is Reason.REFUSED
    assert {a.backend for a in refused.attempts} == {"rtx4090", "spark"}
    assert len(refused.attempts) == 2
    assert good.status is PageStatus.OK


def test_a_bad_text_is_asked_again_by_the_ladder_and_every_attempt_is_kept(servers):
    pages = document("a", 10)
    for server in servers:
        server.set_faults(loops={"images": [pages[2].sha256], "when": "greedy"}, empty={"images": [pages[5].sha256]})

    async def scene():
        async with fleet_of(two(servers["rtx4090"], servers["spark"])) as fleet:
            return await read_all(fleet, pages)

    run = asyncio.run(scene())
    looped, empty = run.transcripts["a", 3], run.transcripts["a", 6]
    assert looped.status is PageStatus.OK
    first, *later = looped.attempts
    assert first.outcome in ("repetition", "truncated")
    assert later[-1].outcome == "ok"
    assert all(a.choice.startswith("quality: ") for a in later)
    assert looped.quality == later[-1].score > first.score
    assert empty.reason is Reason.EMPTY_TEXT
    assert empty.text == ""
    assert [a.outcome for a in empty.attempts] == ["empty_text"] * len(MODEL.rungs)
    assert "quality: other backend" in {a.choice for a in empty.attempts}
    by_rung = [a.backend for a in empty.attempts]
    assert by_rung[-1] != by_rung[-2]


def test_an_earlier_failed_transcript_keeps_its_attempts_and_is_numbered_on(servers):
    async def scene():
        image = page("a", 1, 1)
        async with fleet_of(one(NOBODY), outage_wait=0.3) as fleet:
            failed = await fleet.transcribe(image)
        async with fleet_of(one(servers["rtx4090"])) as fleet:
            return failed, await fleet.transcribe(image, failed)

    failed, good = asyncio.run(scene())
    assert good.attempts[: len(failed.attempts)] == failed.attempts
    assert [a.attempt for a in good.attempts] == list(range(1, len(failed.attempts) + 2))


def test_cancelled_pages_free_their_slots_and_leave_nothing_behind(slow_servers):
    async def scene():
        async with fleet_of(one(slow_servers["rtx4090"])) as fleet:
            before = asyncio.all_tasks()
            readings = [asyncio.create_task(fleet.transcribe(p)) for p in document("a", 24)]
            await until(lambda: fleet.backends[0].metrics.running)  # the server has them
            for reading in readings:
                reading.cancel()
            await asyncio.gather(*readings, return_exceptions=True)
            assert all(reading.cancelled() for reading in readings)
            assert fleet.backends[0].in_flight == 0
            assert fleet.backends[0].breaker.condition is Condition.CLOSED  # the server did nothing wrong
            await until(lambda: asyncio.all_tasks() == before)  # connections are still being closed
            return await read_all(fleet, document("b", 4))

    assert asyncio.run(scene()).statuses == {"ok": 4}
    assert slow_servers["rtx4090"].stats().aborted >= 1


def test_an_idle_fleet_asks_its_servers_nothing(servers):
    async def scene():
        async with fleet_of(two(servers["rtx4090"], servers["spark"])) as fleet:
            await read_all(fleet, document("a", 4))
            return len(asyncio.all_tasks())

    assert asyncio.run(scene()) == 1  # the scene's own


def test_urgent_pages_overtake_a_backlog(servers):
    async def scene():
        ended: list[str] = []
        async with fleet_of(one(servers["rtx4090"])) as fleet:

            async def read(image):
                await fleet.transcribe(image)
                ended.append(image.document_id)

            async with asyncio.TaskGroup() as group:
                for image in document("slow", 24):
                    group.create_task(read(image))
                await until(lambda: len(ended) >= 4)
                for image in document("now", 4, urgent=True):
                    group.create_task(read(image))
        return ended

    ended = asyncio.run(scene())
    assert max(index for index, name in enumerate(ended) if name == "now") <= 16


def test_a_server_behind_a_tunnel_that_hides_its_metrics_works_as_well():
    async def only_v1_and_health(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.path == "/metrics":
            writer.write(http(404, ""))
        elif request.path == "/health":
            writer.write(http(200, ""))
        else:
            await asyncio.sleep(0.2)
            writer.write(http(200, completion("some words that stand on this page")))

    async def scene():
        async with serving(only_v1_and_health) as server, fleet_of(one(server.url)) as fleet:
            return await read_all(fleet, document("a", 24)), fleet.backends[0]

    run, backend = asyncio.run(scene())
    assert run.statuses == {"ok": 24}
    assert backend.metrics.waiting is None
    assert not backend.tenancy.metrics_available


def test_closing_cancels_whoever_waits_for_a_page(servers):
    async def scene():
        async with fleet_of(one(servers["rtx4090"])) as fleet:
            readings = [asyncio.create_task(fleet.transcribe(p)) for p in document("a", 12)]
            await until(lambda: fleet.backends[0].in_flight >= 4)
        await asyncio.wait(readings, timeout=5)
        return [reading.cancelled() for reading in readings], len(asyncio.all_tasks())

    assert asyncio.run(scene()) == ([True] * 12, 1)


def test_a_closed_fleet_says_so():
    async def scene():
        async with fleet_of(one(NOBODY)) as fleet:
            pass
        await fleet.transcribe(page("a", 1, 1))

    with pytest.raises(RuntimeError, match="closed"):
        asyncio.run(scene())


def test_the_fleet_is_a_transcriber():
    fleet = Fleet(two(NOBODY, NOBODY), cpu=None, outage_wait=1.0)
    assert fleet.max_in_flight == 46
    assert fleet.geometry.dpi == 150
    assert len(fleet.recipe_id) == 16
