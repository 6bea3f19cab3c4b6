"""The watch over one server while there are pages for it: its /health when it is away, its /metrics while it reads.

Here belongs the looking, and what follows from a look at once: a hung or silent server, one that is back. Not here:
what answers say of the server (station.py), and whether it died (deaths.py).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from ocr_pipeline.ocr.fleet.company import held_by
from ocr_pipeline.ocr.fleet.failover import Evidence
from ocr_pipeline.ocr.fleet.health import Condition
from ocr_pipeline.ocr.fleet.station import Station
from ocr_pipeline.ocr.fleet.vitals import Vitals, parse_metrics

log = logging.getLogger(__name__)

KEEPS_METRICS_BACK = ("not_found", "forbidden", "unauthorized")  # a tunnel that lets only /v1 and /health through
SILENT = ("connect_failed", "connect_timeout", "timeout")


@dataclass(frozen=True, slots=True)
class Watching:
    """How closely servers are watched. Seconds."""

    look: float = 1.0  # between looks at /metrics while pages are in flight
    hung: float = 45.0  # requests run and no token comes: longer than any prefill that was measured
    unreachable: float = 30.0  # neither /metrics nor /health answer, while pages are in flight


class Watch:
    """Over one server, for as long as there is work for the fleet."""

    def __init__(
        self, station: Station, times: Watching, *, clock: Callable[[], float], changed: Callable[[], None]
    ) -> None:
        """`changed` is called when the server may take pages, or is known better, after a look."""
        self._station = station
        self._times = times
        self._clock = clock
        self._changed = changed
        self._silent_since: float | None = None

    async def run(self) -> None:
        """Looks again and again; the caller cancels it."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pause()):
                    await self._station.hurry.wait()
                self._station.hurry.clear()
                continue
            try:
                await self.look()
            except Exception:
                log.exception("looking at %s", self._station.name)

    def _pause(self) -> float:
        breaker = self._station.breaker
        if breaker.condition is not Condition.OPEN:
            # At random moments, so that two runs that wait for an empty server do not both find it so.
            hurry = random.uniform(0.05, 0.3) if self._station.reserved_for is not None else 1.0  # noqa: S311
            return self._times.look * hurry
        return min(max(breaker.retry_at - self._clock(), 0.05), self._times.look)

    async def look(self) -> None:
        """One look: at /health when the breaker is open and may be probed, at /metrics while pages are in flight."""
        station = self._station
        if station.breaker.condition is Condition.OPEN:
            if self._clock() >= station.breaker.retry_at:
                await self._look_whether_back()
        elif station.flights or station.reserved_for is not None:
            await self._look_at_work()

    async def _look_whether_back(self) -> None:
        station = self._station
        healthy = (await station.client.health()).ok and not await self._still_hangs()
        if healthy and await station.deaths.look_who_returned():
            station.admission.absolved()
        if station.looked(healthy):
            log.info("%s answers again: one page is sent as a probe", station.name)
            self._changed()

    async def _still_hangs(self) -> bool:
        """A hung server keeps its requests running and makes no token, and its /health is 200."""
        station = self._station
        if station.breaker.why != "hung":
            return False
        probed = await station.client.metrics_text()
        if not probed.ok:
            return False
        vitals, before = parse_metrics(probed.text), station.deaths.progress
        after = station.deaths.progress = before.seen(vitals, 0, self._clock())
        return bool(vitals.running) and vitals.generated == before.generated and not after.restarted

    async def _look_at_work(self) -> None:
        station = self._station
        era, ours = station.era, station.in_flight
        probed = await (station.client.metrics_text() if station.company.tells else station.client.health())
        if era != station.era:
            return
        if probed.outcome in KEEPS_METRICS_BACK:
            station.company.tells = False  # routing does without
        if not probed.ok and probed.outcome in SILENT:
            self._heard_nothing()
            return
        self._silent_since = None
        if station.reserved_for is not None and not station.flights:
            station.company.kept_free(self._clock())
        if probed.ok and station.company.tells:
            self._take_in(parse_metrics(probed.text), ours)
            self._changed()

    def _heard_nothing(self) -> None:
        now = self._clock()
        self._silent_since = now if self._silent_since is None else self._silent_since
        if now - self._silent_since >= self._times.unreachable:
            self._silent_since = None
            log.warning("%s has not answered for %.0f s", self._station.name, self._times.unreachable)
            self._station.died()

    def _take_in(self, vitals: Vitals, ours: int) -> None:
        """`ours`: pages of ours that were there when the server was asked."""
        station, now = self._station, self._clock()
        station.vitals = vitals
        station.company.looked(vitals, max(ours, station.in_flight))
        for flight in station.flights:
            if flight.alone and (held_by(vitals) or 0) > 1:
                flight.evidence = Evidence.DOUBTFUL
        station.deaths.progress = station.deaths.progress.seen(vitals, station.in_flight, now)
        station.admission.looked(vitals.running, vitals.waiting, station.in_flight)
        oldest = max((now - flight.since for flight in station.flights), default=0.0)
        if min(station.deaths.progress.stalled_for(now), oldest) >= self._times.hung:
            station.hung()
