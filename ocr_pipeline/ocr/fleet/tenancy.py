"""Whether anybody else sends requests to a server: only if not can a page be said to be alone there.

Here belongs what follows from the server's own metrics, pure. Not here: the polling (watch.py), and what a death then
says against a page (failover.py).

Other runs may send to the same server, and no run knows of the others. So a page that is alone by our own count may be
there together with another run's page, and that one may be what kills the server.
"""

from __future__ import annotations

from dataclasses import dataclass

from ocr_pipeline.ocr.fleet.failover import Evidence
from ocr_pipeline.ocr.fleet.server_metrics import ServerMetrics


@dataclass(slots=True)
class Tenancy:
    """One server's. Times are the fleet's clock, in seconds."""

    metrics_available: bool = True  # it lets us read its /metrics
    shared: bool = False  # pages that are not ours were seen there, or the server never tells
    _empty: bool = False  # the last poll showed no page there, and none was sent since
    _reserved_since: float | None = None  # since then none of ours was there, and no poll showed the server empty
    _quiet_until: float = 0.0  # the page that the server is kept free for is not sent before this time
    _strangers: int = 0  # polls in a row that showed pages that are not ours

    def invalidate(self) -> None:
        """A page of ours was sent: what a poll showed before says nothing now."""
        self._empty = False

    def begin_reservation(self, now: float, quiet: float) -> None:
        """The server begins to be kept free for one page, which is not sent for `quiet` seconds at least."""
        self.invalidate()
        self._quiet_until = now + quiet
        if quiet:
            self._reserved_since = None

    def mark_reserved(self, now: float) -> None:
        """The server is polled while it is kept free for one page, whatever comes of the poll."""
        if self._reserved_since is None and now >= self._quiet_until:
            self._reserved_since = now

    def observe(self, metrics: ServerMetrics, ours: int) -> None:
        """What a poll showed, with so many of our pages there. A request that was just cancelled is still counted by
        the server, so it takes two polls in a row to see strangers."""
        held = requests_held(metrics)
        if held is None:
            self.shared, self._empty = True, not ours
            return
        self._strangers = self._strangers + 1 if held > ours else 0
        self.shared = self.shared or self._strangers > 1
        self._empty = not held and not ours
        if self._empty:
            self._reserved_since = None

    def evidence_if_sent(self, now: float, patience: float) -> Evidence | None:
        """What a death would say against a page sent now, with none of ours there; None: not alone yet.

        A server that is never empty for `patience` seconds, or tells nothing, gets the page all the same: it is then
        alone by our count only.
        """
        if now < self._quiet_until:
            return None
        if not self.metrics_available:
            return Evidence.DOUBTFUL
        if self._empty:
            return Evidence.DOUBTFUL if self.shared else Evidence.PROVED
        never = self._reserved_since is not None and now - self._reserved_since >= patience
        return Evidence.DOUBTFUL if never else None


def requests_held(metrics: ServerMetrics) -> float | None:
    """Pages at the server, running and waiting; None where it does not tell."""
    if metrics.running is None and metrics.waiting is None:
        return None
    return (metrics.running or 0.0) + (metrics.waiting or 0.0)
