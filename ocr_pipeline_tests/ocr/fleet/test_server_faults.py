"""What becomes of pages when servers die, hang, crawl, refuse or are not there: simulated servers, real sockets."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from pydantic import SecretStr

from ocr_pipeline.ocr.fleet.failover import Poisoned
from ocr_pipeline.ocr.fleet.health import BreakerRules, Condition
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
