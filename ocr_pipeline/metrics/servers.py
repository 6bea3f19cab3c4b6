"""What each GPU server says of itself, seen from here: may it be asked, how much waits, does it move.

Each process that reads pages has breakers of its own, which nobody outside sees. This is the same judgement made by one
observer: unreachable, set up wrongly, hung, or well. Requests go with the backend's own key and headers, so it also
works behind a Cloudflare tunnel where Prometheus itself cannot pass.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from ocr_pipeline.metrics.figures import Family
from ocr_pipeline.ocr.fleet.health import Progress
from ocr_pipeline.ocr.fleet.server_metrics import ServerMetrics, parse_metrics
from ocr_pipeline.ocr.vllm.answers import Fault
from ocr_pipeline.ocr.vllm.backends import Backend
from ocr_pipeline.ocr.vllm.client import VllmClient

HUNG_AFTER = 120.0
"""Seconds in which requests run and no token comes; as deploy/gpu/health.py judges it."""

CHECK_SECONDS = 3.0
"""For all questions to one server together: a scrape has 10 s, as Prometheus comes."""


class Condition(StrEnum):
    WELL = "well"
    UNREACHABLE = "unreachable"  # it does not answer in time, or with an error
    MISCONFIGURED = "misconfigured"  # it answers and refuses us: key, Access token, name of the model
    HUNG = "hung"


@dataclass(frozen=True, slots=True)
class ServerStatus:
    condition: Condition
    metrics: ServerMetrics


class ServerMonitor:
    """Checks every server of the fleet. Keeps the progress of each between two checks."""

    def __init__(self, backends: Sequence[Backend]) -> None:
        self._backends = backends
        self._progress = {backend.name: Progress() for backend in backends}

    def check(self) -> dict[str, ServerStatus]:
        """By backend name; all at once, within `CHECK_SECONDS`. Not to be called on an event loop."""

        async def all_of_them() -> list[ServerStatus]:
            return await asyncio.gather(*map(self._check, self._backends))

        statuses = asyncio.run(all_of_them())
        return {backend.name: status for backend, status in zip(self._backends, statuses, strict=True)}

    def stalled_for(self, name: str) -> float:
        return self._progress[name].stalled_for(time.monotonic())

    async def _check(self, backend: Backend) -> ServerStatus:
        client = VllmClient(backend)
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                condition, metrics = await _asked(backend, client)
        except TimeoutError:
            condition, metrics = Condition.UNREACHABLE, ServerMetrics()
        finally:
            await client.aclose()
        now = time.monotonic()
        progress = self._progress[backend.name].observe(metrics, 1, now)
        self._progress[backend.name] = progress
        if condition is Condition.WELL and progress.stalled_for(now) >= HUNG_AFTER:
            condition = Condition.HUNG
        return ServerStatus(condition, metrics)


async def _asked(backend: Backend, client: VllmClient) -> tuple[Condition, ServerMetrics]:
    health = await client.health()
    if not health.ok:
        return _failed(health.fault), ServerMetrics()
    probed = await client.metrics_text()  # before the models: vLLM's key guards only /v1
    metrics = parse_metrics(probed.text) if probed.ok else ServerMetrics()
    served = await client.models()
    if served.fault is not None:
        return _failed(served.fault), metrics
    known = backend.served_model in (model.id for model in served.models)
    return Condition.WELL if known else Condition.MISCONFIGURED, metrics


def _failed(fault: Fault | None) -> Condition:
    return Condition.MISCONFIGURED if fault is Fault.CONFIG else Condition.UNREACHABLE


def families(backends: Sequence[Backend], monitor: ServerMonitor) -> list[Family]:
    """The fleet's metrics of one moment."""
    statuses = monitor.check()
    names = [backend.name for backend in backends]

    def gauge(name: str, text: str, value: Callable[[ServerStatus], float | None]) -> Family:
        found = [((server,), value(statuses[server])) for server in names]
        return Family(name, text, ("backend",), tuple((key, v) for key, v in found if v is not None))

    return [
        gauge("ocr_backend_up", "1: may be asked.", lambda status: float(status.condition is Condition.WELL)),
        Family(
            "ocr_backend_condition",
            "1 for the condition that the server is in: well, unreachable, misconfigured, hung.",
            ("backend", "condition"),
            tuple(
                ((server, condition.value), float(statuses[server].condition is condition))
                for server in names
                for condition in Condition
            ),
        ),
        gauge("ocr_backend_running", "Requests in its batch.", lambda status: status.metrics.running),
        gauge("ocr_backend_waiting", "Requests in its queue.", lambda status: status.metrics.waiting),
        gauge("ocr_backend_kv_usage", "Use of its KV cache, 0 to 1.", lambda status: status.metrics.kv_usage),
        Family("ocr_backend_stalled_seconds", "Seconds in which requests ran and no token came.",
               ("backend",), tuple(((server,), monitor.stalled_for(server)) for server in names)),
        Family("ocr_backend_max_in_flight", "Requests that one process of ours sends it at once, at most.",
               ("backend",), tuple(((backend.name,), float(backend.max_in_flight)) for backend in backends)),
    ]  # fmt: skip
