"""Page images in the order they are wanted, at the pace they are used.

A few render workers take the open documents in turn, lowest page numbers first: a short document does not wait behind
a long one, and servers that take only some pages of each document find pages of several. A page budget stops the
workers when the engine does not keep up, so memory does not grow with a document's length.

All batches of a process share the workers, the budget and the limit on open files; older batches go first. So the next
batch is drawn as soon as the one before has no page left to draw, and no server slot is idle. (When each batch had
workers of its own, two batches side by side ended at the same time, 20 slots were busy 77 % of the time, and each batch
paid 0.5 CPU s to start its workers.)
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

from ocr_pipeline.pdf.renderer import PageFault, PdfInfo, RenderedPage, Renderer, RenderLimits
from ocr_pipeline.records import Geometry

RANGE = 8  # pages per call of poppler, which costs 35 ms of CPU to start: a tenth of what drawing these pages does
OPEN_DOCUMENTS = 6  # on local disk, being drawn; those still being read wait without their file


class PageBudget:
    """How many page images may be in memory at once."""

    def __init__(self, pages: int) -> None:
        self._free = pages
        self.size = pages
        self._changed = asyncio.Event()

    @property
    def unused(self) -> bool:
        return self._free == self.size

    async def take(self, pages: int) -> None:
        while self._free < pages:
            self._changed.clear()
            await self._changed.wait()
        self._free -= pages

    def give_back(self, pages: int) -> None:
        self._free += pages
        self._changed.set()


@dataclass(order=True, slots=True)
class _Job:
    rank: tuple[int, int, int]
    work: Callable[[Renderer], Any] = field(compare=False)
    pages: int = field(compare=False)
    result: asyncio.Future[Any] = field(compare=False)
    drawing: BatchDrawing = field(compare=False)


class RenderPool:
    """Render workers on one event loop, for all batches of a process. `async with` it."""

    def __init__(self, limits: RenderLimits, workers: int, budget: PageBudget) -> None:
        self.budget = budget
        self.open_documents = asyncio.Semaphore(OPEN_DOCUMENTS)  # first come, first served: the older batch first
        self._batches = itertools.count()
        self._renderers = [Renderer(limits) for _ in range(workers)]
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="render")
        self._jobs: asyncio.PriorityQueue[_Job] = asyncio.PriorityQueue()
        self._tasks: list[asyncio.Task[None]] = []
        self._busy = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self._end_workers)  # who waits for threads must not hold up the loop

    def _end_workers(self) -> None:
        for renderer in self._renderers:
            renderer.close()  # also ends a call that is under way, so that its thread returns
        self._threads.shutdown(wait=True, cancel_futures=True)

    @property
    def idle(self) -> bool:
        """No page waits to be drawn or read, so a server waits for the next one."""
        return self._jobs.empty() and self.budget.unused

    def batch(self) -> BatchDrawing:
        """Draws the pages of one more batch, after those of the batches before it."""
        return BatchDrawing(self, next(self._batches))

    def submit(self, job: _Job) -> None:
        self._jobs.put_nowait(job)
        # a worker costs 0.4 CPU s to start: another one only for work that those that run cannot begin now
        idle = len(self._tasks) - self._busy
        if self._jobs.qsize() > idle and len(self._tasks) < len(self._renderers):
            self._tasks.append(asyncio.create_task(self._serve(self._renderers[len(self._tasks)])))

    async def _serve(self, renderer: Renderer) -> None:
        loop = asyncio.get_running_loop()
        while True:
            job = await self._jobs.get()
            self._busy += 1
            try:
                await self._do(job, renderer, loop)
            finally:
                self._busy -= 1

    async def _do(self, job: _Job, renderer: Renderer, loop: asyncio.AbstractEventLoop) -> None:
        if job.result.done():  # its document was given up
            return
        await self.budget.take(job.pages)
        if job.result.done():
            self.budget.give_back(job.pages)
            return
        started = time.monotonic()
        try:
            result = await loop.run_in_executor(self._threads, job.work, renderer)
        except Exception as error:
            self.budget.give_back(job.pages)
            if not job.result.done():
                job.result.set_exception(error)
        else:
            if job.result.done():
                self.budget.give_back(job.pages)
            else:
                job.result.set_result(result)
        finally:
            job.drawing.seconds += time.monotonic() - started


class BatchDrawing:
    """One batch at the render workers.

    Each page that `render` returns holds one place of the page budget. The caller gives it back when the page's image
    is no longer needed.
    """

    def __init__(self, pool: RenderPool, place: int) -> None:
        self.seconds = 0.0  # worker time spent
        self.pool = pool
        self._place = place

    async def inspect(self, order: int, path: Path) -> PdfInfo:
        """Raises PdfError."""
        info: PdfInfo = await self._submit(0, order, 0, lambda renderer: renderer.inspect(path))
        return info

    def render(
        self, order: int, path: Path, first: int, last: int, geometry: Geometry
    ) -> asyncio.Future[list[RenderedPage | PageFault]]:
        """Pages `first` to `last`; lower pages first, then lower `order`."""
        return self._submit(
            first, order, last - first + 1, lambda renderer: renderer.render(path, first, last, geometry)
        )

    def _submit(self, first: int, order: int, pages: int, work: Callable[[Renderer], Any]) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.pool.submit(_Job((self._place, first, order), work, pages, future, self))
        return future


def ranges(page_count: int, *, in_haste: bool) -> list[tuple[int, int]]:
    """Page ranges, of 8 pages as a rule, 12 at the end. `in_haste` they start small, so that the engine has page 1
    while the rest is drawn: 1, 2-3, 4-7, 8-15, …"""
    result: list[tuple[int, int]] = []
    first = 1
    for size in itertools.chain((1, 2, 4) if in_haste else (), itertools.repeat(RANGE)):
        if first > page_count:
            return result
        left = page_count - first + 1
        pages = left if size == RANGE and left <= RANGE + RANGE // 2 else min(size, left)
        result.append((first, first + pages - 1))
        first += pages
    return result
