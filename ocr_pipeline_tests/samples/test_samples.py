"""The samples are what they say they are: their known text, their pages, and the two that nothing can open."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pypdfium2
import pytest

from ocr_pipeline import samples
from ocr_pipeline.records import DocumentStatus, PageStatus, Reason
from ocr_pipeline.samples.make import make_all

READABLE = [path for path in samples.paths() if samples.expected()[path.name]["status"] == "ok"]


def _layer(path: Path) -> list[str]:
    with pypdfium2.PdfDocument(path) as pdf:
        return [page.get_textpage().get_text_bounded() for page in pdf]


def test_each_sample_has_an_expectation_in_the_words_of_the_ledger() -> None:
    expected = samples.expected()
    assert sorted(expected) == [path.name for path in samples.paths()]
    for entry in expected.values():
        DocumentStatus(entry["status"])
        assert entry["reason"] is None or Reason(entry["reason"])
        assert {PageStatus(status) for status in entry["pages"]} <= {PageStatus.OK, PageStatus.BLANK}


def test_encrypted_damaged_and_not_a_pdf_are_rejected_with_exactly_those_reasons() -> None:
    rejected = {name: entry["reason"] for name, entry in samples.expected().items() if entry["status"] == "rejected"}
    assert rejected == {"encrypted.pdf": "encrypted", "damaged.pdf": "damaged", "not-really-a-pdf.pdf": "not_a_pdf"}


@pytest.mark.parametrize("path", READABLE, ids=lambda path: path.stem)
def test_the_known_text_has_as_many_pages_as_the_file_and_is_empty_where_the_page_is_blank(path: Path) -> None:
    statuses = samples.expected()[path.name]["pages"]
    with pypdfium2.PdfDocument(path) as pdf:
        assert len(pdf) == len(statuses) == len(samples.known_text(path))
    assert ["blank" if not text else "ok" for text in samples.known_text(path)] == statuses


@pytest.mark.parametrize("path", READABLE, ids=lambda path: path.stem)
def test_the_text_layer_holds_the_known_characters_except_on_the_scan(path: Path) -> None:
    for known, layer in zip(samples.known_text(path), _layer(path), strict=True):
        if path.stem == "scanned-letter":
            assert layer == ""
        else:  # PDFium loses spaces on a turned page
            assert Counter("".join(layer.split())) == Counter("".join(known.split()))


@pytest.mark.parametrize("name", ["encrypted", "damaged", "not-really-a-pdf"])
def test_pdfium_does_not_open_what_is_to_be_rejected(name: str) -> None:
    path = next(path for path in samples.paths() if path.stem == name)
    with pytest.raises(pypdfium2.PdfiumError):
        pypdfium2.PdfDocument(path)
    assert path.read_bytes()[:5] == (b"<!doc" if name == "not-really-a-pdf" else b"%PDF-")


def test_the_rotated_page_is_a_portrait_sheet_that_asks_to_be_turned() -> None:
    with pypdfium2.PdfDocument(next(path for path in samples.paths() if path.stem == "rotated-page")) as pdf:
        left, bottom, right, top = pdf[0].get_mediabox()
        assert pdf[0].get_rotation() == 90
        assert right - left < top - bottom


def test_the_samples_are_small_enough_to_be_shipped() -> None:
    assert sum(path.stat().st_size for path in samples.paths()) < 1_200_000


def test_the_script_makes_the_same_samples_again(tmp_path: Path) -> None:
    make_all(tmp_path)
    folder = samples.paths()[0].parent
    assert sorted(path.name for path in tmp_path.glob("*.pdf")) == [path.name for path in samples.paths()]
    for path in [*tmp_path.glob("*.txt"), tmp_path / "expected.json"]:
        assert path.read_bytes() == (folder / path.name).read_bytes()
    for path in READABLE:  # bytes hang on the release of reportlab, FreeType and libjpeg; what they say does not
        assert _layer(tmp_path / path.name) == _layer(path)
