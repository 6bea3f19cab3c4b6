"""The worker process: `python -m ocr_pipeline.pdf.worker SCRATCH_FOLDER MEMORY_BYTES`, started by `process.py`.

Here belongs the answer to each request, and what keeps this process small and mortal: limits, and death with its
parent. Not here: what is asked, and how long it may take (`renderer.py`).

Requests and answers are frames (`frames.py`) on stdin and stdout. A request is `{"op", "path", …}`; each is answered
by any number of frames and then `{"end": true}`. Ops:
  open_pdfium, open_poppler        -> {"pages": int | null, "title", "problem", "detail"}
  sizes           pages            -> a page: {"page", "size": [inches, inches] | null, "unit": points}
  poppler_sizes   pages            -> the same, with "rotation"
  draw_poppler    pages dpi quality  (pages in one run, dpi one number)
  draw_pdfium     pages dpi quality  (dpi a list)
                                   -> a page: {"page", "width", "height", "ink", "objects", "undrawn_images"} + JPEG,
                                      or {"page", "error"}
  layers          pages            -> a page: {"page", "rotation"} + UTF-8 text
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from ocr_pipeline.pdf import frames, ink, pdfium, poppler
from ocr_pipeline.pdf.opinions import Opening

_ORPHAN_CHECK_SECONDS = 2.0
_MAX_FILE_BYTES = 1 << 29  # no page image is larger; keeps poppler from filling the disk


class Requests:
    """Reads requests in a thread of its own, so that the parent's death is seen also while a page is drawn."""

    def __init__(self, descriptor: int, scratch: Path) -> None:
        self._descriptor = descriptor
        self._scratch = scratch
        self._parent = os.getppid()
        self._requests: queue.SimpleQueue[frames.Header] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def __iter__(self) -> Iterator[frames.Header]:
        while True:
            yield self._requests.get()

    def _read(self) -> None:
        buffer = bytearray()
        try:
            while True:
                # A process forked from the parent may hold the pipe open after the parent's death: look at both.
                readable, _, _ = select.select([self._descriptor], [], [], _ORPHAN_CHECK_SECONDS)
                if os.getppid() != self._parent:
                    break
                if not readable:
                    continue
                data = os.read(self._descriptor, 1 << 16)
                if not data:
                    break
                buffer += data
                while (frame := frames.take(buffer)) is not None:
                    self._requests.put(frame[0])
        finally:
            shutil.rmtree(self._scratch, ignore_errors=True)
            os.killpg(os.getpgrp(), signal.SIGKILL)  # itself, and poppler


class RequestHandler:
    """Answers requests. Keeps the last document open in PDFium: a file of 3,000 pages is asked for range by range."""

    def __init__(self, answers: int, scratch: Path) -> None:
        self._answers = answers
        self._scratch = scratch
        self._identity: tuple[object, ...] | None = None
        self._document: pdfium.Document | None = None
        self._opening = Opening(None)

    def ready(self) -> None:
        self._say({"ready": True})

    def answer(self, request: frames.Header) -> None:
        path = Path(request["path"])
        match request["op"]:
            case "open_pdfium":
                self._open(path)
                self._say_opening(self._opening)
            case "open_poppler":
                self._say_opening(poppler.open_document(path))
            case "sizes":
                self._sizes(path, request["pages"])
            case "poppler_sizes":
                self._poppler_sizes(path, request["pages"])
            case "draw_poppler":
                self._draw_poppler(path, request["pages"], request["dpi"], request["quality"])
            case "draw_pdfium":
                self._draw_pdfium(path, request["pages"], request["dpi"], request["quality"])
            case "layers":
                self._layers(path, request["pages"])
        self._say({"end": True})

    def _open(self, path: Path) -> pdfium.Document | None:
        seen = path.stat()
        identity = (str(path), seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns)
        if identity != self._identity:
            if self._document is not None:
                self._document.close()
            self._identity = self._document = None
            self._document, self._opening = pdfium.open_document(path)
            self._identity = identity
        return self._document

    def _sizes(self, path: Path, pages: list[int]) -> None:
        document = self._open(path)
        for number in pages:
            size = document.page_size(number) if document else None
            unit = document.user_unit(number) if document and size else 1.0
            inches = [side * unit / 72 for side in size] if size else None
            self._say({"page": number, "size": inches, "unit": unit})

    def _poppler_sizes(self, path: Path, pages: list[int]) -> None:
        for number in pages:
            found = poppler.page_size(path, number)
            inches = [found[0] / 72, found[1] / 72] if found else None
            self._say({"page": number, "size": inches, "unit": 1.0, "rotation": found[2] if found else 0})

    def _draw_poppler(self, path: Path, pages: list[int], dpi: float, quality: int) -> None:
        for number, image in poppler.draw(path, pages[0], pages[-1], dpi, quality, self._scratch):
            if isinstance(image, str):
                self._say({"page": number, "error": image})
            else:
                self._say_image(number, image)

    def _draw_pdfium(self, path: Path, pages: list[int], dpi: list[float], quality: int) -> None:
        document = self._open(path)
        for number, resolution in zip(pages, dpi, strict=True):
            if document is None:
                self._say({"page": number, "error": self._opening.detail})
                continue
            try:
                drawing = document.draw(number, resolution, quality)
            except pdfium.ERRORS as error:
                self._say({"page": number, "error": str(error)[:300] or type(error).__name__})
            else:
                self._say_image(number, drawing.jpeg, drawing.objects, document)

    def _layers(self, path: Path, pages: list[int]) -> None:
        document = self._open(path)
        for number in pages:
            try:
                rotation, text = document.layer(number) if document else (0, "")
            except pdfium.ERRORS:
                rotation, text = 0, ""
            self._say({"page": number, "rotation": rotation}, text.encode("utf-8", "ignore"))

    def _say_opening(self, opening: Opening) -> None:
        self._say(
            {
                "pages": opening.pages,
                "title": opening.title[:2000],
                "problem": opening.problem,
                "detail": opening.detail,
            }
        )

    def _say_image(self, number: int, jpeg: bytes, objects: int = 0, source: pdfium.Document | None = None) -> None:
        try:
            width, height, share = ink.measure(jpeg)
        except OSError as error:
            self._say({"page": number, "error": f"the image made is none: {error}"})
            return
        undrawn = source.undrawn_images(number) if source and share < ink.BLANK_INK and objects else 0
        said = {"page": number, "width": width, "height": height, "ink": share}
        self._say({**said, "objects": objects, "undrawn_images": undrawn}, jpeg)

    def _say(self, header: frames.Header, blob: bytes = b"") -> None:
        data = memoryview(frames.pack(header, blob))
        while data:
            data = data[os.write(self._answers, data) :]


def set_limits(memory: int) -> None:
    """Address space, size of a file, no core dumps: for this process and for poppler, which inherits them."""
    try:
        import resource
    except ImportError:  # not a POSIX system
        return
    for limit, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, _MAX_FILE_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        with contextlib.suppress(ValueError, OSError):  # macOS knows RLIMIT_AS and refuses to set it
            resource.setrlimit(limit, (value, value))


def main() -> None:
    scratch, memory = Path(sys.argv[1]), int(sys.argv[2])
    # The two pipes move to descriptors that no child inherits; a library that prints must not speak on them.
    requests, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    set_limits(memory)
    poppler.ask_once()
    handler = RequestHandler(answers, scratch)
    arriving = Requests(requests, scratch)
    handler.ready()
    for request in arriving:
        handler.answer(request)


if __name__ == "__main__":
    main()
