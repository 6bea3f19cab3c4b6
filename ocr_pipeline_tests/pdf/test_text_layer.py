from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont

from ocr_pipeline.pdf.pdfium import MAX_TEXT, clean_text
from ocr_pipeline.pdf.renderer import RenderedPage, Renderer
from ocr_pipeline.records import Geometry

from . import pdfs


def layer(renderer: Renderer, path: Path, geometry: Geometry) -> str:
    [page] = renderer.render(path, 1, 1, geometry)
    assert isinstance(page, RenderedPage)
    return page.text_layer


def test_text_in_other_scripts_comes_through(renderer: Renderer, pdf: Path, geometry: Geometry) -> None:
    pdfmetrics.registerFont(UnicodeCIDFont("STSong-Light"))

    def draw(canvas: object) -> None:
        canvas.setFont("STSong-Light", 14)  # type: ignore[attr-defined]
        canvas.drawString(50, 700, "第一章 数据管道")  # type: ignore[attr-defined]

    assert layer(renderer, pdfs.drawn(pdf, draw), geometry).strip() == "第一章 数据管道"


def test_a_hyphen_at_a_line_s_end_stays_and_so_does_the_line_s_end(
    renderer: Renderer, pdf: Path, geometry: Geometry
) -> None:
    pdfs.book(pdf, [["a hyphen-", "ated word"]])
    assert layer(renderer, pdf, geometry).strip() == "a hyphen-\nated word"


def test_a_text_layer_is_cut_at_its_limit(without_poppler: Renderer, pdf: Path, geometry: Geometry) -> None:
    many = b"BT /F 1 Tf 10 390 Td 1.2 TL " + (b"(" + b"abcdefghi " * 100 + b") ' ") * 300 + b"ET"
    pdf.write_bytes(pdfs.pages([pdfs.TEXT_PAGE], [pdfs.stream(many, compress=True)]))
    text = layer(without_poppler, pdf, geometry)
    assert MAX_TEXT * 0.9 < len(text) <= MAX_TEXT


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("a\r\nb\rc", "a\nb\nc"),
        ("nul\0 bell\a tab\t", "nul bell tab\t"),
        ("lone \ud800 surrogate", "lone  surrogate"),
        ("hy\ufffephen \x02end", "hy-\nphen -\nend"),
        ("\ufdd0 non-character", " non-character"),
        ("Ωμέγα 字 🙂", "Ωμέγα 字 🙂"),
    ],
)
def test_what_is_no_text_is_taken_out(raw: str, clean: str) -> None:
    assert clean_text(raw) == clean


@given(st.text(st.characters()))
def test_clean_text_can_always_be_stored(text: str) -> None:
    clean = clean_text(text)
    clean.encode("utf-8")
    assert all(c.isprintable() or c in "\n\t" or ord(c) > 127 for c in clean)
    assert clean_text(clean) == clean


def test_marks_that_turn_the_direction_of_text_do_not_come_through() -> None:
    assert clean_text("invoice \u202egpj.exe\u202c \u2067x\u2069") == "invoice gpj.exe x"
