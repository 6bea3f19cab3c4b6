"""The fleet: a `Transcriber` over several unlike servers. Gives each waiting page a server as soon as one has room.

Here belongs the meeting of pages and servers on one event loop: the waiting line, the suspects that must be alone,
outages, second requests for late pages. Not here: the decisions themselves (routing, admission, health, hedging,
failover: pure), one server (station.py), one page's life (page_reading.py).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from ocr_pipeline.ocr.backends import BackendsConfig, geometry
from ocr_pipeline.ocr.health import BreakerRules, Condition
from ocr_pipeline.ocr.hedging import InFlight, hedges
from ocr_pipeline.ocr.ladder import recipe
from ocr_pipeline.ocr.page_reading import GaveUp, OnPoisoned, PageReading
from ocr_pipeline.ocr.recipe import recipe_id
from ocr_pipeline.ocr.routing import Choice, DocumentView, Policy, choose
from ocr_pipeline.ocr.station import Station, Watching
from ocr_pipeline.ocr.transcriber import Transcriber
from ocr_pipeline.ocr.waiting_line import WaitingLine
from ocr_pipeline.records import Geometry, PageImage, Reason, Transcript

log = logging.getLogger(__name__)

DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Tuning:
    """Times of the fleet in seconds. The defaults are for real servers; tests and simulations run faster."""

    watching: Watching = field(default_factory=Watching)
    breaker: BreakerRules = field(default_factory=BreakerRules)
    pulse: float = 0.25  # between looks at what time alone changes: late pages, outages, back-offs that are over
    # A suspect waits this long for a server that is empty by itself (one that comes back, or the end of the work)
    # before one is emptied for it: that idles up to a page's time of all its slots.
    suspect_patience: float = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendSnapshot:
    """One server as metrics and UI show it."""

    name: str
    condition: str  # closed, open, half_open
    why: str  # of the last opening, "" when well
    limit: int  # pages in flight that admission allows
    in_flight: int
    running: float | None  # the server's own numbers, of all its clients
    waiting: float | None
    kv_usage: float | None
    seconds_per_page: float | None
    pages: int  # answered with a text
    tokens: int  # of those texts
    deaths: int


class Fleet:
    """Reads pages on GPU servers. Made and used on one event loop; `aclose` before the loop ends."""

    def __init__(
        self,
        config: BackendsConfig,
        *,
        cpu: Transcriber | None,
        outage_wait: float,
        on_poisoned: OnPoisoned | None = None,
        clock: Callable[[], float] = time.monotonic,
        tuning: Tuning | None = None,
    ) -> None:
        """`cpu` reads what no server answered for `outage_wait` seconds; without it those pages fail, to be asked
        again by the next run. `on_poisoned` gets what is needed to reproduce a page that killed servers.
        """
        self.config = config
        self.clock = clock
        self.cpu = cpu
        self.outage_wait = outage_wait
        self.on_poisoned = on_poisoned
        self._tuning = tuning or Tuning()
        self._policy = Policy.of(config)
        self._geometry = geometry(config)
        self._recipe_id = recipe_id(recipe(config.model, self._geometry))
        self.stations = tuple(
            Station(
                backend,
                rules=self._tuning.breaker,
                watching=self._tuning.watching,
                clock=clock,
                changed=self.dispatch,
            )
            for backend in config.backends
        )
        self._by_name = {station.name: station for station in self.stations}
        self._line: WaitingLine[PageReading] = WaitingLine()
        self._suspects: dict[PageReading, float] = {}  # since when each waits to be alone
        self._readings: set[PageReading] = set()
        self._documents: Counter[str] = Counter()  # readings by document
        self._seen: dict[str, float] = {}  # document: when it last came
        self._down_since: float | None = None  # no server takes pages
        self._woke_at = 0.0
        self._tasks: list[asyncio.Task[None]] = []
        self._dispatching = False
        self._closed = False

    # -- Transcriber -----------------------------------------------------------------------------------------------

    @property
    def recipe_id(self) -> str:
        return self._recipe_id

    @property
    def geometry(self) -> Geometry:
        return self._geometry

    @property
    def max_in_flight(self) -> int:
        """Half as many again as the servers take, so that a page always waits when a slot becomes free."""
        return max(2, round(1.5 * sum(backend.max_in_flight for backend in self.config.backends)))

    async def transcribe(self, image: PageImage, previous: Transcript | None = None) -> Transcript:
        if self._closed:
            raise RuntimeError("the fleet is closed")
        reading = PageReading(self, image, previous)
        self._enter(reading)
        try:
            return await reading.read()
        finally:
            self._leave(reading)

    async def aclose(self) -> None:
        """Ends everything that is under way. Pages still being read are cancelled by their callers."""
        self._closed = True
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(station.aclose() for station in self.stations))
        if self.cpu is not None:
            await self.cpu.aclose()

    def snapshot(self) -> tuple[BackendSnapshot, ...]:
        """Each server's state, in the order of the backends file."""
        return tuple(
            BackendSnapshot(
                name=station.name,
                condition=station.breaker.condition.value,
                why=station.breaker.why,
                limit=station.admission.limit,
                in_flight=station.in_flight,
                running=station.vitals.running,
                waiting=station.vitals.waiting,
                kv_usage=station.vitals.kv_usage,
                seconds_per_page=station.speed.average,
                pages=station.speed.pages,
                tokens=station.speed.tokens,
                deaths=station.deaths,
            )
            for station in self.stations
        )

    # -- for page_reading.py ---------------------------------------------------------------------------------------

    def queue(self, reading: PageReading) -> None:
        """The page waits for a server. It hears of it through `reading.landed` or `reading.give_up`."""
        if reading.troubles.suspect:
            self._suspects.setdefault(reading, self.clock())
        else:
            self._line.add(reading)
        self.dispatch()

    def unqueue(self, reading: PageReading) -> None:
        if reading in self._line:
            self._line.remove(reading)
        self._suspects.pop(reading, None)
        for station in self.stations:
            if station.reserved_for is reading:
                station.reserved_for = None

    # -- who is there ----------------------------------------------------------------------------------------------

    def _enter(self, reading: PageReading) -> None:
        now = self.clock()
        if not self._readings:
            self._wake(now)
        self._readings.add(reading)
        self._documents[reading.document_id] += 1
        self._seen[reading.document_id] = now
        if len(self._seen) > 2 * self._policy.low_volume_per_day + 1000:
            self._seen = {document: at for document, at in self._seen.items() if now - at < DAY}

    def _leave(self, reading: PageReading) -> None:
        self.unqueue(reading)
        self._readings.discard(reading)
        self._documents[reading.document_id] -= 1
        if not self._documents[reading.document_id]:
            del self._documents[reading.document_id]
        if not self._readings:
            for task in self._tasks:
                task.cancel()
            self._tasks = []
        elif not self._closed:
            self.dispatch()

    def _wake(self, now: float) -> None:
        """From idle to work: nothing was watched meanwhile, so what was open is looked at soon."""
        self._woke_at = now
        self._tasks = [asyncio.create_task(station.watch(), name=f"watch {station.name}") for station in self.stations]
        self._tasks.append(asyncio.create_task(self._pulse(), name="fleet pulse"))

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
            now = self.clock()
            self._place_suspects(now)
            self._place_line(now)
            self._end_outage_or_give_up(now)
        except Exception:
            log.exception("giving pages to servers")  # called from callbacks: it must not end a request's task
        finally:
            self._dispatching = False

    def _place_line(self, now: float) -> None:
        if not self._line or not any(station.state().has_room for station in self.stations):
            return
        waiting = list(self._line.in_turn())
        documents = self._line.documents()
        # First everybody whose own server has room, then whoever is left takes what is left: so a free slot of the
        # small card goes to a small document that waits before it goes to the overflow of a large one.
        for only_at_home in (True, False):
            left = []
            for ahead, reading in enumerate(waiting):
                placed = self._place(reading, now, ahead, documents, only_at_home and not reading.urgent)
                if not placed:
                    left.append(reading)
            waiting = left

    def _place(self, reading: PageReading, now: float, ahead: int, documents: set[str], only_at_home: bool) -> bool:
        states = [station.state() for station in self.stations]
        if not any(state.has_room for state in states):
            return False
        document = DocumentView(
            pages=reading.image.pages_in_document,
            in_flight=self._in_flight_of(reading.document_id),
            alone=documents == {reading.document_id},
            open_documents=len(self._documents),
            documents_today=len(self._seen),
        )
        for choice in choose(reading.view(now, ahead), document, states, self._policy):
            if choice.at_home or not only_at_home:
                self._line.take(reading)
                reading.send(self._by_name[choice.backend], choice)
                return True
        return False

    def _in_flight_of(self, document_id: str) -> Counter[str]:
        return Counter(
            flight.station.name
            for reading in self._readings
            if reading.document_id == document_id
            for flight in reading.flights
        )

    def _place_suspects(self, now: float) -> None:
        """Pages that were in flight at a death: each goes to a server where nothing else is, and nothing joins it."""
        for reading, since in list(self._suspects.items()):
            avoided = reading.troubles.avoided(now)
            able = [
                station
                for station in self.stations
                if station.breaker.condition is not Condition.OPEN
                and station.name not in avoided
                and not station.in_doubt
                and station.reserved_for in (None, reading)
            ]
            # a server that comes back needs a probe anyway; and the smaller one has less to lose
            able.sort(key=lambda s: (s.breaker.condition is not Condition.HALF_OPEN, s.backend.max_in_flight))
            empty = next((station for station in able if not station.in_flight), None)
            if empty is not None:
                self.unqueue(reading)
                reading.send(empty, Choice(empty.name, "alone: was in flight at a death"), alone=True)
                continue
            waited = not self._line or now - since >= self._tuning.suspect_patience
            if waited and able and not any(station.reserved_for for station in self.stations):
                able[0].reserved_for = reading

    def _end_outage_or_give_up(self, now: float) -> None:
        if all(station.breaker.is_misconfigured for station in self.stations):
            detail = "; ".join(f"{s.name} {s.breaker.why}" for s in self.stations)
            self._give_up_all(GaveUp(Reason.MISCONFIGURED, detail))
            return
        self._give_up_stranded(now)
        if any(station.breaker.condition is Condition.CLOSED for station in self.stations):
            if self._down_since is not None:
                log.info("servers take pages again after %.0f s", now - self._down_since)
            self._down_since = None
            return
        if self._down_since is None:
            self._down_since = now
            log.warning("no server takes pages; after %.0f s %s", self.outage_wait, self._afterwards())
        # after an idle time nobody has looked at the servers: give them the time of a look or two
        looked = now - self._woke_at >= min(self.outage_wait, 2 * self._tuning.breaker.longest)
        if looked and now - self._down_since >= self.outage_wait:
            why = ", ".join(f"{s.name} {s.breaker.why}" for s in self.stations)
            self._give_up_all(GaveUp(Reason.BACKEND_UNAVAILABLE, f"{why} for {now - self._down_since:.0f} s"))

    def _give_up_stranded(self, now: float) -> None:
        """A page that one server refused, while those that could give the second opinion are away."""
        for reading in [*self._line.in_turn(), *self._suspects]:
            others = [s for s in self.stations if s.name not in reading.troubles.refused]
            if len(others) == len(self.stations) or any(s.breaker.condition is not Condition.OPEN for s in others):
                reading.stranded_since = None
                continue
            reading.stranded_since = now if reading.stranded_since is None else reading.stranded_since
            hopeless = all(station.breaker.is_misconfigured for station in others)
            if hopeless or now - reading.stranded_since >= self.outage_wait:
                self.unqueue(reading)
                refusals = (f"{name}: {why}" for name, why in reading.troubles.refused.items())
                reading.give_up(GaveUp(Reason.REFUSED, "; ".join(refusals)))

    def _afterwards(self) -> str:
        return "the CPU engine takes over" if self.cpu is not None else "pages fail, to be asked again by the next run"

    def _give_up_all(self, gave_up: GaveUp) -> None:
        for reading in [*self._line.in_turn(), *self._suspects]:
            self.unqueue(reading)
            reading.give_up(gave_up)

    # -- late pages ------------------------------------------------------------------------------------------------

    def _hedge(self) -> None:
        """Late pages are asked a second time where a slot is free."""
        now = self.clock()
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
        states = [station.state() for station in self.stations]
        for hedge in hedges(seen, states, backlog=bool(self._line)):
            late[hedge.page].hedge(self._by_name[hedge.backend], Choice(hedge.backend, hedge.reason))


__all__ = ["BackendSnapshot", "Fleet", "Tuning"]
