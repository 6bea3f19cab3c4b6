from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ocr_pipeline.pdf.ink import BLANK_INK, measure
from ocr_pipeline.pdf.renderer import RenderedPage, Renderer
from ocr_pipeline.records import Geometry

from .pdfs import drawn

A4_150 = (1240, 1754)
DPIS = [100, 150, 300]


def jpeg(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype("uint8")).save(out, "JPEG", quality=85)
    return out.getvalue()


def paper(dpi: int, level: float = 238) -> np.ndarray:
    return np.full((int(11.69 * dpi), int(8.27 * dpi)), level)


def noisy(pixels: np.ndarray, sigma: float, seed: int = 0) -> np.ndarray:
    return pixels + np.random.default_rng(seed).normal(0, sigma, pixels.shape)


def ink(pixels: np.ndarray) -> float:
    return measure(jpeg(pixels))[2]


@pytest.mark.parametrize("level", [255, 215, 160])
def test_white_and_grey_paper_has_no_ink_at_all(level: int) -> None:
    assert ink(paper(150, level)) == 0.0


@pytest.mark.parametrize("dpi", DPIS)
@pytest.mark.parametrize("sigma", [5, 12, 20])
def test_a_blank_scan_is_blank_in_spite_of_its_noise(dpi: int, sigma: float) -> None:
    assert ink(noisy(paper(dpi), sigma)) < BLANK_INK


@pytest.mark.parametrize("dpi", DPIS)
def test_a_blank_scan_whose_light_falls_off_is_blank(dpi: int) -> None:
    page = paper(dpi)
    falling = np.linspace(0.75, 1, page.shape[1])[None, :] * np.linspace(0.9, 1, page.shape[0])[:, None]
    assert ink(noisy(page * falling, 8)) < BLANK_INK


def test_specks_of_dust_do_not_make_a_page() -> None:
    page, random = noisy(paper(150), 8), np.random.default_rng(1)
    for _ in range(100):
        y, x = random.integers(50, 1600), random.integers(50, 1100)
        page[y : y + 2, x : x + 2] = 20
    assert ink(page) < BLANK_INK


def test_the_black_edge_of_a_scanner_is_left_out() -> None:
    page = paper(150)
    page[:, :12] = 0
    page[-12:, :] = 0
    assert ink(page) < BLANK_INK


@pytest.mark.parametrize("level", [0, 60])
def test_a_page_that_is_dark_all_over_is_not_blank(level: int) -> None:
    assert ink(paper(150, level)) == pytest.approx(1.0)


def test_ink_is_a_share() -> None:
    page = paper(150, 255)
    page[400:1200, 300:900] = 0
    assert ink(page) == pytest.approx(800 * 600 / (1754 * 1240), rel=0.1)


def test_light_text_on_a_grey_page_shows() -> None:
    page = paper(150, 150)
    page[800:812, 400:480:4] = 255
    page[800:812, 401:480:4] = 255
    assert ink(page) > 5 * BLANK_INK


def test_what_is_no_jpeg_is_refused() -> None:
    with pytest.raises(OSError, match="cannot identify"):
        measure(b"%PDF-1.7 not a picture")


@pytest.mark.parametrize("dpi", DPIS)
@pytest.mark.parametrize(
    ("text", "size", "grey", "at_least"),
    [
        ("This page intentionally left blank.", 9, 0.0, 100),  # a short line
        ("Hello", 10, 0.0, 20),  # one word
        ("Hello", 10, 0.6, 10),
        ("12", 10, 0.0, 5),  # a thin page number
        ("7", 8, 0.0, 1),
    ],
)
def test_text_on_a_page_shows_however_little_it_is(
    without_poppler: Renderer, pdf: Path, dpi: int, text: str, size: float, grey: float, at_least: int
) -> None:
    def draw(canvas: object) -> None:
        canvas.setFillGray(grey)  # type: ignore[attr-defined]
        canvas.setFont("Helvetica", size)  # type: ignore[attr-defined]
        canvas.drawString(290, 28, text)  # type: ignore[attr-defined]

    [page] = without_poppler.render(drawn(pdf, draw), 1, 1, Geometry(dpi, 10_000, 10_000))
    assert isinstance(page, RenderedPage)
    assert page.ink >= at_least * BLANK_INK


@pytest.mark.parametrize("sigma", [0, 10])
def test_a_word_in_a_noisy_scan_shows(without_poppler: Renderer, pdf: Path, sigma: float) -> None:
    def draw(canvas: object) -> None:
        canvas.drawString(100, 500, "Hello")  # type: ignore[attr-defined]

    [page] = without_poppler.render(drawn(pdf, draw), 1, 1, Geometry(150, 10_000, 10_000))
    assert isinstance(page, RenderedPage)
    pixels = np.asarray(Image.open(io.BytesIO(page.jpeg)).convert("L")).astype(float)
    assert ink(noisy(pixels, sigma)) >= 20 * BLANK_INK
