"""Deaths of servers: whom they are blamed on, and what is learnt from them of how many pages a server bears."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

from ocr_pipeline.records import PageStatus, Reason, Transcript
from ocr_pipeline_tests.ocr.fleet.runs import QUICK, document, fleet_of, one, read_all, two, until
from ocr_pipeline_tests.ocr.fleet.tunnel import Tunnel
from ocr_pipeline_tests.simulator import SimulatedServer

SMALL = {"profile": "rtx-4090-as-asked", "mean_tokens": 60, "max_num_seqs": 8}
# Times that are to a page's as those for real servers are: two runs that lose patience with each other are blind.
SHARED = replace(QUICK, suspect_patience=15.0, longest_quiet=8.0)


def test_of_two_runs_on_one_server_only_the_page_that_kills_it_is_quarantined():
    mine, theirs = document("a", 20), document("b", 20)
    with SimulatedServer(**SMALL, seconds_per_page=0.4, faults={"poison": {"images": [mine[6].sha256]}}) as server:
        server.ready().keep_alive(0.5)

        async def scene():
            async with fleet_of(one(server), tuning=SHARED) as first, fleet_of(one(server), tuning=SHARED) as second:
                return await asyncio.gather(read_all(first, mine), read_all(second, theirs))

        first, second = asyncio.run(scene())
    assert second.statuses == {"ok": 20}
    assert first.statuses == {"ok": 19, "poisoned": 1}
    assert len(first.transcripts["a", 7].attempts) <= 4


def test_a_connection_lost_on_the_way_to_a_server_that_lives_is_not_held_against_a_page_that_is_alone():
    with SimulatedServer(**SMALL, seconds_per_page=0.8) as server:
        server.ready()

        async def scene():
            async with Tunnel(server.port) as tunnel, fleet_of(one(tunnel.url, slots=8)) as fleet:
                backend = fleet.backends[0]
                reading = asyncio.create_task(read_all(fleet, document("a", 24)))
                await until(lambda: backend.speed.pages >= 8 and backend.metrics.running == 8)
                await asyncio.to_thread(server.restart)
                lonely = await alone_at(fleet, server)
                await tunnel.blip(1.0)
                return await reading, lonely, backend.deaths.count

        run, lonely, deaths = asyncio.run(scene())
        assert server.stats().lives == 2
    assert deaths == 2
    assert run.statuses == {"ok": 24}
    outcomes = [(a.choice.split(":")[0], a.outcome) for a in run.transcripts[lonely].attempts]
    assert ("alone", "connection_lost") in outcomes  # the second loss was felt where it would have been blamed


def test_when_only_the_way_to_the_server_was_lost_its_pages_go_on_side_by_side():
    with SimulatedServer(**SMALL, seconds_per_page=0.8) as server:
        server.ready()

        async def scene():
            async with Tunnel(server.port) as tunnel, fleet_of(one(tunnel.url, slots=8)) as fleet:
                backend = fleet.backends[0]
                reading = asyncio.create_task(read_all(fleet, document("a", 24)))
                await until(lambda: backend.speed.pages >= 8 and backend.metrics.running == 8)
                await tunnel.blip(1.0)
                return await reading, backend.deaths.count, backend.admission.ceiling

        run, deaths, ceiling = asyncio.run(scene())
    assert run.statuses == {"ok": 24}
    assert deaths == 1
    assert run.outcomes["connection_lost"] >= 4
    assert run.choices["alone"] == 0
    assert ceiling == 10  # nor is the server thought to bear fewer pages


def test_a_server_that_is_kept_free_for_one_page_is_given_to_others_that_come_meanwhile():
    tuning = replace(QUICK, suspect_patience=60.0)

    async def scene(rtx4090, spark):
        theirs = one(spark, slots=4)
        async with fleet_of(theirs) as stranger, fleet_of(two(rtx4090, spark), tuning=tuning) as fleet:
            small, large = fleet.backends
            tasks = [asyncio.create_task(stranger.transcribe(page)) for page in document("theirs", 60)]
            await until(lambda: stranger.backends[0].in_flight)
            tasks += [asyncio.create_task(fleet.transcribe(page)) for page in document("tail", 2)]
            await until(lambda: small.in_flight == 2)
            [suspect] = document("suspect", 1)
            tasks.append(asyncio.create_task(fleet.transcribe(suspect, killed_a_server(suspect))))
            await until(lambda: large.reserved_for is not None)  # and it is never empty: the stranger is there
            tasks += [asyncio.create_task(fleet.transcribe(page)) for page in document("next", 40)]
            await until(lambda: large.in_flight)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    slow = SimulatedServer(**SMALL, seconds_per_page=20.0)
    with slow as rtx4090, SimulatedServer(**SMALL, seconds_per_page=1.0) as spark:
        asyncio.run(scene(rtx4090.ready(), spark.ready()))


def killed_a_server(image):
    return Transcript(
        recipe_id="before",
        image_sha256=image.sha256,
        status=PageStatus.FAILED,
        text="",
        format="grounding",
        engine="vllm",
        backend="spark",
        model="deepseek-ai/DeepSeek-OCR",
        width=image.width,
        height=image.height,
        finished_at=datetime(2026, 11, 1, tzinfo=UTC),
        reason=Reason.POISONED,
    )


async def alone_at(fleet, server):
    """The page that is alone at the server, when the server has had it for a while."""
    backend = fleet.backends[0]
    await until(lambda: any(request.alone for request in backend.pending) and backend.metrics.running == 1)
    await asyncio.sleep(0.3)  # a connection used again that is lost sooner passes for a stale one
    [request] = backend.pending
    return request.owner.document_id, request.owner.page_number


def test_a_server_without_memory_for_its_profiles_number_is_given_fewer_pages_from_then_on():
    about_12_pages = 12 * 360
    options = {"profile": "rtx-4090", "seconds_per_page": 0.3, "mean_tokens": 60}
    with SimulatedServer(**options, faults={"oom": {"tokens": about_12_pages}}) as server:
        server.ready().keep_alive(0.3)

        async def scene():
            async with fleet_of(one(server, slots=24)) as fleet:
                return await read_all(fleet, document("a", 120)), fleet.backends[0].deaths.count

        run, deaths = asyncio.run(scene())
        tally = server.stats()
    assert run.statuses == {"ok": 120}
    assert deaths == tally.lives - 1 <= 3
    assert tally.asked_more_than_once <= 50  # those in flight at a death
