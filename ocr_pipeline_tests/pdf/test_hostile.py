"""Files made to hang, crash or fill the machine: each costs its own page at most, and the next file is fine."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from ocr_pipeline.pdf.renderer import PageFault, RenderedPage, Renderer, RenderLimits, poppler_installed
from ocr_pipeline.records import Geometry, PageStatus, Reason

from . import pdfs

PLAIN = pdfs.TEXT_PAGE, pdfs.TEXT
MEMORY = 400 << 20


@pytest.fixture(params=["poppler", "pdfium"])
def strict(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Renderer]:
    """Three seconds a page, 400 MB; with poppler and without."""
    if request.param == "pdfium":
        (tmp_path / "empty").mkdir()
        monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    elif not poppler_installed():
        pytest.skip("poppler is not installed here")
    with Renderer(RenderLimits(seconds=3, memory_bytes=MEMORY)) as renderer:
        yield renderer


def between_good_pages(path: Path, *bad: tuple[bytes, bytes], extra: list[bytes]) -> Path:
    """A good page, the bad ones, a good page. `extra` objects are numbered from 3 + 2 * pages."""
    entries, contents = zip(PLAIN, *bad, PLAIN, strict=True)
    path.write_bytes(pdfs.pages(entries, contents, extra))
    return path


def assert_only_the_middle_failed(pages: list[RenderedPage | PageFault]) -> list[PageFault]:
    first, *middle, last = pages
    for page in (first, last):
        assert isinstance(page, RenderedPage), page
        assert page.text_layer.strip() == "Some words"
        assert page.ink > 0
    faults = []
    for page in middle:
        assert isinstance(page, PageFault), page
        assert page.status is PageStatus.FAILED
        assert page.detail
        faults.append(page)
    return faults


@contextmanager
def peak_of_children() -> Iterator[list[int]]:
    """The most memory that any process below this one holds in the block, bytes; looked at every 20 ms.

    Not RUSAGE_CHILDREN: that is the largest child of the whole test run.
    """
    peak = [0]
    done = threading.Event()

    def look() -> None:
        this = psutil.Process()
        own = this.cmdline()
        while not done.wait(0.02):
            for child in this.children(recursive=True):
                with suppress(psutil.Error):
                    if child.cmdline() != own:  # between fork and exec a child is a copy of this process
                        peak[0] = max(peak[0], child.memory_info().rss)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def test_a_page_that_hangs_the_renderers_times_out_and_its_neighbours_are_drawn(
    strict: Renderer, pdf: Path, geometry: Geometry
) -> None:
    between_good_pages(pdf, pdfs.slow_page(9), extra=[pdfs.SLOW_PATTERN])
    assert strict.inspect(pdf).page_count == 3
    [fault] = assert_only_the_middle_failed(strict.render(pdf, 1, 3, geometry))
    assert fault.reason is Reason.RENDER_TIMEOUT
    assert "3 s" in fault.detail


def test_a_page_that_hangs_poppler_alone_is_drawn_by_pdfium(pdf: Path, geometry: Geometry) -> None:
    """Lines of a hundred million dashes: poppler draws each, PDFium does not bother."""
    if not poppler_installed():
        pytest.skip("poppler is not installed here")
    dashes = pdfs.stream(b"[0.00001 0.00001] 0 d 0.001 w\n" + b"0 0 m 595 842 l S\n" * 20)
    between_good_pages(pdf, (b"/MediaBox[0 0 595 842]", dashes), extra=[])
    with Renderer(RenderLimits(seconds=3)) as renderer:
        pages = renderer.render(pdf, 1, 3, geometry)
    assert [page.renderer for page in pages if isinstance(page, RenderedPage)] == ["poppler", "pdfium", "poppler"]


@pytest.mark.slow
def test_a_document_of_pages_that_all_hang_is_given_up_after_some(
    pdf: Path, geometry: Geometry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "ocr_pipeline.pdf.isolation._PATIENCE",
        {"sizes": 1, "poppler_sizes": 1, "layers": 3} | {"draw_poppler": 1, "draw_pdfium": 2},
    )
    pages = 40
    entry, content = pdfs.slow_page(3 + 2 * pages)
    pdf.write_bytes(pdfs.pages([entry] * pages, [content] * pages, [pdfs.SLOW_PATTERN]))
    with Renderer(RenderLimits(seconds=1)) as renderer:
        faults = renderer.render(pdf, 1, 20, geometry) + renderer.render(pdf, 21, 40, geometry)
        assert [fault.number for fault in faults] == list(range(1, 41))
        assert all(isinstance(fault, PageFault) and fault.reason is Reason.RENDER_TIMEOUT for fault in faults)
        assert "not tried" in faults[-1].detail  # type: ignore[union-attr]
        pdf.write_bytes(pdfs.pages([PLAIN[0]], [PLAIN[1]]))
        assert isinstance(renderer.render(pdf, 1, 1, geometry)[0], RenderedPage)


def test_a_content_stream_of_gigabytes_takes_neither_the_memory_nor_the_document(
    strict: Renderer, pdf: Path, geometry: Geometry
) -> None:
    packed = zlib.compress(pdfs.zeros(1500), 9)
    bomb = b"/MediaBox[0 0 595 842]", pdfs.stream(packed, b"/Filter[/FlateDecode/FlateDecode]")
    between_good_pages(pdf, bomb, extra=[])
    assert pdf.stat().st_size < 100_000
    assert strict.inspect(pdf).page_count == 3
    with peak_of_children() as peak:
        [fault] = assert_only_the_middle_failed(strict.render(pdf, 1, 3, geometry))
    assert fault.reason in (Reason.RENDER_FAILED, Reason.RENDER_TIMEOUT)
    assert 0 < peak[0] < MEMORY


@pytest.mark.slow
def test_an_image_of_gigabytes_takes_neither_the_memory_nor_the_document(
    strict: Renderer, pdf: Path, geometry: Geometry
) -> None:
    image = b"/Type/XObject/Subtype/Image/Width 60000/Height 60000/BitsPerComponent 8/ColorSpace/DeviceRGB"
    packed = zlib.compress(pdfs.zeros(1000), 9)
    bomb = (
        b"/MediaBox[0 0 595 842]/Resources<</XObject<</I 9 0 R>>>>",
        pdfs.stream(b"q 500 0 0 500 50 50 cm /I Do Q"),
    )
    between_good_pages(pdf, bomb, extra=[pdfs.stream(packed, image + b"/Filter[/FlateDecode/FlateDecode]")])
    with peak_of_children() as peak:
        [fault] = assert_only_the_middle_failed(strict.render(pdf, 1, 3, geometry))
    assert fault.reason in (Reason.RENDER_FAILED, Reason.RENDER_TIMEOUT)
    assert 0 < peak[0] < MEMORY


@pytest.mark.slow
def test_forms_nested_a_thousand_million_times_cost_one_page(strict: Renderer, pdf: Path, geometry: Geometry) -> None:
    levels = 12
    forms = []
    for level in range(levels):
        inner = b"/Resources<</XObject<</F %d 0 R>>>>" % (10 + level) if level < levels - 1 else b""
        content = b"/F Do\n" * 10 if level < levels - 1 else b"0 0 m 500 800 l S\n"
        forms.append(pdfs.stream(content, b"/Type/XObject/Subtype/Form/BBox[0 0 600 900]" + inner))
    bad = b"/MediaBox[0 0 595 842]/Resources<</XObject<</F 9 0 R>>>>", pdfs.stream(b"/F Do")
    between_good_pages(pdf, bad, extra=forms)
    [fault] = assert_only_the_middle_failed(strict.render(pdf, 1, 3, geometry))
    assert fault.reason in (Reason.RENDER_FAILED, Reason.RENDER_TIMEOUT)


def test_a_page_tree_that_contains_itself_is_no_trap(strict: Renderer, pdf: Path, geometry: Geometry) -> None:
    objects = [b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[2 0 R]/Count 1>>"]
    pdf.write_bytes(pdfs.raw(objects))
    for page in strict.render(pdf, 1, 1, geometry):
        assert isinstance(page, PageFault)


@pytest.mark.parametrize("box", [b"0 0 0 0", b"0 0 1e400 99999999999999999999", b"300 400 0 0", b"0 0 -5", b"/A /B"])
def test_a_page_of_nonsensical_size_becomes_an_image_or_a_fault(
    strict: Renderer, pdf: Path, geometry: Geometry, box: bytes
) -> None:
    pdf.write_bytes(pdfs.pages([b"/MediaBox[%s]" % box], [pdfs.TEXT]))
    [page] = strict.render(pdf, 1, 1, geometry)
    if isinstance(page, RenderedPage):
        assert max(page.width, page.height) <= geometry.max_long_side
