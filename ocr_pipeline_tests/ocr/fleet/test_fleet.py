"""The fleet on simulated servers with real sockets: what becomes of pages when servers misbehave, in short runs."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from ocr_pipeline.ocr.fleet.failover import Poisoned
from ocr_pipeline.ocr.fleet.fleet import Fleet
from ocr_pipeline.ocr.fleet.health import BreakerRules, Condition
from ocr_pipeline.ocr.fleet.live_backend import LiveBackend
from ocr_pipeline.ocr.vllm.backends import BackendsConfig
from ocr_pipeline.records import Attempt, Geometry, PageImage, PageStatus, Reason, Transcript
from ocr_pipeline_tests.ocr.fleet.runs import MODEL, QUICK, backlog, document, fleet_of, one, page, read_all, two, until
from ocr_pipeline_tests.ocr.vllm.odd_server import Request, completion, http, serving
from ocr_pipeline_tests.simulator import SimulatedServer

A_MOMENT = timedelta(seconds=0.1)  # wall clock against monotonic clock
NOBODY = "http://127.0.0.1:9"  # the discard port: refused at once


class OnTheCpu:
    """A third place that reads every page as its own name."""

    recipe_id = "cpu"
    geometry = Geometry(150, 1920, 1280)
    max_in_flight = 1

    async def transcribe(self, image: PageImage, previous: Transcript | None = None) -> Transcript:
        assert previous is not None
        now = datetime.now(UTC)
        attempt = Attempt(
            document_id=image.document_id,
            page_number=image.page_number,
            attempt=max((a.attempt for a in previous.attempts), default=0) + 1,
            backend="cpu",
            model="slow",
            choice="default",
            started_at=now,
            seconds=0.0,
            outcome="ok",
        )
        return replace(
            previous,
            recipe_id="cpu",
            status=PageStatus.OK,
            reason=None,
            text=f"{image.document_id} {image.page_number}",
            engine="rapidocr",
            backend="cpu",
            finished_at=now,
            attempts=(*previous.attempts, attempt),
        )

    async def aclose(self) -> None:
        pass


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


def test_a_server_that_dies_loses_no_page_and_gets_its_share_when_it_is_back(slow_servers):
    async def scene():
        async with fleet_of(two(slow_servers["rtx4090"], slow_servers["spark"])) as fleet:
            small = fleet.backends[0]
            enough = asyncio.Event()
            reading = asyncio.create_task(read_all(fleet, backlog(enough)))
            await until(lambda: small.speed.pages >= 10)
            slow_servers["rtx4090"].kill()
            await until(lambda: small.breaker.condition is Condition.OPEN and small.in_flight == 0)
            at_death = small.speed.pages
            await asyncio.to_thread(slow_servers["rtx4090"].start)
            await until(lambda: small.speed.pages >= at_death + 10 and small.in_flight >= 4)
            enough.set()
            return await reading, small.deaths.count

    run, deaths = asyncio.run(scene())
    assert set(run.statuses) == {"ok"}
    assert deaths == 1
    assert run.choices["alone"] >= 1  # those in flight at the death
    assert run.choices["failover"] >= 1
    lost = [a for t in run.transcripts.values() for a in t.attempts if a.outcome == "connection_lost"]
    assert 1 <= len(lost) <= 5


def test_pages_in_flight_at_an_operators_kill_are_tried_alone_and_none_is_called_poisoned(slow_servers):
    async def scene():
        async with fleet_of(one(slow_servers["rtx4090"])) as fleet:
            reading = asyncio.create_task(read_all(fleet, document("a", 12)))
            await until(lambda: fleet.backends[0].in_flight >= 4 and fleet.backends[0].speed.pages >= 2)
            slow_servers["rtx4090"].kill()
            await asyncio.to_thread(slow_servers["rtx4090"].start)
            return await reading

    run = asyncio.run(scene())
    assert run.statuses == {"ok": 12}
    alone = [a for t in run.transcripts.values() for a in t.attempts if a.choice.startswith("alone")]
    assert 1 <= len(alone) <= 5
    for lone in alone:
        ends = lone.started_at + timedelta(seconds=lone.seconds)
        beside = [
            a
            for t in run.transcripts.values()
            for a in t.attempts
            if a is not lone
            and a.started_at < ends - A_MOMENT
            and a.started_at + timedelta(seconds=a.seconds) > lone.started_at + A_MOMENT
        ]
        assert beside == []


def test_a_page_that_kills_a_server_is_tried_alone_then_quarantined(fresh_servers):
    pages = document("a", 20)
    poison = pages[6]
    kept: list[Poisoned] = []
    for server in fresh_servers:
        server.set_faults(poison={"images": [poison.sha256]})
        server.keep_alive(0.3)

    async def keep(poisoned: Poisoned) -> None:
        kept.append(poisoned)

    async def scene():
        small, large = two(fresh_servers["rtx4090"], fresh_servers["spark"]).backends
        config = BackendsConfig(backends=(replace(large, max_model_len=4096), small))
        async with fleet_of(config, on_poisoned=keep) as fleet:
            return await read_all(fleet, pages)

    run = asyncio.run(scene())
    assert run.statuses == {"ok": 19, "poisoned": 1}
    dead = run.transcripts["a", 7]
    assert dead.reason is Reason.POISONED
    assert [a.choice.startswith("alone") for a in dead.attempts][-1]
    assert len(dead.attempts) == 2
    [bundle] = kept
    assert bundle.image is poison
    assert bundle.backend == dead.attempts[-1].backend
    assert bundle.request["model"] == MODEL.model
    assert (bundle.request["max_tokens"] == 7000) is (bundle.backend == "rtx4090")  # as it was sent there
    assert bundle.request["messages"][0]["content"][0]["image_url"]["url"] == "data:image/jpeg;base64,"
    assert len(bundle.answers) == 2


def test_a_503_storm_from_one_server_sends_its_pages_elsewhere_and_spends_no_quality_attempt(servers):
    servers["rtx4090"].set_faults(storm_503={})

    async def scene():
        async with fleet_of(two(servers["rtx4090"], servers["spark"])) as fleet:
            return await read_all(fleet, document("a", 30) + document("b", 5))

    run = asyncio.run(scene())
    assert run.statuses == {"ok": 35}
    assert set(run.backends()) == {"spark"}
    assert run.outcomes["http_503"] <= 25
    assert run.choices["failover"] > 0
    for transcript in run.transcripts.values():
        assert sum(a.score is not None for a in transcript.attempts) == 1


def test_a_storm_from_both_is_waited_out_and_the_cpu_is_not_asked(fresh_servers):
    for server in fresh_servers:
        server.set_faults(storm_503={"for_seconds": 1.5, "retry_after": None})

    async def scene():
        async with fleet_of(
            two(fresh_servers["rtx4090"], fresh_servers["spark"]), cpu=OnTheCpu(), outage_wait=15
        ) as fleet:
            return await read_all(fleet, document("a", 30))

    run = asyncio.run(scene())
    assert run.statuses == {"ok": 30}
    assert set(run.backends()) <= {"rtx4090", "spark"}
    stormed = sum(server.stats().refused for server in fresh_servers)
    assert stormed == run.outcomes["http_503"] <= 60


def test_when_nobody_is_there_for_the_outage_wait_the_cpu_reads():
    async def scene():
        async with fleet_of(two(NOBODY, NOBODY), cpu=OnTheCpu(), outage_wait=1.0) as fleet:
            return await read_all(fleet, document("a", 3)), fleet.recipe_id

    run, recipe_id = asyncio.run(scene())
    assert run.statuses == {"ok": 3}
    for number in (1, 2, 3):
        transcript = run.transcripts["a", number]
        assert transcript.text == f"a {number}"
        assert transcript.recipe_id == recipe_id
        assert transcript.attempts[-1].choice == "outage: cpu after 1 s"
        assert [a.attempt for a in transcript.attempts] == list(range(1, len(transcript.attempts) + 1))


def test_without_a_cpu_engine_the_pages_fail_to_be_asked_again():
    async def scene():
        async with fleet_of(one(NOBODY), outage_wait=0.5) as fleet:
            return await read_all(fleet, document("a", 3))

    run = asyncio.run(scene())
    assert run.statuses == {"backend_unavailable": 3}
    assert "connect_failed" in run.transcripts["a", 1].detail


def test_a_hung_server_with_good_health_is_found_out_and_its_pages_go_elsewhere(servers):
    async def scene():
        async with fleet_of(two(servers["rtx4090"], servers["spark"])) as fleet:
            pages = [p for n in range(20) for p in document(f"d{n}", 5)]
            reading = asyncio.create_task(read_all(fleet, pages))
            await until(lambda: fleet.backends[0].speed.pages >= 6)
            await asyncio.to_thread(servers["rtx4090"].set_faults, hang={})
            return await reading, fleet.backends[0].breaker.why

    run, why = asyncio.run(scene())
    assert run.statuses == {"ok": 100}
    stuck = {a.outcome for t in run.transcripts.values() for a in t.attempts} - {"ok"}
    assert stuck
    assert stuck <= {"hung", "hedged"}
    assert why in ("hung", "")


def test_a_lone_hung_server_is_asked_again_when_it_is_well(servers):
    async def scene():
        async with fleet_of(one(servers["rtx4090"])) as fleet:
            reading = asyncio.create_task(read_all(fleet, document("a", 12)))
            await until(lambda: fleet.backends[0].speed.pages >= 4)
            await asyncio.to_thread(servers["rtx4090"].set_faults, hang={})
            await until(lambda: fleet.backends[0].breaker.why == "hung")
            await asyncio.to_thread(servers["rtx4090"].clear_faults)
            return await reading

    run = asyncio.run(scene())
    assert run.statuses == {"ok": 12}
    assert run.outcomes["hung"] >= 1
    assert run.choices["recovered"] >= 1


def test_a_crawling_servers_last_pages_are_asked_elsewhere_and_the_first_answer_wins(servers):
    async def scene():
        async with fleet_of(two(servers["rtx4090"], servers["spark"])) as fleet:
            await read_all(fleet, document("warm", 40))
            await asyncio.to_thread(servers["rtx4090"].set_faults, crawl={"factor": 0.05})
            return await read_all(fleet, [p for n in range(6) for p in document(f"d{n}", 9)])

    run = asyncio.run(scene())
    assert run.statuses == {"ok": 54}
    hedged = [t for t in run.transcripts.values() if any(a.choice.startswith("hedge") for a in t.attempts)]
    assert hedged
    for transcript in hedged:
        assert sorted(a.outcome for a in transcript.attempts) == ["hedged", "ok"]
        assert [a.attempt for a in transcript.attempts] == [1, 2]


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


def test_a_wrong_key_takes_one_server_out_and_all_of_them_fail_the_pages(caplog):
    secret = "not-the-servers-key-5f1c"
    with SimulatedServer(api_key="right", seconds_per_page=0.05) as server, caplog.at_level(logging.DEBUG):
        server.ready()

        async def scene():
            right, wrong = SecretStr("right"), SecretStr(secret)
            config = two(server, server)
            half = replace(
                config,
                backends=(
                    replace(config.backends[0], api_key=wrong),
                    replace(config.backends[1], api_key=right),
                ),
            )
            async with fleet_of(half) as fleet:
                some = await read_all(fleet, document("a", 12))
            async with fleet_of(replace(half, backends=half.backends[:1])) as fleet:
                return some, await read_all(fleet, document("b", 3))

        some, none = asyncio.run(scene())
    assert some.statuses == {"ok": 12}
    assert none.statuses == {"misconfigured": 3}
    assert sum("takes no page as it is set up" in record.getMessage() for record in caplog.records) == 2
    assert secret not in caplog.text
    assert secret not in str(some.transcripts) + str(none.transcripts)


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


def test_a_mended_key_is_noticed_by_a_page_that_comes_after_the_long_while():
    mended = False

    async def wants_its_key(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.path == "/v1/chat/completions":
            writer.write(http(200, completion("some words that stand on this page")) if mended else http(401, ""))
        else:
            writer.write(http(200, ""))

    async def scene():
        nonlocal mended
        tuning = replace(QUICK, breaker=BreakerRules(first_wait=0.1, longest_wait=0.5, misconfigured_wait=0.5))
        async with serving(wants_its_key) as server, fleet_of(one(server.url), tuning=tuning) as fleet:
            before = await fleet.transcribe(page("a", 1, 2))
            mended = True
            await asyncio.sleep(0.6)
            return before, await fleet.transcribe(page("a", 2, 2))

    before, after = asyncio.run(scene())
    assert before.reason is Reason.MISCONFIGURED
    assert after.status is PageStatus.OK


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
