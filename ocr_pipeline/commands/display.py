"""Progress on a terminal; off a terminal a line now and then, so that a log shows that work goes on."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from ocr_pipeline.printable import printable
from ocr_pipeline.records import PageStatus, Reason

EVERY_SECONDS = 10.0  # off a terminal


class Counter:
    """How many items of one step are done; `total` is known. Called from one thread."""

    def __init__(self, console: Console, step: str, total: int, unit: str) -> None:
        self._console, self._step, self._total, self._unit = console, step, total, unit
        self._done = 0
        self._last_said = time.monotonic()
        self._bar: Bar | None = None
        if console.is_terminal:
            self._bar = _bar(console, unit)
            self._task = self._bar.add_task(step, total=total)

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()

    def advance(self) -> None:
        self._done += 1
        if self._bar:
            self._bar.update(self._task, completed=self._done)
        elif time.monotonic() - self._last_said > EVERY_SECONDS:
            self._last_said = time.monotonic()
            self._console.print(f"{self._step}: {self._done} of {self._total} {self._unit} so far")


class Display:
    """A `Progress` that draws. Called from the OCR thread; `total` counts pages of documents opened so far."""

    def __init__(self, console: Console, documents: int) -> None:
        self._console = console
        self._documents, self._opened, self._done = documents, 0, 0
        self._pages, self._pages_done, self._failed, self._rejected = 0, 0, 0, 0
        self._lock = threading.Lock()
        self._last_said = time.monotonic()
        self._bar: Bar | None = None
        if console.is_terminal:
            self._bar = _bar(console, "pages")
            self._task = self._bar.add_task("starting", total=None)

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
        if isinstance(error, KeyboardInterrupt):
            self.say("Stopped. What was read is kept; run the same command again to go on.")

    def say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)

    def document_opened(self, key: str, pages: int) -> None:
        with self._lock:
            self._opened += 1
            self._pages += pages
            self._show()

    def document_rejected(self, key: str, reason: Reason) -> None:
        with self._lock:
            self._rejected += 1
            self.say(f"rejected: {printable(key)}: {reason}")

    def page_done(self, key: str, page: int, status: PageStatus, reason: Reason | None) -> None:
        with self._lock:
            self._pages_done += 1
            if status.is_bad:
                self._failed += 1
                self.say(f"{status}: {printable(key)} page {page}: {reason}")
            self._show()

    def document_done(self, key: str) -> None:
        with self._lock:
            self._done += 1
            self._show()

    def _show(self) -> None:
        text = f"{self._done}/{self._documents} documents"
        if self._failed or self._rejected:
            text += f", {self._rejected} rejected, {self._failed} pages failed"
        if self._bar:
            self._bar.update(self._task, description=text, completed=self._pages_done, total=self._pages or None)
        elif time.monotonic() - self._last_said > EVERY_SECONDS:
            self._last_said = time.monotonic()
            self.say(f"{text}, {self._pages_done} of {self._pages} pages so far")


def _bar(console: Console, unit: str) -> Bar:
    return Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
