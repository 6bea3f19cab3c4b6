"""RapidOCR as it is installed: the real models on small pages."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from ocr_pipeline.ocr.cpu import cpu_transcriber
from ocr_pipeline.ocr.engines import rapidocr
from ocr_pipeline.ocr.engines.rapidocr import RapidOcrEngine
from ocr_pipeline.ocr.parsing.parse import parse
from ocr_pipeline.records import PageStatus, Reason
from ocr_pipeline_tests.ocr.engines.printing import page_of, printed

LINES = ["Invoice 2025-0417 for Mr Smith", "Coffee house, 8400 Winterthur"]

# Reads a page in a process that has no network, and says which modules were there before the first page.
OFFLINE = """
import asyncio, socket, sys

def refused(*arguments, **options):
    raise AssertionError("the engine asked for the network")

socket.socket.connect = refused
socket.getaddrinfo = refused
from ocr_pipeline.ocr.cpu import cpu_transcriber
from ocr_pipeline_tests.ocr.engines.printing import printed

async def main():
    transcriber = cpu_transcriber("auto", workers=1)
    transcriber.recipe_id
    loaded = [name for name in ("rapidocr", "onnxruntime", "cv2") if name in sys.modules]
    transcript = await transcriber.transcribe(printed(["Nothing is fetched"]))
    await transcriber.aclose()
    print(loaded, transcript.status.value, "Nothing is fetched" in transcript.text)

asyncio.run(main())
"""


def test_printed_text_is_read_with_its_numbers_and_its_place_on_the_page() -> None:
    async def read() -> tuple:
        transcriber = cpu_transcriber("rapidocr", workers=1)
        page, empty = await asyncio.gather(
            transcriber.transcribe(printed(LINES)), transcriber.transcribe(printed(["", ""]))
        )
        await transcriber.aclose()
        return page, empty

    page, empty = asyncio.run(read())
    assert parse(page).markdown.split() == " ".join(LINES).split()
    region = parse(page).regions[0]
    assert 0.03 < region.x0 < 0.06  # printed at 40 of 900 pixels
    assert (empty.status, empty.reason) == (PageStatus.FAILED, Reason.EMPTY_TEXT)


def test_nothing_is_loaded_before_the_first_page_fetched_ever_or_printed_by_the_engine() -> None:
    done = subprocess.run([sys.executable, "-c", OFFLINE], capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[] ok True", "")


def test_an_image_that_cannot_be_decoded_fails_its_page_and_the_next_one_is_read() -> None:
    async def read() -> tuple:
        transcriber = cpu_transcriber("rapidocr", workers=1)
        broken = await transcriber.transcribe(page_of(b"\xff\xd8\xff no picture", 100, 100))
        whole = await transcriber.transcribe(printed(["Still here"]))
        await transcriber.aclose()
        return broken, whole

    broken, whole = asyncio.run(read())
    assert (broken.status, broken.reason) == (PageStatus.FAILED, Reason.ENGINE_FAILED)
    assert whole.status is PageStatus.OK


def test_a_release_without_the_models_is_named_and_nothing_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rapidocr, "DETECTOR", "PP-OCRv99_det.onnx")
    transcript = asyncio.run(cpu_transcriber("rapidocr", workers=1).transcribe(printed(["x"])))
    assert transcript.reason is Reason.ENGINE_FAILED
    assert "PP-OCRv99_det.onnx" in (transcript.detail or "")


def test_a_cancelled_page_leaves_no_thread_behind_once_the_engine_is_closed() -> None:
    async def cancel_and_close() -> None:
        engine = RapidOcrEngine(workers=1)
        tasks = [asyncio.create_task(engine.read(printed(LINES))) for _ in range(3)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await engine.aclose()

    asyncio.run(cancel_and_close())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("rapidocr")]
