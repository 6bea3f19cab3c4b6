"""The OCR of a process: one event loop in a thread, one transcriber, one page reader, for all batches of the process.

Runs of Dagster are synchronous; this is where they meet the asynchronous stream. The command begins the next batch
here before Dagster comes to it, so that the servers' slots stay busy from one batch to the next.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any, TypeVar

from ocr_pipeline.flow.batch_run import BatchRun, StreamOptions
from ocr_pipeline.flow.memory import limit_retained_memory
from ocr_pipeline.flow.pages import PageReader, RetryPolicy
from ocr_pipeline.flow.progress import Progress, Silent, StreamCounts
from ocr_pipeline.flow.rendering import RANGE, PageBudget, RenderPool
from ocr_pipeline.flow.retries import Retries
from ocr_pipeline.flow.stream import run_batch
from ocr_pipeline.lake.storage import Storage, StorageError
from ocr_pipeline.ocr.transcriber import Transcriber
from ocr_pipeline.records import Batch

T = TypeVar("T")

STORAGE_THREADS = 16  # lake requests at once; s3fs gives no more on two cores
MAX_PAGES_IN_MEMORY = 256  # about 75 MB of A4 JPEGs


class OcrService:
    """Reads batches. Close it when done; a closed one cannot be used again."""

    def __init__(
        self,
        storage: Storage,
        transcriber: Callable[[], Transcriber],
        options: StreamOptions,
        progress: Progress | None = None,
    ) -> None:
        limit_retained_memory()
        self._storage = storage
        self._options = options
        self._progress = progress
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(ThreadPoolExecutor(STORAGE_THREADS, thread_name_prefix="storage"))
        self._thread = threading.Thread(target=_run_to_the_end, args=(self._loop,), name="ocr-loop", daemon=True)
        self._thread.start()
        self._begun: dict[str, Future[StreamCounts]] = {}
        self._running: set[Future[StreamCounts]] = set()  # the begun ones too
        self._closed = False  # no batch is started any more
        self._starting = threading.Lock()
        try:
            # made on the loop: its clients belong to it
            self._transcriber = self._wait(_call(transcriber))
        except BaseException:
            self._end_loop()
            raise
        self._reader = PageReader(storage, self._transcriber)
        self._pool = self._wait(self._open_pool())

    @property
    def recipe_id(self) -> str:
        return self._transcriber.recipe_id

    @property
    def transcriber(self) -> Transcriber:
        return self._transcriber

    def run(self, batch: Batch, *, render: bool = True, read: bool = True) -> StreamCounts:
        """Draws and reads one batch; blocks. An interrupt of the calling thread ends the batch's requests first."""
        begun = self._begun.pop(batch.name, None) if render and read else None
        return self._result(begun or self._start(batch, render, read))

    def begin(self, batch: Batch) -> None:
        """Starts to draw and read `batch` and returns at once; the next `run` of it takes over what was begun."""
        if batch.name not in self._begun:
            self._begun[batch.name] = self._start(batch, render=True, read=True)

    def _start(self, batch: Batch, render: bool, read: bool) -> Future[StreamCounts]:
        run = BatchRun(
            batch=batch,
            render=render,
            read=read,
            storage=self._storage,
            reader=self._reader,
            geometry=self._transcriber.geometry,
            drawing=self._pool.batch(),
            options=self._options,
            progress=self._progress or Silent(),
            retry=RetryPolicy(frozenset(batch.retry_reasons), batch.created_at),
            retries=Retries(self._storage, batch),
        )
        with self._starting:
            if self._closed:
                raise CancelledError(f"the OCR of this process was closed before batch {batch.name} began")
            future = asyncio.run_coroutine_threadsafe(run_batch(run), self._loop)
            self._running.add(future)
        future.add_done_callback(self._running.discard)
        return future

    def close(self) -> None:
        """Ends what is still running, then the transcriber and the loop. Who waits in `run`, or calls it from then on,
        gets CancelledError.
        """
        if self._loop.is_closed():
            return
        with self._starting:
            self._closed = True
        for future in list(self._running):
            future.cancel()
        self._wait(_settled())
        self._wait(self._pool.__aexit__())
        self._wait(self._transcriber.aclose())
        self._end_loop()

    def _end_loop(self) -> None:
        self._wait(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _open_pool(self) -> RenderPool:
        # enough to keep every slot busy while the next range is drawn, and no more
        pages = self._transcriber.max_in_flight + RANGE * (self._options.render_workers + 1)
        budget = PageBudget(min(MAX_PAGES_IN_MEMORY, pages))
        return await RenderPool(self._options.limits, self._options.render_workers, budget).__aenter__()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return self._result(asyncio.run_coroutine_threadsafe(work, self._loop))

    def _result(self, future: Future[T]) -> T:
        try:
            return future.result()
        except BaseExceptionGroup as group:
            raise _first(group) from group  # people read what was wrong, not "unhandled errors in a TaskGroup"
        except CancelledError:
            raise  # by `close`, which waits for the tasks; the loop may be gone
        except BaseException:
            if future.cancel():  # interrupted while it ran: let the loop take the requests back
                asyncio.run_coroutine_threadsafe(_settled(), self._loop).result(timeout=30)
            raise


def _run_to_the_end(loop: asyncio.AbstractEventLoop) -> None:
    """Runs the loop until it is stopped, also past a SystemExit of a task: that is for whoever waits for the task."""
    while True:
        try:
            return loop.run_forever()
        except (SystemExit, KeyboardInterrupt):
            continue  # asyncio has noted it as the task's outcome, and lets it through as well


def _first(error: BaseException) -> BaseException:
    """The first error in a group of groups, those with a mend before others."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = [_first(inner) for inner in error.exceptions]
    return next((leaf for leaf in leaves if isinstance(leaf, StorageError)), leaves[0])


async def _settled() -> None:
    """Waits for the tasks of batches that were cancelled, so that their requests are aborted."""
    await asyncio.sleep(0)  # a cancellation from another thread reaches its task one turn of the loop later
    cancelled = [task for task in asyncio.all_tasks() if task.cancelling()]
    if cancelled:
        await asyncio.wait(cancelled, timeout=20)


async def _call(make: Callable[[], T]) -> T:
    return make()
