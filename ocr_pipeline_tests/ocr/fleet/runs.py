"""A fleet on simulated servers, and batches of pages through it: what the fleet's tests share.

Here belongs the making of pages, of the configuration, and the comparing of two runs. Not here: any expectation.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from PIL import Image, ImageDraw

from ocr_pipeline.ocr.fleet.fleet import Fleet, Tuning
from ocr_pipeline.ocr.fleet.health import BreakerRules
from ocr_pipeline.ocr.fleet.watch import WatchRules
from ocr_pipeline.ocr.vllm.backends import Backend, BackendsConfig
from ocr_pipeline.ocr.vllm.gpus import GPUS
from ocr_pipeline.ocr.vllm.models import MODELS
from ocr_pipeline.records import PageImage, Transcript
from ocr_pipeline_tests.simulator import SimulatedServer

MODEL = MODELS["deepseek-ai/DeepSeek-OCR"]

# as quick as simulated servers are: they restart in half a second, and a page takes a tenth of one
QUICK = Tuning(
    watch=WatchRules(interval=0.2, hung_after=1.5, unreachable_after=3.0),
    recovery_timeout=5.0,
    breaker=BreakerRules(first_wait=0.1, longest_wait=0.5, health_interval=0.3),
    tick=0.05,
    suspect_patience=1.0,
    longest_quiet=1.0,
)


@lru_cache(maxsize=2000)
def _jpeg(seed: str) -> bytes:
    image = Image.new("L", (200, 280), 255)
    draw = ImageDraw.Draw(image)
    for row, byte in enumerate(hashlib.sha256(seed.encode()).digest()[:24]):
        draw.rectangle((10, 10 + 11 * row, 10 + byte // 2, 16 + 11 * row), fill=0)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=80)
    return out.getvalue()


def page(document: str, number: int, pages: int, *, urgent: bool = False) -> PageImage:
    jpeg = _jpeg(f"{document} {number}")
    return PageImage(
        document_id=document,
        page_number=number,
        pages_in_document=pages,
        urgent=urgent,
        jpeg=jpeg,
        sha256=hashlib.sha256(jpeg).hexdigest(),
        width=200,
        height=280,
        ink=0.1,
        text_layer="",
    )


def document(name: str, pages: int, *, urgent: bool = False) -> list[PageImage]:
    return [page(name, number, pages, urgent=urgent) for number in range(1, pages + 1)]


def backend(name: str, server: SimulatedServer | str, gpu: str, max_in_flight: int, **more: Any) -> Backend:
    profile = GPUS[gpu]
    url = server if isinstance(server, str) else server.url
    plain = Backend(
        name=name,
        url=url,
        gpu=profile,
        model=MODEL,
        served_model=MODEL.model,
        max_in_flight=max_in_flight,
        dpi=profile.dpi,
        max_model_len=8192,
        timeout=30.0,
        connect_timeout=1.0,
    )
    return replace(plain, **more)


def two(small: SimulatedServer | str, large: SimulatedServer | str, **more: Any) -> BackendsConfig:
    """The user's two machines: 4 and 16 slots."""
    return BackendsConfig(
        backends=(backend("rtx4090", small, "rtx-4090", 4), backend("spark", large, "dgx-spark", 16)), **more
    )


def one(server: SimulatedServer | str, slots: int = 4, **more: Any) -> BackendsConfig:
    return BackendsConfig(backends=(backend("rtx4090", server, "rtx-4090", slots, **more),))


def backlog(enough: asyncio.Event) -> Iterator[PageImage]:
    """Documents of 8 pages until it is enough; at most 2,000 pages."""
    for number in range(2000):
        if enough.is_set():
            return
        yield page(f"d{number // 8}", number % 8 + 1, 8)


@asynccontextmanager
async def fleet_of(config: BackendsConfig, *, outage_wait: float = 20.0, **more: Any) -> AsyncIterator[Fleet]:
    more.setdefault("tuning", QUICK)
    fleet = Fleet(config, cpu=more.pop("cpu", None), outage_wait=outage_wait, **more)
    try:
        yield fleet
    finally:
        await fleet.aclose()


@dataclass
class Run:
    """What came of a batch of pages."""

    transcripts: dict[tuple[str, int], Transcript] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def texts(self) -> dict[tuple[str, int], tuple[str, str]]:
        """What must be the same whatever happened to the servers: document, page, status, text."""
        return {key: (t.status.value, t.text) for key, t in self.transcripts.items()}

    @property
    def asked_again(self) -> int:
        """Pages with more than one request."""
        return sum(len(t.attempts) > 1 for t in self.transcripts.values())

    @property
    def choices(self) -> Counter[str]:
        return Counter(a.choice.split(":")[0] for t in self.transcripts.values() for a in t.attempts)

    @property
    def outcomes(self) -> Counter[str]:
        return Counter(a.outcome for t in self.transcripts.values() for a in t.attempts)

    @property
    def statuses(self) -> Counter[str]:
        return Counter(t.reason.value if t.reason else t.status.value for t in self.transcripts.values())

    def backends(self) -> Counter[str]:
        return Counter(t.backend for t in self.transcripts.values())


async def read_all(fleet: Fleet, pages: Iterable[PageImage], *, at_once: int | None = None) -> Run:
    """Reads the pages as the flow does: `at_once` of them handed over (default: what the fleet asks for)."""
    run = Run()
    gate = asyncio.Semaphore(at_once or fleet.max_in_flight)
    began = time.monotonic()

    async def read(image: PageImage) -> None:
        try:
            run.transcripts[image.document_id, image.page_number] = await fleet.transcribe(image)
        finally:
            gate.release()

    async with asyncio.TaskGroup() as group:
        for image in pages:
            await gate.acquire()
            group.create_task(read(image))
    run.seconds = time.monotonic() - began
    return run


async def until(condition: Any, timeout: float = 20.0) -> None:
    """Returns when the condition holds; TimeoutError if it never does."""
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.01)
