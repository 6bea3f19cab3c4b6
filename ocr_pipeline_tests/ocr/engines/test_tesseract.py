"""Tesseract's table of words, and the process that makes it."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocr_pipeline.ocr.cpu import cpu_transcriber
from ocr_pipeline.ocr.engines.engine import EngineError
from ocr_pipeline.ocr.engines.tesseract import TesseractEngine, lines_of_table
from ocr_pipeline.ocr.parsing.parse import parse
from ocr_pipeline.records import Reason
from ocr_pipeline_tests.ocr.engines.printing import printed

HEAD = "level\tpage_num\tblock_num\tpar_num\tline_num\tword_num\tleft\ttop\twidth\theight\tconf\ttext"


def word(text: str, x: int, line: int = 1, width: int = 50, confidence: str = "96.5") -> str:
    return f"5\t1\t1\t1\t{line}\t1\t{x}\t{100 * line}\t{width}\t20\t{confidence}\t{text}"


def test_words_of_a_line_are_joined_and_a_wide_gap_parts_cells() -> None:
    table = "\n".join([HEAD, word("Oak", 10), word("table", 70), word("640.00", 400), word("next", 10, line=2)])
    lines = lines_of_table(table)
    assert [line["text"] for line in lines] == ["Oak table", "640.00", "next"]
    assert lines[0]["box"] == [10, 100, 120, 120]
    assert lines[0]["score"] == 0.965


@given(st.text(alphabet=st.sampled_from("5\t\n-1.9ax "), max_size=200))
@settings(deadline=None)
def test_a_damaged_table_is_passed_over(text: str) -> None:
    lines_of_table(HEAD + "\n" + text)


@pytest.mark.skipif(not shutil.which("tesseract"), reason="the program tesseract is not installed")
def test_printed_text_is_read_by_the_real_program() -> None:
    transcript = asyncio.run(cpu_transcriber("tesseract").transcribe(printed(["Invoice 2025 for Mr Smith"])))
    assert parse(transcript).markdown == "Invoice 2025 for Mr Smith"
    assert transcript.model.startswith("tesseract ")


def _program(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> Path:
    """A program called tesseract that comes first on the path."""
    program = folder / "tesseract"
    program.write_text(
        '#!/bin/sh\ncase "$1" in\n--version) echo "tesseract 9.1"; exit;;\n'
        f'--list-langs) printf "List of\\neng\\nosd\\n"; exit;;\nesac\n{body}\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return folder / "pid"


def _read(seconds: float = 60.0) -> Any:
    return asyncio.run(TesseractEngine(seconds=seconds, workers=1).read(printed(["x"])))


def test_a_program_that_fails_is_an_error_with_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _program(tmp_path, monkeypatch, 'cat >/dev/null; echo "Image too small" >&2; exit 3')
    with pytest.raises(EngineError, match="code 3: Image too small"):
        _read()


def test_the_program_gets_no_secret_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _program(tmp_path, monkeypatch, f"cat >/dev/null; env > '{tmp_path}/env'")
    monkeypatch.setenv("R2_SECRET_ACCESS_KEY", "s3cret")
    monkeypatch.setenv("TESSDATA_PREFIX", "/usr/share/tessdata")
    _read()
    given = (tmp_path / "env").read_text().splitlines()
    assert "OMP_THREAD_LIMIT=1" in given
    assert "TESSDATA_PREFIX=/usr/share/tessdata" in given
    assert not any("s3cret" in line for line in given)


def test_a_program_that_does_not_read_its_input_does_not_hang_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _program(tmp_path, monkeypatch, "exit 1")
    with pytest.raises(EngineError, match="code 1: no message"):
        _read()


def test_a_program_that_hangs_is_killed_when_its_time_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = _program(tmp_path, monkeypatch, f"echo $$ > '{tmp_path}/pid'; exec sleep 600")
    with pytest.raises(EngineError, match=r"longer than 0\.5 s"):
        _read(seconds=0.5)
    assert not psutil.pid_exists(int(pid.read_text()))


def test_cancelling_a_page_kills_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = _program(
        tmp_path, monkeypatch, f"echo $$ > '{tmp_path}/part' && mv '{tmp_path}/part' '{tmp_path}/pid'; exec sleep 600"
    )

    async def cancel_when_started() -> None:
        task = asyncio.create_task(TesseractEngine(workers=1).read(printed(["x"])))
        while not pid.exists():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel_when_started())
    assert not psutil.pid_exists(int(pid.read_text()))


def test_the_recipe_names_the_version_and_the_languages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _program(tmp_path, monkeypatch, "exit 0")
    assert TesseractEngine().asked == {"version": "9.1", "languages": "eng", "psm": 3}
    assert cpu_transcriber("tesseract").recipe_id != cpu_transcriber("auto").recipe_id


def test_without_the_program_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match="OCR_CPU_ENGINE=rapidocr") as raised:
        cpu_transcriber("tesseract")
    assert raised.value.reason is Reason.ENGINE_FAILED
