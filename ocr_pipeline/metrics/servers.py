"""What each GPU server says of itself, seen from here: may it be asked, how much waits, does it move.

Each process that reads pages has breakers of its own, which nobody outside sees. This is the same judgement made by one
observer: unreachable, set up wrongly, hung, or well. Requests go with the backend's own key and headers, so it also
works behind a Cloudflare tunnel where Prometheus itself cannot pass.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum

import httpx

from ocr_pipeline.metrics.figures import Family
from ocr_pipeline.ocr.fleet.health import Progress
from ocr_pipeline.ocr.fleet.server_metrics import ServerMetrics, parse_metrics
from ocr_pipeline.ocr.vllm.backends import Backend

HUNG_AFTER = 120.0
"""Seconds in which requests run and no token comes; as deploy/gpu/health.py judges it."""


class Condition(StrEnum):
    WELL = "well"
    UNREACHABLE = "unreachable"  # nothing answers, or /health is not 200
    MISCONFIGURED = "misconfigured"  # it answers and refuses us: key, Access token, name of the model
    HUNG = "hung"


@dataclass(frozen=True, slots=True)
class Look:
    condition: Condition
    vitals: ServerMetrics


class Watch:
    """Looks at every server of the fleet. Keeps the progress of each between two looks."""

    def __init__(
        self, backends: Sequence[Backend], *, timeout: float = 3.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._backends = backends
        self._clock = clock
        self._progress = {backend.name: Progress() for backend in backends}
        self._client = httpx.Client(timeout=timeout, trust_env=False, follow_redirects=False)
        self._pool = ThreadPoolExecutor(max(1, len(backends)), thread_name_prefix="watch")

    def close(self) -> None:
        self._pool.shutdown()
        self._client.close()

    def look(self) -> dict[str, Look]:
        """By backend name; all at once, so it takes as long as the slowest server."""
        return dict(self._pool.map(lambda backend: (backend.name, self._one(backend)), self._backends))

    def stalled_for(self, name: str) -> float:
        return self._progress[name].stalled_for(self._clock())

    def _one(self, backend: Backend) -> Look:
        try:
            if self._get(backend, "/health").status_code != 200:
                return self._judged(backend, Condition.UNREACHABLE, ServerMetrics())
            models = self._get(backend, "/v1/models")
            metrics = self._get(backend, "/metrics")
        except httpx.HTTPError:
            return self._judged(backend, Condition.UNREACHABLE, ServerMetrics())
        vitals = parse_metrics(metrics.text) if metrics.status_code == 200 else ServerMetrics()
        served = models.status_code == 200 and backend.served_model in _ids(models)
        return self._judged(backend, Condition.WELL if served else Condition.MISCONFIGURED, vitals)

    def _judged(self, backend: Backend, condition: Condition, vitals: ServerMetrics) -> Look:
        now = self._clock()
        progress = self._progress[backend.name].observe(vitals, 1, now)
        self._progress[backend.name] = progress
        if condition is Condition.WELL and progress.stalled_for(now) >= HUNG_AFTER:
            condition = Condition.HUNG
        return Look(condition, vitals)

    def _get(self, backend: Backend, path: str) -> httpx.Response:
        headers = {name: value.get_secret_value() for name, value in backend.headers.items()}
        if backend.api_key is not None:
            headers["Authorization"] = f"Bearer {backend.api_key.get_secret_value()}"
        return self._client.get(backend.url + path, headers=headers)


def _ids(models: httpx.Response) -> list[str]:
    try:
        return [str(model["id"]) for model in models.json()["data"]]
    except (ValueError, KeyError, TypeError):
        return []


def families(backends: Sequence[Backend], watch: Watch) -> list[Family]:
    """The fleet's metrics of one moment."""
    looks = watch.look()
    names = [backend.name for backend in backends]

    def gauge(name: str, text: str, value: Callable[[Look], float | None]) -> Family:
        found = [((server,), value(looks[server])) for server in names]
        return Family(name, text, ("backend",), tuple((key, v) for key, v in found if v is not None))

    return [
        gauge("ocr_backend_up", "1: may be asked.", lambda look: float(look.condition is Condition.WELL)),
        Family(
            "ocr_backend_condition",
            "1 for the condition that the server is in: well, unreachable, misconfigured, hung.",
            ("backend", "condition"),
            tuple(
                ((server, condition.value), float(looks[server].condition is condition))
                for server in names
                for condition in Condition
            ),
        ),
        gauge("ocr_backend_running", "Requests in its batch.", lambda look: look.vitals.running),
        gauge("ocr_backend_waiting", "Requests in its queue.", lambda look: look.vitals.waiting),
        gauge("ocr_backend_kv_usage", "Use of its KV cache, 0 to 1.", lambda look: look.vitals.kv_usage),
        Family("ocr_backend_stalled_seconds", "Seconds in which requests ran and no token came.",
               ("backend",), tuple(((server,), watch.stalled_for(server)) for server in names)),
        Family("ocr_backend_max_in_flight", "Requests that one process of ours sends it at once, at most.",
               ("backend",), tuple(((backend.name,), float(backend.max_in_flight)) for backend in backends)),
    ]  # fmt: skip
