"""Each rule of the routing, seen in `attempts.choice` of real runs on two servers."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from ocr_pipeline.ocr.vllm.backends import BackendsConfig
from ocr_pipeline.records import PageImage
from ocr_pipeline_tests.ocr.fleet.runs import document, fleet_of, read_all, two
from ocr_pipeline_tests.simulator import Fleet as Servers


def choices(
    config: BackendsConfig, *documents: list[PageImage], at_once: int | None = None, today: int | None = None
) -> set[str]:
    async def scene() -> set[str]:
        async with fleet_of(config, documents_today=today) as fleet:
            run = await read_all(fleet, [page for pages in documents for page in pages], at_once=at_once)
            assert set(run.statuses) == {"ok"}
            reasons = {attempt.choice for t in run.transcripts.values() for attempt in t.attempts}
            # on a busy machine a page may be late by chance, and is then asked elsewhere too
            return {reason for reason in reasons if not reason.startswith("hedge: ")}

    return asyncio.run(scene())


def many_in_flight(config: BackendsConfig) -> BackendsConfig:
    """24 pages in flight on the 4 slots of the 4090, so that its queue grows."""
    small, large = config.backends
    return replace(config, backends=(replace(small, max_in_flight=24), large))


def test_the_default_is_the_4090(servers: Servers):
    config = two(servers["rtx4090"], servers["spark"])
    assert choices(config, document("a", 3)) == {"default: 3 pages < 10"}
    assert choices(config, document("a", 12), at_once=2, today=99) == {"default: documents a day 99 < 100"}
    assert choices(config, document("a", 12), at_once=2, today=100) == {"default"}
    assert choices(config, document("a", 12), at_once=2) == {"default"}  # not known: the rule does not hold


def test_large_and_urgent_documents_go_to_the_spark(servers: Servers):
    config = two(servers["rtx4090"], servers["spark"])
    assert choices(config, document("a", 21), at_once=8) == {"large: 21 pages > 20"}
    assert choices(config, document("a", 2, urgent=True)) == {"urgent"}


def test_the_stage_the_promise_and_many_documents_at_once_decide_what_lies_between(servers: Servers):
    config = two(servers["rtx4090"], servers["spark"])
    assert choices(replace(config, stage="development"), document("a", 25), at_once=2) == {"development"}
    promised = replace(config, sla=True)
    assert choices(promised, document("a", 12), at_once=8, today=240) == {"sla"}
    assert choices(promised, document("a", 12), at_once=2, today=7) == {"default: documents a day 7 < 100"}
    crowd = [page for pages in zip(*(document(f"d{n}", 12) for n in range(6)), strict=True) for page in pages]
    assert "concurrent: documents at once 6 > 5" in choices(config, crowd, at_once=10, today=240)


def test_what_the_4090_cannot_take_goes_to_the_spark_and_the_other_way_round(servers: Servers):
    config = two(servers["rtx4090"], servers["spark"])
    assert "overloaded: rtx4090 4 of 4 in flight" in choices(config, document("a", 9))
    seen = choices(config, document("a", 60))
    assert any(reason.startswith("overloaded: spark 16 of 1") for reason in seen)


def test_a_queue_on_the_4090_sends_pages_to_the_spark(servers: Servers):
    config = many_in_flight(two(servers["rtx4090"], servers["spark"]))
    seen = choices(config, *(document(f"d{n}", 5) for n in range(24)), at_once=22)
    assert any(reason.startswith("overloaded: rtx4090 waiting ") and reason.endswith(" > 5") for reason in seen)


def test_a_document_of_10_to_30_pages_has_8_at_once_on_the_4090(servers: Servers):
    config = many_in_flight(two(servers["rtx4090"], servers["spark"]))
    assert "share: 8 of 15 pages on rtx4090" in choices(config, document("a", 15), document("b", 2), at_once=17)


def test_when_the_4090_is_gone_the_spark_takes_over(servers: Servers):
    config = two("http://127.0.0.1:9", servers["spark"])
    seen = choices(config, document("a", 9))
    assert "failover: rtx4090 connect_failed" in seen


def test_a_4090_that_crawls_is_passed_by(servers: Servers):
    async def scene() -> set[str]:
        async with fleet_of(two(servers["rtx4090"], servers["spark"])) as fleet:
            await read_all(fleet, document("warm", 40))
            await asyncio.to_thread(servers["rtx4090"].set_faults, crawl={"factor": 0.02})
            seen: set[str] = set()
            for number in range(12):  # the first pages are rescued by hedging, and teach what it is like there
                run = await read_all(fleet, document(f"a{number}", 3))
                seen |= {attempt.choice.split(":")[0] for t in run.transcripts.values() for attempt in t.attempts}
                if "slow" in seen:
                    break
            return seen

    assert "slow" in asyncio.run(scene())


def test_the_fastest_policy_names_the_times_it_expected(servers: Servers):
    seen = choices(replace(two(servers["rtx4090"], servers["spark"]), policy="fastest"), document("a", 60))
    assert all(reason.startswith("fastest: ") for reason in seen)
    assert any("rtx4090" in reason and "spark" in reason for reason in seen)
