"""Tesseract, where its program is installed. This module alone starts it.

Here belong the call and the reading of its TSV output. The image goes in on stdin and the table comes out on stdout:
no file, no shell.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from statistics import median
from typing import Any

from ocr_pipeline.ocr.engines.engine import EngineError, RawLine, usable_cores
from ocr_pipeline.records import PageImage

PROGRAM = "tesseract"
SEGMENTATION = 3  # --psm: columns are found by tesseract too, which keeps it from reading across them
_NEW_PIECE = 1.5  # line heights of white between two words, from which they are two pieces (cells of a table)
_WORD_LEVEL = "5"
_COLUMNS = 12


class TesseractEngine:
    """One process per page, one thread per process; a cancelled or overdue page's process is killed."""

    name = "tesseract"

    def __init__(self, seconds: float = 120.0, workers: int | None = None) -> None:
        """`seconds`: limit for one page."""
        self._seconds = seconds
        self.workers = workers or usable_cores()

    @cached_property
    def version(self) -> str:
        lines = _output("--version").splitlines()
        found = re.search(r"\d[\w.-]*", lines[0]) if lines else None
        return found.group() if found else "unknown"

    @cached_property
    def languages(self) -> str:
        """English where it is installed, else what is there, as tesseract takes them: "deu+fra"."""
        installed = [line.strip() for line in _output("--list-langs").splitlines()[1:]]
        usable = [name for name in installed if name and name not in ("osd", "equ")]
        if not usable:
            raise EngineError("tesseract is installed without language data: install tesseract-ocr-eng")
        return "eng" if "eng" in usable else "+".join(sorted(usable)[:3])

    @property
    def model(self) -> str:
        return f"tesseract {self.version} {self.languages}"

    @property
    def asked(self) -> Mapping[str, Any]:
        return {"version": self.version, "languages": self.languages, "psm": SEGMENTATION}

    async def read(self, image: PageImage) -> tuple[RawLine, ...]:
        return lines_of_table(await self._table(image.jpeg))

    async def aclose(self) -> None:
        return None

    async def _table(self, jpeg: bytes) -> str:
        arguments = ["stdin", "stdout", "--psm", str(SEGMENTATION), "-l", self.languages, "tsv"]
        try:
            process = await asyncio.create_subprocess_exec(
                PROGRAM,
                *arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                # More threads a page cost more CPU in all than they save time: pages are read side by side instead.
                env=_environment() | {"OMP_THREAD_LIMIT": "1"},
            )
        except OSError as error:
            raise EngineError(f"tesseract could not be started ({error.strerror}): install it") from error
        try:
            async with asyncio.timeout(self._seconds):
                out, err = await process.communicate(jpeg)
        except TimeoutError:
            raise EngineError(f"tesseract took longer than {self._seconds:g} s for the page") from None
        finally:
            if process.returncode is None:
                process.kill()
                await asyncio.shield(process.wait())
        if process.returncode != 0:
            said = err.decode("utf-8", "replace").strip().splitlines()
            raise EngineError(f"tesseract ended with code {process.returncode}: {said[-1] if said else 'no message'}")
        return out.decode("utf-8", "replace")


# All of the environment that the program gets: what reads hostile images holds no token of the lake or a server.
_INHERITED = (
    *("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "LC_CTYPE"),
    *("TESSDATA_PREFIX", "SYSTEMROOT"),
)


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in _INHERITED if name in os.environ}


@dataclass(frozen=True, slots=True)
class _Word:
    text: str
    x0: int
    y0: int
    x1: int
    y1: int
    confidence: float  # 0 to 100


def lines_of_table(table: str) -> tuple[RawLine, ...]:
    """The lines of tesseract's TSV output. Rows that are no words, or damaged, are passed over."""
    lines: dict[tuple[str, ...], list[_Word]] = {}
    for row in table.splitlines()[1:]:
        fields = row.split("\t")
        if len(fields) != _COLUMNS or fields[0] != _WORD_LEVEL or not fields[11].strip():
            continue
        try:
            x, y, width, height = map(int, fields[6:10])
            word = _Word(fields[11].strip(), x, y, x + width, y + height, float(fields[10]))
        except ValueError:
            continue
        lines.setdefault(tuple(fields[1:5]), []).append(word)
    return tuple(_raw_line(piece) for words in lines.values() for piece in _pieces(words))


def _pieces(words: Sequence[_Word]) -> list[list[_Word]]:
    """Tesseract runs the cells of a table row into one line: wide gaps part them again."""
    height = median(word.y1 - word.y0 for word in words)
    pieces = [[words[0]]]
    for before, word in pairwise(words):
        if word.x0 - before.x1 > _NEW_PIECE * height:
            pieces.append([word])
        else:
            pieces[-1].append(word)
    return pieces


def _raw_line(words: Sequence[_Word]) -> RawLine:
    box = [min(w.x0 for w in words), min(w.y0 for w in words), max(w.x1 for w in words), max(w.y1 for w in words)]
    score = sum(word.confidence for word in words) / len(words) / 100
    return RawLine(
        text=" ".join(word.text for word in words),
        box=[float(side) for side in box],
        score=round(min(1.0, max(0.0, score)), 3),
    )


def _output(argument: str) -> str:
    """What `tesseract --version` or `--list-langs` say; older releases say it on stderr."""
    try:
        done = subprocess.run(
            [PROGRAM, argument],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=20,
            check=False,
            env=_environment(),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError("tesseract does not start: install it, or set OCR_CPU_ENGINE=rapidocr") from error
    return (done.stdout or done.stderr).decode("utf-8", "replace")
