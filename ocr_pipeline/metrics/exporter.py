"""The exporter: figures, servers and runs as one Prometheus collector, served on a port."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ocr_pipeline.metrics.figures import Family, figures
from ocr_pipeline.metrics.servers import ServerMonitor, families
from ocr_pipeline.ocr.vllm.backends import Backend
from ocr_pipeline.warehouse.connection import Warehouse

log = logging.getLogger(__name__)

KEEP_SECONDS = 30.0
"""The tables are asked at most so often: a question takes time from loads of a DuckDB file."""


class Source:
    """Figures from somewhere that may fail or be slow: kept for a while, and the last ones where it fails now."""

    def __init__(self, name: str, ask: Callable[[], list[Family]], keep: float, clock: Callable[[], float]) -> None:
        self.name = name
        self._ask = ask
        self._keep = keep
        self._clock = clock
        self._families: list[Family] = []
        self._tried: float | None = None
        self.read_at = 0.0  # unix time of the figures; 0: none yet
        self.up = False

    def families(self) -> list[Family]:
        if self._tried is None or self._clock() - self._tried >= self._keep:
            self._tried = self._clock()
            try:
                self._families = self._ask()
                self.read_at, self.up = time.time(), True
            except Exception as error:  # whatever a source raises, the others' figures still go out
                log.warning("metrics: %s cannot be read now: %s", self.name, error)
                self.up = False
        return self._families


class Exporter(Collector):
    """All of it.

    `waiting` gives `{state: (batches, documents)}` of the batches whose run is queued or at work, `heartbeats` the unix
    time at which each part of Dagster's daemon last gave a sign of life.
    """

    def __init__(
        self,
        warehouse: Warehouse,
        backends: Sequence[Backend] = (),
        waiting: Callable[[], Mapping[str, tuple[int, int]]] | None = None,
        heartbeats: Callable[[], Mapping[str, float]] | None = None,
        *,
        keep_seconds: float = KEEP_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lock = threading.Lock()
        monitor = ServerMonitor(backends)
        names = [backend.name for backend in backends]
        self._sources = [Source("warehouse", lambda: figures(warehouse, names), keep_seconds, clock)]
        if backends:
            self._sources.append(Source("servers", lambda: families(backends, monitor), 0.0, clock))
        if waiting is not None:
            self._sources.append(Source("runs", lambda: _waiting(waiting()), 0.0, clock))
        if heartbeats is not None:
            self._sources.append(Source("daemon", lambda: _heartbeats(heartbeats()), 0.0, clock))

    def collect(self) -> Iterable[Metric]:
        with self._lock:
            found = [family for source in self._sources for family in source.families()]
            found += [
                Family("ocr_source_up", "1: the figures of this source were read at the last try.",
                       ("source",), tuple(((s.name,), float(s.up)) for s in self._sources)),
                Family("ocr_source_read_timestamp_seconds", "When the figures of this source were read.",
                       ("source",), tuple(((s.name,), s.read_at) for s in self._sources)),
            ]  # fmt: skip
        return [_metric(family) for family in found]


def _waiting(states: Mapping[str, tuple[int, int]]) -> list[Family]:
    return [
        Family("ocr_batches", "Batches whose run is queued or at work.", ("state",),
               tuple(((state,), float(batches)) for state, (batches, _) in states.items())),
        Family("ocr_documents_in_batches", "Documents of these batches, those that are read already too.", ("state",),
               tuple(((state,), float(documents)) for state, (_, documents) in states.items())),
    ]  # fmt: skip


def _heartbeats(last: Mapping[str, float]) -> list[Family]:
    return [
        Family("ocr_daemon_heartbeat_timestamp_seconds",
               "When this part of Dagster's daemon last gave a sign of life; 0: never.", ("daemon",),
               tuple(((part,), at) for part, at in last.items()))
    ]  # fmt: skip


def _metric(family: Family) -> Metric:
    metric = GaugeMetricFamily(family.name, family.help, labels=family.labels)
    for labels, value in family.samples:
        metric.add_metric(labels, value)
    return metric


def serve(exporter: Exporter, host: str, port: int) -> tuple[WSGIServer, threading.Thread]:
    """Serves /metrics in a thread; port 0 takes a free one (`server.server_port`). OSError: it is taken."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(exporter)
    return start_http_server(port, host, registry)
