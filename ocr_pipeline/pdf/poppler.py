"""poppler, through pdf2image: the only module that starts a poppler program. Runs in the worker process.

Here belongs what poppler knows about a file, and its page images. Not here: deadlines. The renderer kills the whole
process group of the worker when a page takes too long, and poppler with it.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import pdf2image
from pdf2image import pdf2image as inner
from pdf2image.exceptions import PDFInfoNotInstalledError, PDFPageCountError

from ocr_pipeline.pdf.opinions import Opening

_POLL_SECONDS = 0.02  # between looks into poppler's output folder; a page takes it 20 ms and more
_END_OF_JPEG = b"\xff\xd9"  # stands nowhere else in a JPEG without thumbnail: in pixel data 0xFF is followed by 0x00
_SIZE = re.compile(r"([\d.eE+-]+) x ([\d.eE+-]+) pts")


def ask_once() -> None:
    """From here on pdf2image asks `pdfinfo` once a file and `pdftoppm` for its version once, not anew before each range
    of pages: two more starts of a program, 8 ms of CPU, beside the one that draws. To be called once a process.
    """
    inner.pdfinfo_from_path = _facts  # type: ignore[assignment]
    inner._get_poppler_version = cache(inner._get_poppler_version)


def _facts(
    pdf_path: str, userpw: str | None = None, ownerpw: str | None = None, poppler_path: str | None = None
) -> dict[str, Any]:
    """pdf2image's `pdfinfo_from_path`, remembered for as long as the file is the same."""
    seen = os.stat(pdf_path)
    return _facts_of(pdf_path, (seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns))


@lru_cache(maxsize=16)
def _facts_of(path: str, identity: tuple[int, ...]) -> dict[str, Any]:
    return dict(pdf2image.pdfinfo_from_path(path))


def open_document(path: Path) -> Opening:
    """What `pdfinfo` says of the file."""
    try:
        facts = _facts(path.as_posix())
    except (PDFPageCountError, PDFInfoNotInstalledError) as error:
        said = str(error)
        if "Incorrect password" in said:
            problem = "password"
        elif "Invalid page count 0" in said:
            problem = "no_pages"
        else:
            problem = "damaged"
        return Opening(None, problem=problem, detail=_complaint(said))
    return Opening(facts["Pages"], title=str(facts.get("Title", "")))


def page_size(path: Path, number: int) -> tuple[float, float, int] | None:
    """Width and height in points as the page is shown, and its /Rotate; None where poppler has no such page.

    For files that PDFium cannot open. poppler says nothing of /UserUnit.
    """
    try:
        facts = pdf2image.pdfinfo_from_path(path.as_posix(), first_page=number, last_page=number)
    except PDFPageCountError:
        return None
    # The field is "Page    7 size" with as many spaces as poppler pleases.
    named = {" ".join(name.split()): value for name, value in facts.items()}
    match = _SIZE.match(str(named.get(f"Page {number} size", "")))
    if match is None:
        return None
    width, height = float(match[1]), float(match[2])
    turned = str(named.get(f"Page {number} rot", "0"))
    rotation = int(turned) % 360 if turned.lstrip("-").isdigit() else 0
    return (height, width, rotation) if rotation in (90, 270) else (width, height, rotation)


def draw(
    path: Path, first: int, last: int, dpi: float, quality: int, scratch: Path
) -> Iterator[tuple[int, bytes | str]]:
    """Page images of `first` to `last` in order, each as soon as it is there: (number, JPEG bytes), or (number, why
    there is none)."""
    while first <= last:
        done, why = first, ""
        for number, jpeg, why in _one_start(path, first, last, dpi, quality, scratch):  # noqa: B007
            if jpeg is None:
                break
            yield number, jpeg
            done = number + 1
        if done > last:
            return
        # poppler goes on after a page it cannot draw at all, but dies of some: start anew behind it.
        yield done, why or "poppler wrote no image of this page"
        first = done + 1


def _one_start(
    path: Path, first: int, last: int, dpi: float, quality: int, scratch: Path
) -> Iterator[tuple[int, bytes | None, str]]:
    """One call of pdf2image, in a thread, while this one takes each page from the folder as soon as it is whole."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    problem: list[str] = []

    def call() -> None:
        try:
            pdf2image.convert_from_path(
                path.as_posix(),
                dpi=dpi,  # type: ignore[arg-type]  # pdftoppm takes fractions, and pdf2image passes them on
                first_page=first,
                last_page=last,
                fmt="jpeg",
                jpegopt={"quality": quality, "progressive": False, "optimize": False},
                output_folder=folder.as_posix(),
                output_file="page",
                paths_only=True,
                use_cropbox=True,
            )
        except Exception as error:  # whatever it is, the pages that are missing afterwards say it
            problem.append(_complaint(str(error)) or type(error).__name__)

    caller = threading.Thread(target=call, daemon=True)
    caller.start()
    try:
        wanted = first
        while wanted <= last:
            caller.join(_POLL_SECONDS)
            ended = not caller.is_alive()
            while wanted <= last and (jpeg := _whole_image(folder, wanted)) is not None:
                yield wanted, jpeg, ""
                wanted += 1
            if ended:
                break
        caller.join()
        if wanted <= last:
            yield wanted, None, "; ".join(problem)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _whole_image(folder: Path, number: int) -> bytes | None:
    """The page's JPEG where it is written to its end. The file is deleted: a range must not fill the disk."""
    for file in folder.glob(f"*-*{number}.jpg"):
        # The number is padded with zeros to the width of the document's page count.
        if int(file.stem.rpartition("-")[2]) == number:
            data = file.read_bytes()
            if not data.endswith(_END_OF_JPEG):
                return None
            file.unlink()
            return data
    return None


def _complaint(text: str) -> str:
    """The first thing poppler complains of; what follows are mostly consequences. pdf2image's own line is left out."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("Unable to get page")]
    return lines[0][:300] if lines else ""
