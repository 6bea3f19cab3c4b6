"""Pages meet servers: gives each waiting page a server as soon as one has room, and gives up what has no hope.

Here belongs the one place that sees all pages and all servers: the waiting line, the suspects that must be alone,
outages, second requests for late pages. Not here: the decisions themselves (routing, admission, health, hedging,
failover: pure), one server (station.py), one page's life (page_reading.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ocr_pipeline.ocr.fleet.failover import GaveUp
from ocr_pipeline.ocr.fleet.health import BreakerRules, Condition
from ocr_pipeline.ocr.fleet.hedging import InFlight, hedges
from ocr_pipeline.ocr.fleet.page_reading import PageReading
from ocr_pipeline.ocr.fleet.routing import Choice, DocumentView, choose
from ocr_pipeline.ocr.fleet.station import Station
from ocr_pipeline.ocr.fleet.waiting_line import WaitingLine
from ocr_pipeline.ocr.fleet.watch import Watch, Watching
from ocr_pipeline.ocr.vllm.backends import Rules
from ocr_pipeline.records import Reason

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tuning:
    """Times of the fleet in seconds. The defaults are for real servers; tests and simulations run faster."""

    watching: Watching = field(default_factory=Watching)
    breaker: BreakerRules = field(default_factory=BreakerRules)
    # Longest wait for a server's return, which tells whether it died or only its connection did: a vLLM that starts
    # again needs 60 to 120 (measured).
    back: float = 180.0
    pulse: float = 0.25  # between looks at what time alone changes: late pages, outages, back-offs that are over
    # So long a page that must be alone waits for another server's return before the only one left is emptied for it.
    suspect_patience: float = 30.0


class Dispatcher:
    """All pages that are being read, and all servers, on one event loop."""

    def __init__(
        self,
        stations: Sequence[Station],
        rules: Rules,
        tuning: Tuning,
        *,
        outage_wait: float,
        afterwards: str,
        documents_today: int | None,
        clock: Callable[[], float],
    ) -> None:
        """`afterwards` says in the log what follows when no server has been there for `outage_wait` seconds."""
        self._stations = tuple(stations)
        self._by_name = {station.name: station for station in self._stations}
        self._rules = rules
        self._tuning = tuning
        self._outage_wait = outage_wait
        self._afterwards = afterwards
        self._documents_today = documents_today
        self._clock = clock
        self._line: WaitingLine[PageReading] = WaitingLine()
        self._suspects: dict[PageReading, float] = {}  # since when each waits to be alone
        self._readings: set[PageReading] = set()
        self._documents: Counter[str] = Counter()  # readings by document
        self._down_since: float | None = None  # no server takes pages
        self._woke_at = 0.0
        self._tasks: list[asyncio.Task[None]] = []
        self._dispatching = False
        self._closed = False

    # -- who is there ----------------------------------------------------------------------------------------------

    def enter(self, reading: PageReading) -> None:
        """A page's reading begins. The servers are watched from the first to the last."""
        now = self._clock()
        if not self._readings:
            self._woke_at = now
            self._tasks = [asyncio.create_task(self._pulse(), name="fleet pulse")]
            for station in self._stations:
                watch = Watch(station, self._tuning.watching, clock=self._clock, changed=self.dispatch)
                self._tasks.append(asyncio.create_task(watch.run(), name=f"watch {station.name}"))
        self._readings.add(reading)
        self._documents[reading.document_id] += 1

    def leave(self, reading: PageReading) -> None:
        self.unqueue(reading)
        self._readings.discard(reading)
        self._documents[reading.document_id] -= 1
        if not self._documents[reading.document_id]:
            del self._documents[reading.document_id]
        if not self._readings:
            self._stop_watching()
        else:
            self.dispatch()

    def queue(self, reading: PageReading) -> None:
        """The page waits for a server. It hears of it through `reading.landed` or `reading.give_up`."""
        if reading.troubles.suspect:
            self._suspects.setdefault(reading, self._clock())
        else:
            self._line.add(reading)
        self.dispatch()

    def unqueue(self, reading: PageReading) -> None:
        if reading in self._line:
            self._line.remove(reading)
        self._suspects.pop(reading, None)
        for station in self._stations:
            if station.reserved_for is reading:
                station.reserved_for = None

    async def aclose(self) -> None:
        self._closed = True
        tasks = self._stop_watching()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _stop_watching(self) -> list[asyncio.Task[None]]:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        return tasks

    async def _pulse(self) -> None:
        while True:
            await asyncio.sleep(self._tuning.pulse)
            self.dispatch()
            self._hedge()

    # -- giving servers to pages -----------------------------------------------------------------------------------

    def dispatch(self) -> None:
        """Everything that can be sent now is sent; what has waited too long is given up."""
        if self._dispatching or self._closed:
            return
        self._dispatching = True
        try:
            now = self._clock()
            self._place_suspects(now)
            self._place_line(now)
            self._end_outage_or_give_up(now)
        except Exception:
            log.exception("giving pages to servers")  # called from callbacks: it must not end a request's task
        finally:
            self._dispatching = False

    def _place_line(self, now: float) -> None:
        """First everybody whose own server has room, then whoever is left takes what is left, even beyond its share.

        So a free slot of the small card goes to a small document that waits, before it goes to the overflow of a
        large one; and no slot idles while a page waits.
        """
        states = [station.state() for station in self._stations]
        if not self._line or not any(state.has_room for state in states):
            return
        waiting = list(self._line.in_turn())
        in_flight = self._in_flight_by_document()
        for only_at_home, shares_lifted in ((True, False), (False, False), (False, True)):
            left: list[PageReading] = []
            nowhere: set[tuple[str, bool]] = set()  # documents whose plain pages found nothing since the last change
            for ahead, reading in enumerate(waiting):
                kind = (reading.document_id, reading.urgent)
                if reading.is_plain and kind in nowhere:
                    left.append(reading)
                    continue
                document = DocumentView(
                    pages=reading.image.pages_in_document,
                    in_flight=in_flight[reading.document_id],
                    shares_lifted=shares_lifted,
                    open_documents=len(self._documents),
                    documents_today=self._documents_today,
                )
                choices = choose(reading.view(now, ahead), document, states, self._rules)
                best = choices[0] if choices else None
                if best is None or (only_at_home and not best.at_home and not reading.urgent):
                    left.append(reading)
                    if reading.is_plain:
                        nowhere.add(kind)
                    continue
                self._line.take(reading)
                reading.send(self._by_name[best.backend], best)
                in_flight[reading.document_id][best.backend] += 1
                states = [station.state() for station in self._stations]
                nowhere.clear()
                if not any(state.has_room for state in states):
                    return
            waiting = left

    def _in_flight_by_document(self) -> Mapping[str, Counter[str]]:
        counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for reading in self._readings:
            for flight in reading.flights:
                counts[reading.document_id][flight.station.name] += 1
        return counts

    def _place_suspects(self, now: float) -> None:
        """Pages that were in flight at a death: each goes to a server where nothing else is, and nothing joins it.

        While other pages wait, only the smallest server is given up to them: 16 suspects one after the other on the
        Spark idled 15 of its slots for as long (measured: 65 s for a batch of 17 s).
        """
        for reading, since in list(self._suspects.items()):
            if reading.acquitted():
                self.unqueue(reading)
                self._line.add(reading)
                continue
            avoided = reading.troubles.avoided(now)
            usable = [
                station
                for station in self._stations
                if station.breaker.condition is not Condition.OPEN and station.name not in avoided
            ]
            usable.sort(key=lambda station: station.backend.max_in_flight)
            offered = usable[:1] if self._line else usable
            able = [s for s in offered if not s.in_doubt and s.reserved_for in (None, reading)]
            patience = self._tuning.suspect_patience
            solitude = {s: seen for s in able if (seen := s.solitude(reading, patience)) is not None}
            if solitude:
                station, evidence = next(iter(solitude.items()))
                self.unqueue(reading)
                reading.send(station, Choice(station.name, "alone: was in flight at a death"), evidence)
                continue
            if any(station.reserved_for is reading for station in self._stations):
                continue
            empty = next((station for station in able if not station.in_flight), None)
            if empty is not None:
                empty.reserve(reading)
                continue
            # Emptying one of several servers at once is cheapest: done at the end, the same pages would make the tail.
            # The only one that is left is worth some patience: the other may come back, and needs a probe anyway.
            patience = 0.0 if len(usable) >= min(2, len(self._stations)) else patience
            waited = not self._line or now - since >= patience
            if waited and able and not any(station.reserved_for for station in self._stations):
                able[0].reserve(reading)

    def _end_outage_or_give_up(self, now: float) -> None:
        if all(s.breaker.is_misconfigured and now < s.breaker.retry_at for s in self._stations):
            detail = "; ".join(f"{s.name} {s.breaker.why}" for s in self._stations)
            self._give_up_all(GaveUp(Reason.MISCONFIGURED, detail))
            return
        self._give_up_stranded(now)
        if any(station.breaker.condition is Condition.CLOSED for station in self._stations):
            if self._down_since is not None:
                log.info("servers take pages again after %.0f s", now - self._down_since)
            self._down_since = None
            return
        if self._down_since is None:
            self._down_since = now
            log.warning("no server takes pages; after %.0f s %s", self._outage_wait, self._afterwards)
        # after an idle time nobody has looked at the servers: give them the time of a look or two
        looked = now - self._woke_at >= min(self._outage_wait, 2 * self._tuning.breaker.longest)
        if looked and now - self._down_since >= self._outage_wait:
            why = ", ".join(f"{s.name} {s.breaker.why}" for s in self._stations)
            self._give_up_all(GaveUp(Reason.BACKEND_UNAVAILABLE, f"{why} for {now - self._down_since:.0f} s"))

    def _give_up_stranded(self, now: float) -> None:
        """A page that one server refused, while those that could give the second opinion are away."""
        for reading in [r for r in self._readings if r.troubles.refused and not r.flights]:
            others = [s for s in self._stations if s.name not in reading.troubles.refused]
            if any(station.breaker.condition is not Condition.OPEN for station in others):
                reading.stranded_since = None
                continue
            reading.stranded_since = now if reading.stranded_since is None else reading.stranded_since
            hopeless = all(station.breaker.is_misconfigured for station in others)
            if hopeless or now - reading.stranded_since >= self._outage_wait:
                self.unqueue(reading)
                refusals = (f"{name}: {why}" for name, why in reading.troubles.refused.items())
                reading.give_up(GaveUp(Reason.REFUSED, "; ".join(refusals)))

    def _give_up_all(self, gave_up: GaveUp) -> None:
        for reading in [*self._line.in_turn(), *self._suspects]:
            self.unqueue(reading)
            reading.give_up(gave_up)

    # -- late pages ------------------------------------------------------------------------------------------------

    def _hedge(self) -> None:
        """Late pages are asked a second time where a slot is free."""
        now = self._clock()
        late: dict[int, PageReading] = {}
        seen: list[InFlight] = []
        for reading in self._readings:
            if len(reading.flights) != 1 or reading.hedged or reading.flights[0].alone:
                continue
            flight = reading.flights[0]
            late[id(reading)] = reading
            seen.append(
                InFlight(
                    page=id(reading),
                    backend=flight.station.name,
                    elapsed=now - flight.since,
                    usual=flight.station.speed.average,
                    probe=flight.probe,
                    not_on=frozenset(reading.troubles.avoided(now)),
                )
            )
        states = [station.state() for station in self._stations]
        for hedge in hedges(seen, states, backlog=bool(self._line)):
            late[hedge.page].hedge(self._by_name[hedge.backend], Choice(hedge.backend, hedge.reason))
