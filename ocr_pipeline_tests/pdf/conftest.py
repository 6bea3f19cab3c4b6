"""Renderers for the tests of the PDF room: with poppler, and as on a machine without it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ocr_pipeline.pdf.renderer import Renderer, RenderLimits, poppler_installed
from ocr_pipeline.records import Geometry


@pytest.fixture(scope="session")
def geometry() -> Geometry:
    return Geometry(dpi=150, max_long_side=1920, max_short_side=1280)


@pytest.fixture(scope="module")
def with_poppler() -> Iterator[Renderer]:
    if not poppler_installed():
        pytest.skip("poppler is not installed here")
    with Renderer(RenderLimits()) as renderer:
        yield renderer


@pytest.fixture(scope="module")
def without_poppler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Renderer]:
    with a_renderer_without_poppler(tmp_path_factory.mktemp("empty")) as renderer:
        yield renderer


def a_renderer_without_poppler(empty: Path) -> Renderer:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(empty))
        assert not poppler_installed()
        return Renderer(RenderLimits())


@pytest.fixture(scope="module", params=["poppler", "pdfium"])
def library(request: pytest.FixtureRequest) -> str:
    """Each test runs with both."""
    return request.param


@pytest.fixture(scope="module")
def renderer(request: pytest.FixtureRequest, library: str) -> Renderer:
    return request.getfixturevalue("with_poppler" if library == "poppler" else "without_poppler")


@pytest.fixture
def fresh_renderer(renderer: Renderer, library: str, tmp_path: Path) -> Iterator[Renderer]:
    """Another one like `renderer`, which has read nothing yet."""
    with Renderer(RenderLimits()) if library == "poppler" else a_renderer_without_poppler(tmp_path) as fresh:
        yield fresh


@pytest.fixture
def pdf(tmp_path: Path) -> Path:
    return tmp_path / "document.pdf"
