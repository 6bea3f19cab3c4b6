"""The fleet: a `Transcriber` over several unlike servers.

Here belongs its face to the flow and what is put together behind it. Not here: who is sent where (dispatcher.py), one
server (live_backend.py), one page's life (page_task.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from ocr_pipeline.ocr.fleet.dispatcher import Dispatcher, Tuning
from ocr_pipeline.ocr.fleet.live_backend import LiveBackend
from ocr_pipeline.ocr.fleet.page_task import OnPoisoned, PageTask, ReadingContext
from ocr_pipeline.ocr.quality.ladder import recipe
from ocr_pipeline.ocr.recipe import recipe_id
from ocr_pipeline.ocr.transcriber import Transcriber
from ocr_pipeline.ocr.vllm.backends import BackendsConfig, geometry
from ocr_pipeline.records import Geometry, PageImage, Transcript

__all__ = ["Fleet", "Tuning"]


def recipe_of(config: BackendsConfig) -> str:
    """The id of the recipe that a fleet of these backends reads with."""
    return recipe_id(recipe(config.model, geometry(config)))


class Fleet:
    """Reads pages on GPU servers. Used on one event loop; `aclose` before the loop ends."""

    def __init__(
        self,
        config: BackendsConfig,
        *,
        cpu: Transcriber | None,
        outage_wait: float,
        on_poisoned: OnPoisoned | None = None,
        documents_today: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        tuning: Tuning | None = None,
    ) -> None:
        """`cpu` reads what no server answered for `outage_wait` seconds; without it those pages fail, to be asked
        again by the next run. `on_poisoned` gets what is needed to reproduce a page that killed servers.
        `documents_today`: all uploads of the last 24 hours, which a fleet cannot count, since each run has its own;
        None where that is not known, and the rule about them does not hold.
        """
        tuning = tuning or Tuning()
        self.config = config
        self._cpu = cpu
        self._geometry = geometry(config)
        self._recipe_id = recipe_of(config)
        self.backends = tuple(
            LiveBackend(
                backend,
                rules=tuning.breaker,
                recovery_timeout=tuning.recovery_timeout,
                clock=clock,
                changed=self._changed,
            )
            for backend in config.backends
        )
        self.dispatcher = Dispatcher(
            self.backends,
            config,
            tuning,
            outage_wait=outage_wait,
            fallback="the CPU engine takes over" if cpu else "pages fail, to be asked again by the next run",
            documents_today=documents_today,
            clock=clock,
        )
        self._context = ReadingContext(
            config=config,
            recipe_id=self._recipe_id,
            queue=self.dispatcher,
            clock=clock,
            outage_wait=outage_wait,
            cpu=cpu,
            on_poisoned=on_poisoned,
            judging_lock=asyncio.Lock(),
        )
        self._callers: set[asyncio.Task[object]] = set()
        self._closed = False

    def _changed(self) -> None:
        self.dispatcher.dispatch()

    @property
    def recipe_id(self) -> str:
        return self._recipe_id

    @property
    def geometry(self) -> Geometry:
        return self._geometry

    @property
    def max_in_flight(self) -> int:
        """Half as many again as the servers take, so that a page always waits when a slot becomes free.

        And once more what the largest takes: so many pages wait to be tried alone after its death, and the others
        must not starve behind them.
        """
        each = [backend.max_in_flight for backend in self.config.backends]
        return max(2, round(1.5 * sum(each)) + max(each))

    async def transcribe(self, image: PageImage, previous: Transcript | None = None) -> Transcript:
        """See `Transcriber`. Raises `RuntimeError` after `aclose`."""
        if self._closed:
            raise RuntimeError("the fleet is closed")
        page_task = PageTask(self._context, image, previous)
        caller = asyncio.current_task()
        assert caller is not None  # noqa: S101 - a coroutine runs in a task
        self._callers.add(caller)
        self.dispatcher.register(page_task)
        try:
            return await page_task.read()
        finally:
            self.dispatcher.unregister(page_task)
            self._callers.discard(caller)

    async def aclose(self) -> None:
        """Ends everything that is under way: tasks that wait for a page are cancelled."""
        self._closed = True
        for caller in self._callers:
            caller.cancel()
        await self.dispatcher.aclose()
        await asyncio.gather(*(backend.aclose() for backend in self.backends))
        if self._cpu is not None:
            await self._cpu.aclose()
