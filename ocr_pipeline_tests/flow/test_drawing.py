"""Several batches at the same render workers: which pages come first, and that nothing is held for ever."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_pipeline.flow.batch_run import StreamOptions
from ocr_pipeline.flow.rendering import RANGE, PageBudget, RenderPool, ranges
from ocr_pipeline.flow.service import OcrService
from ocr_pipeline.lake import keys
from ocr_pipeline.lake.opening import open_storage
from ocr_pipeline.lake.storage import Storage, StorageError
from ocr_pipeline.pdf.renderer import RenderLimits
from ocr_pipeline_tests.flow.doubles import ScriptedTranscriber
from ocr_pipeline_tests.flow.rows import rows
from ocr_pipeline_tests.flow.test_stream import put
from ocr_pipeline_tests.pdfs import numbered


@given(st.integers(1, 500), st.booleans())
def test_ranges_hold_each_page_once_in_order_and_none_is_long(pages: int, in_haste: bool) -> None:
    found = ranges(pages, in_haste=in_haste)
    assert [page for first, last in found for page in range(first, last + 1)] == list(range(1, pages + 1))
    assert all(last - first < RANGE + RANGE // 2 for first, last in found)


def test_page_1_is_drawn_alone_when_a_server_waits_for_it_and_with_others_when_none_does() -> None:
    assert ranges(20, in_haste=True)[:3] == [(1, 1), (2, 3), (4, 7)]
    assert ranges(20, in_haste=False) == [(1, 8), (9, 20)]
    assert ranges(3, in_haste=False) == [(1, 3)]


def test_of_two_batches_at_once_the_older_one_is_drawn_first(tmp_path: Path) -> None:
    lake, transcriber = open_storage(str(tmp_path / "lake")), ScriptedTranscriber()
    older = put(lake, {f"older-{number}.pdf": numbered(2, f"older {number}") for number in range(9)})
    newer = put(lake, {"newer.pdf": numbered(2, "newer")})
    service = OcrService(lake, lambda: transcriber, StreamOptions(render_workers=1))
    try:
        service.begin(older)
        service.begin(newer)
        service.run(older)
        service.run(newer)
    finally:
        service.close()
    order = [document for document, _ in transcriber.asked]
    # six documents are open at once: the newer one is opened when four of the older ones are drawn
    assert order.index(keys.document_id("inbox/newer.pdf")) >= 5


class Full:
    """A lake whose disk is full for page images, until there is room."""

    def __init__(self, lake: Storage) -> None:
        self.room = False
        self._lake = lake

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lake, name)

    def write(self, key: str, data: bytes) -> None:
        if key.endswith(".jpg") and not self.room:
            raise StorageError("the disk is full")
        self._lake.write(key, data)


def test_a_batch_that_fails_as_a_whole_gives_back_its_places_in_memory(tmp_path: Path) -> None:
    lake = Full(open_storage(str(tmp_path / "lake")))
    transcriber = ScriptedTranscriber()
    batch = put(lake, {f"{number}.pdf": numbered(30, str(number)) for number in range(3)})
    service = OcrService(lake, lambda: transcriber, StreamOptions(render_workers=2))
    try:
        for _ in range(4):  # 28 places: what each failure kept would soon be all of them
            with pytest.raises(StorageError, match="disk is full"):
                service.run(batch)
        lake.room = True
        service.run(batch)
    finally:
        service.close()
    assert [len(result.pages) for result in rows(lake, batch)] == [30, 30, 30]


@pytest.mark.timeout(60)
def test_the_event_loop_goes_on_while_the_pool_waits_for_a_worker_to_end(tmp_path: Path) -> None:
    pipe = tmp_path / "a.pdf"
    os.mkfifo(pipe)  # a file on a share that does not answer: who opens it waits, and no kill reaches that thread

    async def close_the_pool_and_let_the_file_answer_then() -> None:
        async with RenderPool(RenderLimits(), 1, PageBudget(8)) as pool:
            inspecting = asyncio.create_task(pool.batch().inspect(0, pipe))
            writer = None
            while writer is None:
                await asyncio.sleep(0.01)
                with contextlib.suppress(OSError):  # nobody has opened it for reading yet
                    writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
            asyncio.get_running_loop().call_later(0.2, os.close, writer)
            inspecting.cancel()

    asyncio.run(close_the_pool_and_let_the_file_answer_then())
