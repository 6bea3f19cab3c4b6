"""400 pages on two unlike servers at the speed of real ones (0.8 s a page), calm and with one trouble each.

Every page is accounted for, and document, page, status and text are those of the calm run but for the faulty pages
themselves. The figures are printed (`pytest -s -m slow`): pages asked more than once, time against the calm run.
The process itself killed and started again is the whole pipeline's test, not the fleet's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import cache

import pytest

from ocr_pipeline.ocr.fleet.fleet import Fleet, Tuning
from ocr_pipeline.ocr.fleet.watch import WatchRules
from ocr_pipeline.records import PageImage
from ocr_pipeline_tests.ocr.fleet.runs import Run, document, fleet_of, read_all, two, until
from ocr_pipeline_tests.ocr.fleet.test_server_faults import OnTheCpu
from ocr_pipeline_tests.simulator import Fleet as Servers

pytestmark = pytest.mark.slow

PAGES: list[PageImage] = [
    image
    for name, pages in [
        *((f"letter{n}", 3) for n in range(20)),
        *((f"report{n}", 15) for n in range(8)),
        *((f"book{n}", 40) for n in range(4)),
        *((f"paper{n}", 6) for n in range(10)),
    ]
    for image in document(name, pages)
][:400]
assert len(PAGES) >= 360
EXTRA = document("extra", 400 - len(PAGES)) if len(PAGES) < 400 else []
PAGES += EXTRA
SECONDS = 0.8
IDEAL = 400 * SECONDS / 20
TUNING = Tuning(watch=WatchRules(hung_after=6.0))  # the rest as for real servers
Trouble = Callable[[Fleet, Servers], Awaitable[None]]


def servers() -> Servers:
    return Servers(
        rtx4090={"profile": "rtx-4090-as-asked", "seconds_per_page": SECONDS, "mean_tokens": 200},
        spark={"profile": "dgx-spark-as-asked", "seconds_per_page": SECONDS, "mean_tokens": 200},
    )


def chaos(name: str, trouble: Trouble | None = None, **more: object) -> tuple[Run, dict[str, int]]:
    """Runs the 400 pages with one trouble, and prints the figures."""

    async def scene() -> tuple[Run, dict[str, int]]:
        async with fleet_of(two(there["rtx4090"], there["spark"]), tuning=TUNING, **more) as fleet:
            reading = asyncio.create_task(read_all(fleet, PAGES))
            if trouble is not None:
                await trouble(fleet, there)
            run = await reading
            return run, {backend.name: backend.speed.pages for backend in fleet.backends}

    with servers() as there:
        run, shares = asyncio.run(scene())
        tallies = there.stats()
    asked_twice = len(PAGES) - sum(
        sum(tally.pages[p.sha256].asked for tally in tallies.values() if p.sha256 in tally.pages) == 1 for p in PAGES
    )
    calm_seconds = run.seconds if trouble is None and not more else calm().seconds
    print(
        f"\n{name}: {run.seconds:.1f} s = {run.seconds / calm_seconds:.2f} x calm, {run.seconds / IDEAL:.2f} x ideal; "
        f"asked more than once at a server {asked_twice}; pages by server {shares}; "
        f"busy {', '.join(f'{n} {t.busy_share:.3f}' for n, t in tallies.items() if t.busy_share)}; "
        f"ends {dict(run.statuses)}; attempts {dict(run.outcomes)}; choices {dict(run.choices)}"
    )
    assert len(run.transcripts) == 400
    return run, shares


@cache
def calm() -> Run:
    return chaos("calm")[0]


def the_same_but_for(run: Run, faulty: set[tuple[str, int]]) -> None:
    expected = {key: value for key, value in calm().texts.items() if key not in faulty}
    assert {key: value for key, value in run.texts.items() if key not in faulty} == expected


def a_third_is_done(fleet: Fleet) -> bool:
    return sum(backend.speed.pages for backend in fleet.backends) >= 133


def test_calm_both_servers_are_busy_and_no_page_is_asked_twice():
    run = calm()
    assert run.statuses == {"ok": 400}
    assert run.outcomes["ok"] == 400


def test_a_the_4090_dies_at_one_third_and_returns_later():
    after_return = 0

    async def dies(fleet: Fleet, there: Servers) -> None:
        nonlocal after_return
        await until(lambda: a_third_is_done(fleet), timeout=60)
        there["rtx4090"].kill()
        at_death = fleet.backends[0].speed.pages
        await asyncio.sleep(2)
        assert fleet.backends[0].speed.pages <= at_death + 1
        await asyncio.to_thread(there["rtx4090"].start)
        after_return = at_death

    run, shares = chaos("(a) the 4090 dies at one third, returns 2 s later", dies)
    assert run.statuses == {"ok": 400}
    the_same_but_for(run, set())
    assert shares["rtx4090"] - after_return >= 8  # it got its share back


def test_b_sixty_seconds_of_503_from_both():
    async def storms(fleet: Fleet, there: Servers) -> None:
        await until(lambda: a_third_is_done(fleet), timeout=60)
        for server in there:
            await asyncio.to_thread(server.set_faults, storm_503={"for_seconds": 60})

    run, _ = chaos("(b) 60 s of 503 from both", storms, cpu=OnTheCpu(), outage_wait=900.0)
    assert run.statuses == {"ok": 400}
    assert set(run.backends()) <= {"rtx4090", "spark"}  # the CPU engine waits for its 900 s
    the_same_but_for(run, set())


def test_c_a_hung_server_with_good_health():
    async def hangs(fleet: Fleet, there: Servers) -> None:
        await until(lambda: a_third_is_done(fleet), timeout=60)
        await asyncio.to_thread(there["spark"].set_faults, hang={"frozen_gauges": True})
        await until(lambda: fleet.backends[1].breaker.why == "hung", timeout=60)
        await asyncio.to_thread(there["spark"].clear_faults)

    run, _ = chaos("(c) the Spark hangs, health 200", hangs)
    assert run.statuses == {"ok": 400}
    the_same_but_for(run, set())


def test_d_one_page_in_twenty_loops():
    looping = PAGES[7::20]

    async def loops(fleet: Fleet, there: Servers) -> None:
        pass

    for_all = {"loops": {"images": [page.sha256 for page in looping], "when": "greedy"}}

    async def on(fleet: Fleet, there: Servers) -> None:
        for server in there:
            await asyncio.to_thread(server.set_faults, **for_all)

    run, _ = chaos("(d) 5 % of pages loop", on)
    assert run.statuses["ok"] >= 380
    the_same_but_for(run, {(page.document_id, page.page_number) for page in looping})
    assert sum(count for outcome, count in run.outcomes.items() if outcome in ("repetition", "truncated")) >= 15


def test_e_two_poison_pages():
    poison = [PAGES[60], PAGES[220]]
    keys = {(page.document_id, page.page_number) for page in poison}

    async def poisoned(fleet: Fleet, there: Servers) -> None:
        for server in there:
            await asyncio.to_thread(server.set_faults, poison={"images": [page.sha256 for page in poison]})
            server.keep_alive(2.0)

    run, _ = chaos("(e) two poison pages, servers back after 2 s", poisoned)
    assert run.statuses == {"ok": 398, "poisoned": 2}
    the_same_but_for(run, keys)
    for key in keys:
        assert [a.outcome for a in run.transcripts[key].attempts] != []
        deaths = [a for a in run.transcripts[key].attempts if a.outcome in ("connection_lost", "engine_dead")]
        assert len(deaths) == 2
        assert deaths[1].choice == "alone: was in flight at a death"


def test_a_server_at_a_tenth_of_its_speed_does_not_hold_up_the_end():
    for slow, speeds in (("rtx4090", (0.4, 16)), ("spark", (4, 1.6))):

        async def crawls(fleet: Fleet, there: Servers, slow: str = slow) -> None:
            await asyncio.to_thread(there[slow].set_faults, crawl={"factor": 0.1})

        run, _ = chaos(f"tail: {slow} at a tenth of its speed", crawls)
        ideal = 400 * SECONDS / sum(speeds)
        print(f"  ideal for the speeds as they are {ideal:.1f} s: {run.seconds / ideal:.2f} x")
        assert run.statuses == {"ok": 400}
        the_same_but_for(run, set())
