"""The end of a process's OCR: nobody who is in it, or comes just then, waits for ever."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

import pytest

from ocr_pipeline.flow.batch_run import StreamOptions
from ocr_pipeline.flow.service import OcrService
from ocr_pipeline.lake.opening import open_storage
from ocr_pipeline.records import PageImage, Transcript
from ocr_pipeline_tests.flow.doubles import ScriptedTranscriber
from ocr_pipeline_tests.flow.test_stream import put
from ocr_pipeline_tests.pdfs import numbered


class Stuck(ScriptedTranscriber):
    """Reads no page to its end, and is closed only when it may be."""

    def __init__(self) -> None:
        super().__init__()
        self.reads, self.closes, self.may_close = threading.Event(), threading.Event(), threading.Event()

    async def transcribe(self, image: PageImage, previous: Transcript | None = None) -> Transcript:
        self.reads.set()
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async def aclose(self) -> None:
        self.closes.set()
        await asyncio.to_thread(self.may_close.wait)


@pytest.mark.timeout(60)
def test_whoever_waits_gets_a_systemexit_of_the_reading_thread_and_the_service_can_be_closed(tmp_path: Path) -> None:
    def leave(image: PageImage) -> None:
        raise SystemExit(f"page {image.page_number}")  # as rich does where nobody reads its pipe any more

    lake = open_storage(str(tmp_path / "lake"))
    batch = put(lake, {"a.pdf": numbered(1)})
    service = OcrService(lake, lambda: ScriptedTranscriber(leave), StreamOptions(render_workers=1, text_layer="never"))
    with pytest.raises(SystemExit, match="page 1"):
        service.run(batch)
    service.close()


@pytest.mark.timeout(60)
def test_who_waits_for_a_batch_when_the_service_closes_or_comes_then_or_later_is_told(tmp_path: Path) -> None:
    lake, transcriber = open_storage(str(tmp_path / "lake")), Stuck()
    waited_for = put(lake, {"a.pdf": numbered(1)})
    service = OcrService(lake, lambda: transcriber, StreamOptions(render_workers=1, text_layer="never"))
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(service.run, waited_for)
        assert transcriber.reads.wait(30)
        closing = threads.submit(service.close)
        assert transcriber.closes.wait(30)
        just_then = threads.submit(service.run, waited_for)
        try:
            for run in (waiting, just_then):
                with pytest.raises(CancelledError):
                    run.result(timeout=20)
        finally:
            transcriber.may_close.set()
        closing.result(timeout=20)
    with pytest.raises(CancelledError):
        service.begin(waited_for)
