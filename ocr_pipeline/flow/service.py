"""The OCR of a process: one event loop in a thread, one transcriber, one page reader, for all batches of the process.

Runs of Dagster are synchronous; this is where they meet the asynchronous stream. Batches that run side by side in one
process (the command) share the transcriber, so that its slots stay busy from one batch to the next.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from ocr_pipeline.flow.pages import PageReader
from ocr_pipeline.flow.progress import Progress, StreamCounts
from ocr_pipeline.flow.stream import BatchStream, StreamOptions
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.ocr.transcriber import Transcriber
from ocr_pipeline.records import Batch

T = TypeVar("T")

STORAGE_THREADS = 16  # lake requests at once; s3fs gives no more on two cores


class OcrService:
    """Reads batches. Close it when done; a closed one cannot be used again."""

    def __init__(
        self,
        storage: Storage,
        transcriber: Callable[[], Transcriber],
        options: StreamOptions,
        progress: Progress | None = None,
    ) -> None:
        self._storage = storage
        self._options = options
        self._progress = progress
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(ThreadPoolExecutor(STORAGE_THREADS, thread_name_prefix="storage"))
        self._thread = threading.Thread(target=self._loop.run_forever, name="ocr-loop", daemon=True)
        self._thread.start()
        # made on the loop: its clients belong to it
        self._transcriber = self._wait(_call(transcriber))
        self._reader = PageReader(storage, self._transcriber)

    @property
    def recipe_id(self) -> str:
        return self._transcriber.recipe_id

    @property
    def transcriber(self) -> Transcriber:
        return self._transcriber

    def run(self, batch: Batch, *, render: bool = True, read: bool = True) -> StreamCounts:
        """Draws and reads one batch; blocks. An interrupt of the calling thread ends the batch's requests first."""
        stream = BatchStream(
            self._storage,
            self._reader,
            self._transcriber.geometry,
            self._transcriber.max_in_flight,
            self._options,
            self._progress,
        )
        return self._wait(stream.run(batch, render=render, read=read))

    def cancel_all(self) -> None:
        """Ends every batch that is running, from another thread."""
        self._loop.call_soon_threadsafe(lambda: [task.cancel() for task in asyncio.all_tasks(self._loop)])

    def close(self) -> None:
        if self._loop.is_closed():
            return
        self._wait(self._transcriber.aclose())
        self._wait(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            if future.cancel():  # interrupted while it ran: let the loop take the requests back
                asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self._loop).result(timeout=10)
            raise


async def _call(make: Callable[[], T]) -> T:
    return make()
