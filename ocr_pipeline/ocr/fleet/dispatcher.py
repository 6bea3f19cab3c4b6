"""The dispatcher: gives each waiting page a server as soon as one has room, and gives up pages without a chance.

Here belongs the one place that sees all pages and all servers: the queue, suspect pages that must be alone, outages,
hedged requests for late pages. Not here: the decisions themselves (routing, admission, health, hedging,
failover: pure), one server (live_backend.py), one page's life (page_task.py).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ocr_pipeline.ocr.fleet.failover import GaveUp
from ocr_pipeline.ocr.fleet.fair_queue import FairQueue
from ocr_pipeline.ocr.fleet.health import BreakerRules, Condition
from ocr_pipeline.ocr.fleet.hedging import InFlight, hedges
from ocr_pipeline.ocr.fleet.live_backend import LiveBackend
from ocr_pipeline.ocr.fleet.page_task import PageTask
from ocr_pipeline.ocr.fleet.routing import BackendState, Choice, DocumentView, choose
from ocr_pipeline.ocr.fleet.watch import Watch, WatchRules
from ocr_pipeline.ocr.vllm.backends import Rules
from ocr_pipeline.records import Reason

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tuning:
    """Times of the fleet in seconds. The defaults are for real servers; tests and simulations run faster."""

    watch: WatchRules = field(default_factory=WatchRules)
    breaker: BreakerRules = field(default_factory=BreakerRules)
    # Longest wait for a server's return, which tells whether it died or only its connection did: a vLLM that starts
    # again needs 60 to 120 (measured).
    recovery_timeout: float = 180.0
    tick: float = 0.25  # between checks of what time alone changes: late pages, outages, back-offs that are over
    # How long a page that must be alone waits for another server to return before the only one left is emptied for it.
    suspect_patience: float = 30.0
    # After a doubtful death, the suspect page keeps a server free for a random time of at most this before it is sent
    # there again. Otherwise the suspects of two runs that met at a server would meet there again, since both runs wait
    # for the same restart.
    longest_quiet: float = 20.0


class Dispatcher:
    """All pages that are being read, and all servers, on one event loop."""

    def __init__(
        self,
        backends: Sequence[LiveBackend],
        rules: Rules,
        tuning: Tuning,
        *,
        outage_wait: float,
        fallback: str,
        documents_today: int | None,
        clock: Callable[[], float],
    ) -> None:
        """`fallback` says in the log what follows when no server has been there for `outage_wait` seconds."""
        self._backends = tuple(backends)
        self._by_name = {backend.name: backend for backend in self._backends}
        self._rules = rules
        self._tuning = tuning
        self._outage_wait = outage_wait
        self._fallback = fallback
        self._documents_today = documents_today
        self._clock = clock
        self._queue: FairQueue[PageTask] = FairQueue()
        self._suspects: dict[PageTask, float] = {}  # since when each waits to be alone
        self._page_tasks: set[PageTask] = set()
        self._documents: Counter[str] = Counter()  # page tasks by document
        self._down_since: float | None = None  # no server takes pages
        self._active_since = 0.0
        self._tasks: list[asyncio.Task[None]] = []
        self._dispatching = False
        self._last_bug = ""
        self._closed = False

    # -- registration and queue ------------------------------------------------------------------------------------

    def register(self, page_task: PageTask) -> None:
        """A page begins to be read. The servers are watched while any page is registered."""
        now = self._clock()
        if not self._page_tasks:
            self._active_since = now
            self._tasks = [asyncio.create_task(self._tick(), name="fleet tick")]
            for backend in self._backends:
                watch = Watch(backend, self._tuning.watch, clock=self._clock, changed=self.dispatch)
                self._tasks.append(asyncio.create_task(watch.run(), name=f"watch {backend.name}"))
        self._page_tasks.add(page_task)
        self._documents[page_task.document_id] += 1

    def unregister(self, page_task: PageTask) -> None:
        self.dequeue(page_task)
        self._page_tasks.discard(page_task)
        self._documents[page_task.document_id] -= 1
        if not self._documents[page_task.document_id]:
            del self._documents[page_task.document_id]
        if not self._page_tasks:
            self._stop_watching()
        else:
            self.dispatch()

    def enqueue(self, page_task: PageTask) -> None:
        """The page waits for a server. It hears of it through `page_task.completed` or `page_task.give_up`."""
        if page_task.history.suspect:
            self._suspects.setdefault(page_task, self._clock())
        else:
            self._queue.add(page_task)
        self.dispatch()

    def dequeue(self, page_task: PageTask) -> None:
        if page_task in self._queue:
            self._queue.remove(page_task)
        self._suspects.pop(page_task, None)
        for backend in self._backends:
            if backend.reserved_for is page_task:
                backend.reserved_for = None

    async def aclose(self) -> None:
        self._closed = True
        tasks = self._stop_watching()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _stop_watching(self) -> list[asyncio.Task[None]]:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        return tasks

    async def _tick(self) -> None:
        hedging = True
        while True:
            await asyncio.sleep(self._tuning.tick)
            self.dispatch()
            try:
                if hedging:
                    self._hedge()
            except Exception:  # a bug of ours must not stop the clock by which outages end
                hedging = False
                log.exception("late pages are not asked a second time any more")

    # -- giving servers to pages -----------------------------------------------------------------------------------

    def dispatch(self) -> None:
        """Sends every page that can be sent now, and gives up what has waited too long. Called from callbacks, so it
        never raises."""
        if self._dispatching or self._closed:
            return
        self._dispatching = True
        try:
            now = self._clock()
            self._place_suspects(now)
            self._place_queue(now)
            self._end_outage_or_give_up(now)
        except Exception as error:
            waiting = [task for task in self._page_tasks if task in self._queue or task in self._suspects]
            self._fail(waiting, error)
        finally:
            self._dispatching = False

    def _fail(self, page_tasks: Sequence[PageTask], error: Exception) -> None:
        """After a bug of ours, for which they would wait for ever. The same bug is logged in full only once."""
        shown = repr(error)
        is_new, self._last_bug = shown != self._last_bug, shown
        if page_tasks or is_new:
            count = len(page_tasks)
            log.error("%d page(s) fail, no server can be chosen: %s", count, shown, exc_info=error if is_new else None)
        for page_task in page_tasks:
            self.dequeue(page_task)
            page_task.give_up(GaveUp(Reason.ENGINE_FAILED, f"no server could be chosen: {shown}"))

    def _place_queue(self, now: float) -> None:
        """First each page whose preferred server has room; then the others take what is left, even beyond their share.

        So a free slot of the small card goes to a small document that waits, before it goes to the overflow of a
        large one; and no slot idles while a page waits.
        """
        if not self._queue or not _have_room(self._states()):
            return
        waiting = list(self._queue.in_order())
        in_flight = self._in_flight_by_document()
        for only_at_home, shares_lifted in ((True, False), (False, False), (False, True)):
            waiting = self._place(waiting, in_flight, now, only_at_home=only_at_home, shares_lifted=shares_lifted)
            if not _have_room(self._states()):
                return

    def _place(
        self,
        waiting: Sequence[PageTask],
        in_flight: Mapping[str, Counter[str]],
        now: float,
        *,
        only_at_home: bool,
        shares_lifted: bool,
    ) -> list[PageTask]:
        """Sends those of the pages that can go now, in their order, until no server has room; returns those that
        cannot. `only_at_home`: only to the server that the rules name."""
        states = self._states()
        left: list[PageTask] = []
        no_slot: set[tuple[str, bool]] = set()  # documents whose fresh pages found none since the last change
        for ahead, page_task in enumerate(waiting):
            kind = (page_task.document_id, page_task.urgent)
            if page_task.is_fresh and kind in no_slot:
                left.append(page_task)
                continue
            document = DocumentView(
                pages=page_task.image.pages_in_document,
                in_flight=in_flight[page_task.document_id],
                shares_lifted=shares_lifted,
                open_documents=len(self._documents),
                documents_today=self._documents_today,
            )
            try:
                choices = choose(page_task.view(now, ahead), document, states, self._rules)
            except Exception as error:  # this page's trouble alone
                self._fail([page_task], error)
                continue
            best = choices[0] if choices else None
            if best is None or (only_at_home and not best.at_home and not page_task.urgent):
                left.append(page_task)
                if page_task.is_fresh:
                    no_slot.add(kind)
                continue
            page_task.send(self._by_name[best.backend], best)
            self._queue.take(page_task)
            in_flight[page_task.document_id][best.backend] += 1
            states = self._states()
            no_slot.clear()
            if not _have_room(states):
                break
        return left

    def _states(self) -> list[BackendState]:
        return [backend.state() for backend in self._backends]

    def _in_flight_by_document(self) -> Mapping[str, Counter[str]]:
        counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for page_task in self._page_tasks:
            for request in page_task.pending:
                counts[page_task.document_id][request.backend.name] += 1
        return counts

    def _place_suspects(self, now: float) -> None:
        """Pages that were in flight at a death: each goes to a server where nothing else is, and nothing joins it."""
        # In any order: of several suspects not the same one meets another run's each time.
        for page_task, since in random.sample(list(self._suspects.items()), len(self._suspects)):
            if page_task.clear_false_alarms():
                self.dequeue(page_task)
                self._queue.add(page_task)
                continue
            avoided = page_task.history.avoided(now)
            usable = [
                backend
                for backend in self._backends
                if backend.breaker.condition is not Condition.OPEN and backend.name not in avoided
            ]
            usable.sort(key=lambda backend: backend.config.max_in_flight)
            # While other pages wait, only the smallest server is given up to suspects: 16 of them one after the other
            # on the Spark idled 15 of its slots for as long (measured: 65 s for a batch of 17 s).
            offered = usable[:1] if self._queue else usable
            able = [s for s in offered if not s.is_paused and s.reserved_for in (None, page_task)]
            if self._send_alone(page_task, able):
                continue
            for backend in usable:
                if backend.reserved_for is page_task and backend not in offered:
                    backend.reserved_for = None  # others have begun to wait for it
            if not any(backend.reserved_for is page_task for backend in self._backends):
                self._reserve(page_task, able, waited=now - since, usable=len(usable))

    def _send_alone(self, page_task: PageTask, able: Sequence[LiveBackend]) -> bool:
        """Sends the suspect page to the first of these servers that is empty enough; False if there is none."""
        for backend in able:
            evidence = backend.evidence_if_sent(page_task, self._tuning.suspect_patience)
            if evidence is not None:
                page_task.send(backend, Choice(backend.name, "alone: was in flight at a death"), evidence)
                self.dequeue(page_task)
                return True
        return False

    def _reserve(self, page_task: PageTask, able: Sequence[LiveBackend], *, waited: float, usable: int) -> None:
        """Keeps one of these servers free for the suspect page, which has waited for so many seconds: an empty one, or
        one that is emptied for it. `usable`: how many servers could take the page."""
        empty = next((backend for backend in able if not backend.in_flight), None)
        if empty is not None:
            empty.reserve(page_task, self._quiet(page_task))
            return
        # With several servers it is cheapest to empty one at once: left for later, these pages would be the last of the
        # batch. With only one left some patience pays: another may come back, and needs a probe anyway.
        patience = 0.0 if usable >= min(2, len(self._backends)) else self._tuning.suspect_patience
        if (not self._queue or waited >= patience) and able and not any(b.reserved_for for b in self._backends):
            able[0].reserve(page_task, self._quiet(page_task))

    def _quiet(self, page_task: PageTask) -> float:
        if not page_task.history.doubtful:
            return 0.0
        return random.uniform(0.0, self._tuning.longest_quiet)  # noqa: S311 - spreads runs, hides nothing

    def _end_outage_or_give_up(self, now: float) -> None:
        if all(s.breaker.is_misconfigured and now < s.breaker.retry_at for s in self._backends):
            detail = "; ".join(f"{s.name} {s.breaker.why}" for s in self._backends)
            self._give_up_all(GaveUp(Reason.MISCONFIGURED, detail))
            return
        self._give_up_stranded(now)
        if any(backend.breaker.condition is Condition.CLOSED for backend in self._backends):
            if self._down_since is not None:
                log.info("servers take pages again after %.0f s", now - self._down_since)
            self._down_since = None
            return
        if self._down_since is None:
            self._down_since = now
            log.warning("no server takes pages; after %.0f s %s", self._outage_wait, self._fallback)
        # after an idle time nobody has polled the servers: give them the time of a poll or two
        polled = now - self._active_since >= min(self._outage_wait, 2 * self._tuning.breaker.longest_wait)
        if polled and now - self._down_since >= self._outage_wait:
            why = ", ".join(f"{s.name} {s.breaker.why}" for s in self._backends)
            self._give_up_all(GaveUp(Reason.BACKEND_UNAVAILABLE, f"{why} for {now - self._down_since:.0f} s"))

    def _give_up_stranded(self, now: float) -> None:
        """A page that one server refused, while those that could give the second opinion are away."""
        for page_task in [r for r in self._page_tasks if r.history.refused and not r.pending]:
            others = [s for s in self._backends if s.name not in page_task.history.refused]
            if any(backend.breaker.condition is not Condition.OPEN for backend in others):
                page_task.stranded_since = None
                continue
            page_task.stranded_since = now if page_task.stranded_since is None else page_task.stranded_since
            hopeless = all(backend.breaker.is_misconfigured for backend in others)
            if hopeless or now - page_task.stranded_since >= self._outage_wait:
                self.dequeue(page_task)
                refusals = (f"{name}: {why}" for name, why in page_task.history.refused.items())
                page_task.give_up(GaveUp(Reason.REFUSED, "; ".join(refusals)))

    def _give_up_all(self, gave_up: GaveUp) -> None:
        for page_task in [*self._queue.in_order(), *self._suspects]:
            self.dequeue(page_task)
            page_task.give_up(gave_up)

    # -- hedging ---------------------------------------------------------------------------------------------------

    def _hedge(self) -> None:
        """Sends late pages a second time where a slot is free."""
        now = self._clock()
        late: dict[int, PageTask] = {}
        seen: list[InFlight] = []
        for page_task in self._page_tasks:
            if len(page_task.pending) != 1 or page_task.hedged or page_task.pending[0].alone:
                continue
            request = page_task.pending[0]
            late[id(page_task)] = page_task
            seen.append(
                InFlight(
                    page=id(page_task),
                    backend=request.backend.name,
                    elapsed=now - request.sent_at,
                    usual=request.backend.speed.average,
                    probe=request.probe,
                    not_on=frozenset(page_task.history.avoided(now)),
                )
            )
        for hedge in hedges(seen, self._states(), backlog=bool(self._queue)):
            late[hedge.page].hedge(self._by_name[hedge.backend], Choice(hedge.backend, hedge.reason))


def _have_room(states: Sequence[BackendState]) -> bool:
    return any(state.has_room for state in states)
