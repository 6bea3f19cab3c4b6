"""Polls one server while there is work for the fleet: its /health while it is away, its /metrics while it reads.

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

METRICS_BLOCKED = ("not_found", "forbidden", "unauthorized")  # a tunnel that lets only /v1 and /health through
SILENT = ("connect_failed", "connect_timeout", "timeout")


@dataclass(frozen=True, slots=True)
class WatchRules:
    """How closely servers are polled. Seconds."""

    interval: float = 1.0  # between polls of /metrics while pages are in flight
    hung_after: float = 45.0  # requests run and no token comes: longer than any prefill that was measured
    unreachable_after: float = 30.0  # neither /metrics nor /health answer, while pages are in flight


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
        self._silent_since: float | None = None

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
        if backend.breaker.condition is Condition.OPEN:
            if self._clock() >= backend.breaker.retry_at:
                await self._check_recovery()
        elif backend.pending or backend.reserved_for is not None:
            await self._poll_metrics()

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

    async def _poll_metrics(self) -> None:
        backend = self._backend
        epoch, ours = backend.epoch, backend.in_flight
        probed = await (backend.client.metrics_text() if backend.tenancy.metrics_available else backend.client.health())
        if epoch != backend.epoch:
            return
        if probed.outcome in METRICS_BLOCKED:
            backend.tenancy.metrics_available = False  # routing does without
        if not probed.ok and probed.outcome in SILENT:
            self._record_silence()
            return
        self._silent_since = None
        if backend.reserved_for is not None and not backend.pending:
            backend.tenancy.mark_reserved(self._clock())
        if probed.ok and backend.tenancy.metrics_available:
            self._apply(parse_metrics(probed.text), ours)
            self._changed()

    def _record_silence(self) -> None:
        now = self._clock()
        self._silent_since = now if self._silent_since is None else self._silent_since
        if now - self._silent_since >= self._rules.unreachable_after:
            self._silent_since = None
            log.warning("%s has not answered for %.0f s", self._backend.name, self._rules.unreachable_after)
            self._backend.died()

    def _apply(self, metrics: ServerMetrics, ours: int) -> None:
        """`ours`: pages of ours that were there when the server was asked."""
        backend, now = self._backend, self._clock()
        backend.metrics = metrics
        backend.tenancy.observe(metrics, max(ours, backend.in_flight))
        for request in backend.pending:
            if request.alone and (requests_held(metrics) or 0) > 1:
                request.evidence = Evidence.DOUBTFUL
        backend.deaths.progress = backend.deaths.progress.observe(metrics, backend.in_flight, now)
        backend.admission.observe_queue(metrics.running, metrics.waiting, backend.in_flight)
        oldest = max((now - request.sent_at for request in backend.pending), default=0.0)
        if min(backend.deaths.progress.stalled_for(now), oldest) >= self._rules.hung_after:
            backend.hung()
