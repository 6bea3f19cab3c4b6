"""Asks a worker process in such a way that a page that kills or hangs it fails alone; starts the next worker.

Here belongs starting the next worker, finding the page that the last one died of, and giving up on a way of reading
that fails page after page. Not here: what is asked for (`renderer.py`), pipes and signals (`process.py`).
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ocr_pipeline.pdf.frames import Frame
from ocr_pipeline.pdf.pages import RendererClosed
from ocr_pipeline.pdf.process import WorkerLost, WorkerProcess

_RENEW_AFTER = 100
"""Documents that a worker opens before it is replaced: 0.1 s CPU a start, against whatever the libraries leak."""

_PATIENCE = {"sizes": 1, "poppler_sizes": 1, "draw_poppler": 3, "draw_pdfium": 10, "layers": 3}
"""Pages of a document in a row that may kill or hang the worker before this way of reading it is given up. Without
it a file of 5,000 pages that all hang would hold a worker for a week. A page's size is in its dictionary: a library
that dies of reading that can do nothing with the file."""


@dataclass(slots=True)
class Document:
    """The file that is being read, and what was learned about it."""

    path: Path
    identity: tuple[object, ...]
    pdfium: bool = True  # can open it, as far as is known
    poppler: bool = True
    lost_in_a_row: Counter[str] = field(default_factory=Counter)  # pages, by op


class IsolatedWorker:
    """Use it from one thread at a time, but for `close`. What it is asked raises RendererClosed once it is closed."""

    def __init__(self, memory_bytes: int) -> None:
        self._memory = memory_bytes
        self._process: WorkerProcess | None = None
        self._document: Document | None = None
        self._opened = 0
        self._closed = False
        self._asking = threading.Lock()  # held while the worker is started, asked or ended

    def close(self) -> None:
        """Ends the worker, and with it a call that is under way; no other one is started. From any thread."""
        self._closed = True
        if (process := self._process) is not None:
            process.kill()
        with self._asking:
            self._terminate()

    def document(self, path: Path) -> Document:
        """What is known of the file at `path`, as it is now. Raises OSError."""
        path = Path(os.path.abspath(path))  # a name that begins with "-" must not become an option of poppler
        seen = path.stat()
        identity = (seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns)
        if self._document is None or (self._document.path, self._document.identity) != (path, identity):
            self._opened += 1
            if self._opened > _RENEW_AFTER:
                with self._asking:
                    self._terminate()
                self._opened = 1
            self._document = Document(path, identity)
        return self._document

    def ask(self, op: str, document: Document, seconds: float) -> Frame | WorkerLost:
        """The one frame that answers `op`."""
        request = {"op": op, "path": str(document.path)}
        with self._asking:
            for again in (True, False):
                try:
                    frames = list(self._running().ask(request, seconds))
                    return frames[0] if len(frames) == 1 else WorkerLost("answered nothing")
                except WorkerLost as lost:
                    self._terminate()
                    self._refuse_when_closed()
                    if not (lost.killed and again):
                        return lost
        raise AssertionError("unreachable")

    def ask_pages(
        self,
        op: str,
        document: Document,
        pages: Sequence[int],
        seconds: float,
        more: Callable[[Sequence[int]], dict[str, Any]] = lambda _: {},
    ) -> dict[int, Frame | WorkerLost]:
        """One frame per page. `more` gives the request's other fields, for the pages that are asked.

        If the worker is lost, the first page without a frame is the one it was lost on: that page is not asked again,
        and the others are asked of a new worker. A page costs `seconds` at most. If somebody kills the worker that is
        not the page's fault, and the page is asked once more.
        """
        found: dict[int, Frame | WorkerLost] = {}
        left = list(pages)
        killed_on = 0
        while left:
            if document.lost_in_a_row[op] >= _PATIENCE[op]:
                said = f"not tried, since {_PATIENCE[op]} pages in a row failed with it"
                found.update((page, WorkerLost(said, timed_out=True)) for page in left)
                break
            request = {"op": op, "path": str(document.path), "pages": left, **more(left)}
            with self._asking:
                lost = self._take_frames(op, request, seconds, document, left, found)
                if lost is None:
                    break
                self._terminate()
                self._refuse_when_closed()
            if not left:
                break  # it was lost after its last page
            if lost.killed and left[0] != killed_on:
                killed_on = left[0]
                continue
            document.lost_in_a_row[op] += 1
            found[left.pop(0)] = lost
        return found

    def _take_frames(
        self,
        op: str,
        request: dict[str, Any],
        seconds: float,
        document: Document,
        left: list[int],
        found: dict[int, Frame | WorkerLost],
    ) -> WorkerLost | None:
        """Moves each page that is answered from `left` to `found`; returns how the worker was lost, if it was."""
        try:
            for frame in self._running().ask(request, seconds):
                if not left or frame[0].get("page") != left[0]:
                    raise WorkerLost("answered for another page")
                found[left.pop(0)] = frame
                document.lost_in_a_row[op] = 0
            return WorkerLost("answered nothing") if left else None
        except WorkerLost as lost:
            return lost

    def _running(self) -> WorkerProcess:
        """The worker. Raises RuntimeError where none can be started at all: that is no PDF's fault."""
        if self._process is None:
            self._refuse_when_closed()
            self._process = WorkerProcess(self._memory)
            self._refuse_when_closed()  # `close` may have looked for the worker before it could be seen
            try:
                self._process.wait_until_ready()
            except WorkerLost as lost:
                self._terminate()
                self._refuse_when_closed()
                raise RuntimeError(
                    f"the PDF worker process does not start: {lost.detail}. Is OCR_RENDER_MEMORY too small?"
                ) from lost
        return self._process

    def _refuse_when_closed(self) -> None:
        if self._closed:
            self._terminate()
            raise RendererClosed("the renderer was closed")

    def _terminate(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None
