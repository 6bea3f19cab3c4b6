"""Polls one server while there is work for the fleet: its /health while it is away, its /metrics while it reads, and
its /health then too where /metrics cannot be read.

Here belongs the polling, and what a poll shows by itself: a hung or silent server, one that is back. Not here: what
answers say of the server (live_backend.py), and whether it died (deaths.py).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from ocr_pipeline.ocr.fleet.failover import Evidence
from ocr_pipeline.ocr.fleet.health import Condition
from ocr_pipeline.ocr.fleet.live_backend import LiveBackend
from ocr_pipeline.ocr.fleet.server_metrics import ServerMetrics, parse_metrics
from ocr_pipeline.ocr.fleet.tenancy import requests_held

log = logging.getLogger(__name__)

BLOCKED = ("not_found", "forbidden", "unauthorized")  # a tunnel that lets only /v1 and /health through
SILENT = ("connect_failed", "connect_timeout", "timeout")


@dataclass(frozen=True, slots=True)
class WatchRules:
    """How closely servers are polled. Seconds."""

    interval: float = 1.0  # between polls of /metrics while pages are in flight
    hung_after: float = 45.0  # requests run and no token comes: longer than any prefill that was measured
    unreachable_after: float = 30.0  # neither /metrics nor /health answer, and no page does, while pages are in flight
    metrics_again: float = 30.0  # until /metrics is tried again where it was blocked or only /health answered


class Watch:
    """Of one server, for as long as there is work for the fleet."""

    def __init__(
        self, backend: LiveBackend, rules: WatchRules, *, clock: Callable[[], float], changed: Callable[[], None]
    ) -> None:
        """`changed` is called when a poll shows that the server may take pages, or more or fewer of them."""
        self._backend = backend
        self._rules = rules
        self._clock = clock
        self._changed = changed
        self._silent_since: float | None = None  # when the first probe that was not answered was sent
        self._metrics_from = 0.0  # clock time before which /metrics is not tried

    async def run(self) -> None:
        """Polls again and again; the caller cancels it."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pause()):
                    await self._backend.poll_soon.wait()
                self._backend.poll_soon.clear()
                continue
            try:
                await self.poll()
            except Exception:
                log.exception("polling %s", self._backend.name)

    def _pause(self) -> float:
        breaker = self._backend.breaker
        if breaker.condition is not Condition.OPEN:
            # At random moments, so that two runs that wait for an empty server do not both find it so.
            factor = random.uniform(0.05, 0.3) if self._backend.reserved_for is not None else 1.0  # noqa: S311
            return self._rules.interval * factor
        return min(max(breaker.retry_at - self._clock(), 0.05), self._rules.interval)

    async def poll(self) -> None:
        """One poll: of /health when the breaker is open and may be probed, of /metrics while pages are in flight."""
        backend = self._backend
        away = backend.breaker.condition is Condition.OPEN
        if not away and (backend.pending or backend.reserved_for is not None):
            await self._poll_in_use()
            return
        self._silent_since = None  # from before an outage or an idle time it says nothing of what follows
        if away and self._clock() >= backend.breaker.retry_at:
            await self._check_recovery()

    async def _check_recovery(self) -> None:
        backend = self._backend
        healthy = (await backend.client.health()).ok and not await self._still_hangs()
        if healthy and await backend.deaths.check_restarted():
            backend.admission.undo_last_death()
        if backend.health_checked(healthy):
            log.info("%s answers again: one page is sent as a probe", backend.name)
            self._changed()

    async def _still_hangs(self) -> bool:
        """A hung server keeps its requests running and makes no token, and its /health is 200."""
        backend = self._backend
        if backend.breaker.why != "hung":
            return False
        probed = await backend.client.metrics_text()
        if not probed.ok:
            return False
        metrics, before = parse_metrics(probed.text), backend.deaths.progress
        after = backend.deaths.progress = before.observe(metrics, 0, self._clock())
        return bool(metrics.running) and metrics.generated == before.generated and not after.restarted

    async def _poll_in_use(self) -> None:
        backend, asked_at = self._backend, self._clock()
        epoch, ours = backend.epoch, backend.in_flight
        told = self._silent_since is None and asked_at >= self._metrics_from
        probed = await (backend.client.metrics_text() if told else backend.client.health())
        hidden = told and probed.outcome in BLOCKED
        if told and probed.outcome in SILENT:
            probed = await backend.client.health()
            hidden = probed.outcome not in SILENT
        if epoch != backend.epoch:
            return
        if hidden:
            self._lose_sight()
        if probed.outcome in SILENT:
            self._record_silence(asked_at)
            return
        self._silent_since = None
        if backend.reserved_for is not None and not backend.pending:
            backend.tenancy.mark_reserved(self._clock())
        if told and not hidden and probed.ok:
            self._apply(parse_metrics(probed.text), ours)
            self._changed()

    def _lose_sight(self) -> None:
        """The server is there and does not tell what it does: routing does without, and nobody is proved alone."""
        backend = self._backend
        if backend.tenancy.metrics_available:
            log.warning("%s answers, but not its /metrics: whether it hangs cannot be seen", backend.name)
        backend.tenancy.metrics_available = False
        backend.metrics = ServerMetrics()
        self._metrics_from = self._clock() + self._rules.metrics_again
        for request in backend.pending:
            if request.alone:
                request.evidence = Evidence.DOUBTFUL
        self._changed()

    def _record_silence(self, asked_at: float) -> None:
        if self._silent_since is None:
            # never dead by one: where this process stood still (a paused machine), it is late as well
            self._silent_since = asked_at
            return
        heard_at = max(self._silent_since, self._backend.speed.last_at)
        if self._clock() - heard_at >= self._rules.unreachable_after:
            self._silent_since = None
            log.warning("%s has not answered for %.0f s", self._backend.name, self._rules.unreachable_after)
            self._backend.died()

    def _apply(self, metrics: ServerMetrics, ours: int) -> None:
        """`ours`: pages of ours that were there when the server was asked."""
        backend, now = self._backend, self._clock()
        backend.metrics = metrics
        backend.tenancy.metrics_available = True
        backend.tenancy.observe(metrics, max(ours, backend.in_flight))
        for request in backend.pending:
            if request.alone and (requests_held(metrics) or 0) > 1:
                request.evidence = Evidence.DOUBTFUL
        backend.deaths.progress = backend.deaths.progress.observe(metrics, backend.in_flight, now)
        backend.admission.observe_queue(metrics.running, metrics.waiting, backend.in_flight)
        oldest = max((now - request.sent_at for request in backend.pending), default=0.0)
        if min(backend.deaths.progress.stalled_for(now), oldest) >= self._rules.hung_after:
            backend.hung()
