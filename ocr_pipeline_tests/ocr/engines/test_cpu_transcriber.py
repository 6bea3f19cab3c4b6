"""What a CPU engine's lines, silence or failure become in a transcript."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest

from ocr_pipeline.ocr.cpu import CpuTranscriber, cpu_transcriber
from ocr_pipeline.ocr.engines.engine import EngineError, RawLine
from ocr_pipeline.ocr.parsing.parse import parse
from ocr_pipeline.records import Geometry, PageImage, PageStatus, Reason, Transcript
from ocr_pipeline_tests.ocr.engines.printing import page_of

PAGE = page_of(b"an image", 1240, 1754, text_layer="The quick brown fox jumps")


class EngineOf:
    """An engine that answers or fails as it is told."""

    name = "rapidocr"
    model = "test model 1"
    workers = 1

    def __init__(self, answer: tuple[RawLine, ...] | Exception, asked: Mapping[str, Any] | None = None) -> None:
        self.answer = answer
        self.asked = asked or {"size": 1}
        self.closed = False

    async def read(self, image: PageImage) -> tuple[RawLine, ...]:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def aclose(self) -> None:
        self.closed = True


LINES = (
    RawLine(text="The quick brown fox", box=[10, 10, 200, 30], score=0.9),
    RawLine(text="jumps", box=[10, 40, 60, 60]),
)


def test_a_page_with_text_is_ok_and_its_raw_lines_are_kept_as_json() -> None:
    transcript = asyncio.run(CpuTranscriber(EngineOf(LINES)).transcribe(PAGE))
    assert transcript.status is PageStatus.OK
    assert (transcript.format, transcript.engine, transcript.backend) == ("lines", "rapidocr", "cpu")
    assert [line["text"] for line in json.loads(transcript.text)] == ["The quick brown fox", "jumps"]
    assert (transcript.width, transcript.height, transcript.image_sha256) == (1240, 1754, PAGE.sha256)
    assert transcript.agreement == 1.0
    assert parse(transcript).markdown.split() == ["The", "quick", "brown", "fox", "jumps"]


def test_each_call_is_one_attempt_numbered_on_from_earlier_ones() -> None:
    async def twice() -> Any:
        first = await CpuTranscriber(EngineOf(EngineError("broke"))).transcribe(PAGE)
        return await CpuTranscriber(EngineOf(LINES)).transcribe(PAGE, previous=first)

    attempts = asyncio.run(twice()).attempts
    assert [(attempt.attempt, attempt.outcome) for attempt in attempts] == [(1, "engine_failed"), (2, "ok")]
    assert {attempt.backend for attempt in attempts} == {"cpu"}
    assert all(attempt.started_at.tzinfo for attempt in attempts)


def test_an_attempts_time_begins_when_the_engine_takes_the_page_and_no_more_pages_are_with_it_than_it_reads() -> None:
    class Counting(EngineOf):
        ends: ClassVar[list[datetime]] = []
        inside = most = 0

        async def read(self, image: PageImage) -> tuple[RawLine, ...]:
            self.inside += 1
            self.most = max(self.most, self.inside)
            for _ in range(10):
                await asyncio.sleep(0)
            self.inside -= 1
            self.ends.append(datetime.now(UTC))
            return self.answer

    engine = Counting(LINES)

    async def three() -> list[Transcript]:
        transcriber = CpuTranscriber(engine)
        return await asyncio.gather(*(transcriber.transcribe(PAGE) for _ in range(3)))

    transcripts = asyncio.run(three())
    assert engine.most == 1
    starts = [transcript.attempts[0].started_at for transcript in transcripts]
    assert all(start >= end for start, end in zip(starts[1:], engine.ends, strict=False))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((), Reason.EMPTY_TEXT),
        (EngineError("no layer", Reason.EMPTY_TEXT), Reason.EMPTY_TEXT),
        (EngineError("the program ended"), Reason.ENGINE_FAILED),
        (ZeroDivisionError("in a library"), Reason.ENGINE_FAILED),
        (MemoryError(), Reason.ENGINE_FAILED),
    ],
)
def test_whatever_goes_wrong_in_an_engine_is_a_failed_transcript_with_a_reason(
    answer: tuple[RawLine, ...] | Exception, reason: Reason
) -> None:
    transcript = asyncio.run(CpuTranscriber(EngineOf(answer)).transcribe(PAGE))
    assert (transcript.status, transcript.reason, transcript.text) == (PageStatus.FAILED, reason, "")
    assert transcript.attempts[0].outcome == reason
    assert len(transcript.detail or "") <= 500


def test_cancelling_reaches_the_engine_and_is_no_failed_page() -> None:
    class Slow(EngineOf):
        cancelled = False

        async def read(self, image: PageImage) -> tuple[RawLine, ...]:
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled = True
            return ()

    engine = Slow(())

    async def cancelled() -> None:
        task = asyncio.create_task(CpuTranscriber(engine).transcribe(PAGE))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert engine.cancelled


def test_the_recipe_changes_with_anything_that_decides_the_text_and_with_nothing_else() -> None:
    same = CpuTranscriber(EngineOf(LINES)).recipe_id
    assert same == CpuTranscriber(EngineOf(())).recipe_id
    assert same != CpuTranscriber(EngineOf(LINES, {"size": 2})).recipe_id
    assert same != CpuTranscriber(EngineOf(LINES), Geometry(151, 2400, 1800)).recipe_id
    assert len(same) == 16
    assert cpu_transcriber("rapidocr", workers=1).recipe_id == cpu_transcriber("auto", workers=3).recipe_id


def test_the_text_layer_engine_gives_the_layer_and_fails_where_there_is_none() -> None:
    transcriber = cpu_transcriber("text_layer")
    page = asyncio.run(transcriber.transcribe(replace(PAGE, text_layer="First line\r\n\n  Second *line*  \n")))
    assert parse(page).markdown == "First line\nSecond \\*line\\*"
    empty = asyncio.run(transcriber.transcribe(replace(PAGE, text_layer=" \n ")))
    assert (empty.status, empty.reason) == (PageStatus.FAILED, Reason.EMPTY_TEXT)


def test_an_engine_that_is_not_known_is_named_with_those_that_are() -> None:
    with pytest.raises(ValueError, match=r"'gpu'.*auto, rapidocr, tesseract or text_layer"):
        cpu_transcriber("gpu")


def test_closing_closes_the_engine() -> None:
    engine = EngineOf(())
    asyncio.run(CpuTranscriber(engine).aclose())
    assert engine.closed
