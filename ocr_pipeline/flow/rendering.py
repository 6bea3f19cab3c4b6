"""Page images in the order they are wanted, at the pace they are used.

A few render workers take the open documents in turn, first pages first: a short document is not kept behind a long
one, and pages of several documents are at hand for servers that take only some of each. A page budget stops the
workers before more images stand in memory than the engine can take; so memory does not grow with a document's length.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from ocr_pipeline.pdf.renderer import Limits, PageFault, PdfInfo, RenderedPage, Renderer
from ocr_pipeline.records import Geometry

RANGE = 8  # pages a call of poppler: its start costs less than a tenth of the pages, and the first answer comes soon


class PageBudget:
    """How many page images may be in memory at once."""

    def __init__(self, pages: int) -> None:
        self._free = pages
        self.size = pages
        self._changed = asyncio.Condition()

    async def take(self, pages: int) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._free >= pages)
            self._free -= pages

    async def give_back(self, pages: int) -> None:
        async with self._changed:
            self._free += pages
            self._changed.notify_all()


@dataclass(order=True, slots=True)
class _Job:
    rank: tuple[int, int]
    work: Callable[[Renderer], Any] = field(compare=False)
    pages: int = field(compare=False)
    result: asyncio.Future[Any] = field(compare=False)


class RenderPool:
    """Render workers on one event loop. `async with` it; jobs of one batch share it.

    `render` hands over its pages with their share of the page budget taken: the caller gives back one for each page
    when its image is no longer needed.
    """

    def __init__(self, limits: Limits, workers: int, budget: PageBudget) -> None:
        self.seconds = 0.0  # worker time spent
        self.budget = budget
        self._renderers = [Renderer(limits) for _ in range(workers)]
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="render")
        self._jobs: asyncio.PriorityQueue[_Job] = asyncio.PriorityQueue()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._serve(renderer)) for renderer in self._renderers]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        for renderer in self._renderers:
            renderer.close()  # also ends a call that is under way, so that its thread returns
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def inspect(self, order: int, path: Path) -> PdfInfo:
        """Raises PdfError."""
        info: PdfInfo = await self._submit((0, order), 0, lambda renderer: renderer.inspect(path))
        return info

    def render(
        self, order: int, path: Path, first: int, last: int, geometry: Geometry
    ) -> asyncio.Future[list[RenderedPage | PageFault]]:
        """Pages `first` to `last`; lower pages first, then lower `order`."""
        return self._submit(
            (first, order), last - first + 1, lambda renderer: renderer.render(path, first, last, geometry)
        )

    def _submit(self, rank: tuple[int, int], pages: int, work: Callable[[Renderer], Any]) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._jobs.put_nowait(_Job(rank, work, pages, future))
        return future

    async def _serve(self, renderer: Renderer) -> None:
        loop = asyncio.get_running_loop()
        while True:
            job = await self._jobs.get()
            if job.result.done():  # its document was given up
                continue
            await self.budget.take(job.pages)
            started = time.monotonic()
            try:
                result = await loop.run_in_executor(self._threads, job.work, renderer)
            except Exception as error:
                await self.budget.give_back(job.pages)
                if not job.result.done():
                    job.result.set_exception(error)
            else:
                if job.result.done():
                    await self.budget.give_back(job.pages)
                else:
                    job.result.set_result(result)
            finally:
                self.seconds += time.monotonic() - started


def ranges(page_count: int) -> list[tuple[int, int]]:
    """Page ranges that start small, so that the engine has page 1 while the rest is drawn: 1, 2-3, 4-7, 8-15, …"""
    result: list[tuple[int, int]] = []
    first = 1
    for size in itertools.chain((1, 2, 4), itertools.repeat(RANGE)):
        if first > page_count:
            return result
        result.append((first, min(page_count, first + size - 1)))
        first += size
    return result
