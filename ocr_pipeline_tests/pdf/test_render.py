"""Page images of sound files: size, orientation, order, text. Each test runs with poppler and without."""

from __future__ import annotations

import hashlib
import io
import os
import random
import shutil
from pathlib import Path

import pytest
from PIL import Image

from ocr_pipeline.pdf.renderer import BLANK_INK, PageFault, RenderedPage, Renderer, RenderLimits, poppler_installed
from ocr_pipeline.records import Geometry, PageStatus, Reason

from . import pdfs

BLACK, WHITE = 40, 215


def render(renderer: Renderer, path: Path, first: int, last: int, geometry: Geometry) -> list[RenderedPage]:
    pages = renderer.render(path, first, last, geometry)
    assert all(isinstance(page, RenderedPage) for page in pages), pages
    return pages  # type: ignore[return-value]


def black_corner(page: RenderedPage) -> str:
    """The corner of the image that is black, where exactly one is."""
    image = Image.open(io.BytesIO(page.jpeg)).convert("L")
    right, bottom = image.width - 1, image.height - 1
    inset = max(2, image.width // 20)
    corners = {
        "top left": (inset, inset),
        "top right": (right - inset, inset),
        "bottom left": (inset, bottom - inset),
        "bottom right": (right - inset, bottom - inset),
    }
    shades = {name: image.getpixel(at) for name, at in corners.items()}
    black = [name for name, shade in shades.items() if shade < BLACK]
    assert len(black) == 1, shades
    assert all(shade > WHITE for name, shade in shades.items() if name not in black), shades
    return black[0]


def test_a_page_comes_with_its_image_hash_size_and_text(
    renderer: Renderer, pdf: Path, geometry: Geometry, library: str
) -> None:
    pdfs.book(pdf, [["Grüße aus Köln"], ["second"]])
    page = render(renderer, pdf, 1, 2, geometry)[0]
    assert page.number == 1
    assert page.sha256 == hashlib.sha256(page.jpeg).hexdigest()
    with Image.open(io.BytesIO(page.jpeg)) as image:
        assert image.format == "JPEG"
        assert image.size == (page.width, page.height)
    assert (page.width, page.height) == (1241, 1754)  # A4 at 150 dpi, rounded up
    assert page.rotation == 0
    assert 0.0005 < page.ink < 0.01
    assert page.text_layer.strip() == "Grüße aus Köln"
    assert page.renderer == library


def test_pages_come_in_order_and_one_for_each(renderer: Renderer, pdf: Path, geometry: Geometry) -> None:
    pdfs.book(pdf, [[f"page {number}"] for number in range(1, 13)])
    pages = render(renderer, pdf, 3, 11, geometry)
    assert [(page.number, page.text_layer.strip()) for page in pages] == [(n, f"page {n}") for n in range(3, 12)]


def test_the_same_page_has_the_same_bytes_whatever_was_asked_with_it(
    renderer: Renderer, fresh_renderer: Renderer, pdf: Path, geometry: Geometry
) -> None:
    pdfs.book(pdf, [[f"page {number}"] for number in range(1, 7)])
    together = render(renderer, pdf, 1, 6, geometry)
    alone = [render(fresh_renderer, pdf, number, number, geometry)[0] for number in range(1, 7)]
    assert together == alone


@pytest.mark.parametrize(
    ("rotation", "corner"), [(0, "top left"), (90, "top right"), (180, "bottom right"), (270, "bottom left")]
)
def test_a_turned_page_is_upright_in_its_image(
    renderer: Renderer, pdf: Path, geometry: Geometry, rotation: int, corner: str
) -> None:
    entry = b"/MediaBox[0 0 300 400]/Rotate %d" % rotation
    pdf.write_bytes(pdfs.pages([entry], [pdfs.corner(300, 400)]))
    [page] = render(renderer, pdf, 1, 1, geometry)
    assert page.rotation == rotation
    assert (page.width, page.height) == ((834, 625) if rotation in (90, 270) else (625, 834))
    assert black_corner(page) == corner


def test_what_is_cropped_is_not_in_the_image(renderer: Renderer, pdf: Path, geometry: Geometry) -> None:
    # Of the page's left half, whose top left corner is black, only the lower part is shown; then only the upper one.
    entries = [b"/MediaBox[0 0 300 400]/CropBox[0 0 150 200]", b"/MediaBox[0 0 300 400]/CropBox[0 200 150 400]"]
    pdf.write_bytes(pdfs.pages(entries, [pdfs.corner(300, 400)] * 2))
    lower, upper = render(renderer, pdf, 1, 2, geometry)
    assert (lower.width, lower.height) == (upper.width, upper.height) == (313, 417)
    assert lower.ink < BLANK_INK
    assert black_corner(upper) == "top left"


@pytest.mark.parametrize("packed", [False, True])
def test_the_unit_of_a_page_is_honoured(renderer: Renderer, pdf: Path, geometry: Geometry, packed: bool) -> None:
    """8.5 x 11 inches in a unit of a tenth of an inch; in a file whose dictionaries are compressed, too."""
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 85 110]/UserUnit 7.2/Contents 4 0 R>>"
    content = pdfs.corner(85, 110)
    pdf.write_bytes(with_packed_page(page, content) if packed else pdfs.raw([*CATALOG, page, content]))
    [image] = render(renderer, pdf, 1, 1, geometry)
    assert (image.width, image.height) == (1275, 1650)
    assert black_corner(image) == "top left"


CATALOG = [b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[3 0 R]/Count 1>>"]


def with_packed_page(page: bytes, content: bytes) -> bytes:
    """A PDF whose page object 3 stands in an object stream (object 5), behind a compressed cross reference."""
    out, at = b"%PDF-1.7\n", {}
    inner = b"3 0 " + page
    bodies = {
        1: CATALOG[0],
        2: CATALOG[1],
        4: content,
        5: pdfs.stream(inner, b"/Type/ObjStm/N 1/First 4", compress=True),
    }
    for number, body in bodies.items():
        at[number] = len(out)
        out += b"%d 0 obj\n" % number + body + b"\nendobj\n"
    at[6] = len(out)
    rows = [(0, 0, 65535), (1, at[1], 0), (1, at[2], 0), (2, 5, 0), (1, at[4], 0), (1, at[5], 0), (1, at[6], 0)]
    table = b"".join(kind.to_bytes(1) + where.to_bytes(4) + more.to_bytes(2) for kind, where, more in rows)
    entries = b"/Type/XRef/Size 7/W[1 4 2]/Root 1 0 R"
    return out + b"6 0 obj\n" + pdfs.stream(table, entries) + b"\nendobj\nstartxref\n%d\n%%%%EOF\n" % at[6]


def test_pages_of_many_sizes_all_come_within_the_caps(renderer: Renderer, library: str, pdf: Path) -> None:
    chance = random.Random(7)
    entries = []
    for number in range(12):
        width, height = chance.uniform(20, 7000), chance.uniform(20, 7000)
        entry = b"/MediaBox[0 0 %.3f %.3f]/Rotate %d" % (width, height, chance.choice([0, 90, 180, 270]))
        if number % 3 == 0:
            entry += b"/CropBox[%.3f %.3f %.3f %.3f]" % (width * 0.1, height * 0.2, width * 0.8, height * 0.9)
        entries.append(entry)
    pdf.write_bytes(pdfs.pages(entries, [pdfs.stream(b"0 g 0 0 9000 2000 re f")] * len(entries)))
    for page in render(renderer, pdf, 1, 12, Geometry(dpi=100, max_long_side=400, max_short_side=300)):
        assert max(page.width, page.height) <= 400
        assert min(page.width, page.height) <= 300
        assert page.renderer == library  # they agree on every size


def test_a_page_of_five_metres_is_skipped_and_its_neighbours_are_drawn(
    renderer: Renderer, pdf: Path, geometry: Geometry
) -> None:
    metres = 5 / 0.0254 * 72
    huge = b"/MediaBox[0 0 %.1f %.1f]/Rotate 90" % (metres, metres)
    pdf.write_bytes(pdfs.pages([pdfs.TEXT_PAGE, huge, pdfs.TEXT_PAGE], [pdfs.TEXT] * 3))
    before, page, after = renderer.render(pdf, 1, 3, geometry)
    assert isinstance(before, RenderedPage)
    assert isinstance(after, RenderedPage)
    assert isinstance(page, PageFault)
    assert (page.number, page.reason, page.status) == (2, Reason.PAGE_TOO_LARGE, PageStatus.SKIPPED)
    assert page.rotation == 90
    assert "196.9 x 196.9 inches" in page.detail


def test_a_page_without_anything_on_it_is_blank(renderer: Renderer, pdf: Path, geometry: Geometry) -> None:
    pdf.write_bytes(pdfs.pages([b"/MediaBox[0 0 595 842]"], [pdfs.stream(b"")]))
    [page] = render(renderer, pdf, 1, 1, geometry)
    assert page.ink == 0.0
    assert page.text_layer == ""


def scan(image: Image.Image, whole: bool) -> bytes:
    """A PDF of one page that is one JPEG image, whole or cut off after its first bytes."""
    out = io.BytesIO()
    image.save(out, "JPEG")
    data = out.getvalue() if whole else out.getvalue()[:300]
    entries = b"/Type/XObject/Subtype/Image/Width %d/Height %d/BitsPerComponent 8/ColorSpace/DeviceRGB" % image.size
    page = b"/MediaBox[0 0 595 842]/Resources<</XObject<</I 5 0 R>>>>"
    show = pdfs.stream(b"q 595 0 0 842 0 0 cm /I Do Q")
    return pdfs.pages([page], [show], [pdfs.stream(data, entries + b"/Filter/DCTDecode")])


def test_a_scan_of_an_empty_sheet_is_blank(renderer: Renderer, pdf: Path, geometry: Geometry) -> None:
    pdf.write_bytes(scan(Image.new("RGB", (800, 1100), "white"), whole=True))
    [page] = render(renderer, pdf, 1, 1, geometry)
    assert page.ink < BLANK_INK


def test_a_scan_that_cannot_be_decoded_is_a_fault_and_no_blank_page(
    renderer: Renderer, pdf: Path, geometry: Geometry
) -> None:
    """Both libraries draw an empty page of it without a word."""
    pdf.write_bytes(scan(Image.new("RGB", (800, 1100), "red"), whole=False))
    [page] = renderer.render(pdf, 1, 1, geometry)
    assert isinstance(page, PageFault)
    assert page.reason is Reason.RENDER_FAILED
    assert "cannot be decoded" in page.detail


def test_fields_of_a_form_are_drawn(renderer: Renderer, pdf: Path, geometry: Geometry) -> None:
    def draw(canvas: object) -> None:
        canvas.acroForm.textfield(value="filled in", x=100, y=600, width=200, height=30, forceBorder=True)  # type: ignore[attr-defined]

    pdfs.drawn(pdf, draw)
    [page] = render(renderer, pdf, 1, 1, geometry)
    assert page.ink > 0.0005


def test_text_that_poppler_leaves_out_without_an_error_is_drawn_by_pdfium(
    with_poppler: Renderer, pdf: Path, geometry: Geometry
) -> None:
    """A font that the page does not define: poppler's image is white, and would be taken for a blank page."""
    pdf.write_bytes(pdfs.pages([b"/MediaBox[0 0 300 400]"], [pdfs.TEXT]))
    [page] = render(with_poppler, pdf, 1, 1, geometry)
    assert page.renderer == "pdfium"
    assert page.ink > BLANK_INK


def test_a_file_that_only_pdfium_can_open_is_not_damaged(with_poppler: Renderer, pdf: Path, geometry: Geometry) -> None:
    pdf.write_bytes(pdfs.pages([pdfs.TEXT_PAGE] * 2, [pdfs.TEXT] * 2, count=0))
    assert with_poppler.inspect(pdf).page_count == 2
    assert [page.renderer for page in render(with_poppler, pdf, 1, 2, geometry)] == ["pdfium", "pdfium"]


def test_pages_can_be_rendered_without_inspecting_first(
    fresh_renderer: Renderer, pdf: Path, geometry: Geometry
) -> None:
    pdf.write_bytes(pdfs.pages([pdfs.TEXT_PAGE] * 2, [pdfs.TEXT] * 2, count=0))
    assert len(render(fresh_renderer, pdf, 1, 2, geometry)) == 2


def test_a_page_that_is_not_there_is_a_fault_and_not_an_error(
    renderer: Renderer, pdf: Path, geometry: Geometry
) -> None:
    pdf.write_bytes(pdfs.pages([pdfs.TEXT_PAGE], [pdfs.TEXT]))
    there, missing = renderer.render(pdf, 1, 2, geometry)
    assert isinstance(there, RenderedPage)
    assert isinstance(missing, PageFault)
    assert (missing.reason, missing.status) == (Reason.RENDER_FAILED, PageStatus.FAILED)


def test_poppler_is_asked_once_about_a_file_and_once_for_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, geometry: Geometry
) -> None:
    if not poppler_installed():
        pytest.skip("poppler is not installed here")
    log = tmp_path / "log"
    for program in ("pdfinfo", "pdftoppm"):
        wrapper = tmp_path / "bin" / program
        wrapper.parent.mkdir(exist_ok=True)
        wrapper.write_text(f'#!/bin/sh\necho "{program} $1" >> {log}\nexec {shutil.which(program)} "$@"\n')
        wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    path = pdfs.book(tmp_path / "book.pdf", [[f"page {number}"] for number in range(6)])
    with Renderer(RenderLimits()) as renderer:
        renderer.inspect(path)
        pages = [*renderer.render(path, 1, 3, geometry), *renderer.render(path, 4, 6, geometry)]
        assert [page.number for page in pages if isinstance(page, RenderedPage)] == [1, 2, 3, 4, 5, 6]
        calls = log.read_text().splitlines()
        assert sorted(call.split()[0] for call in calls if "-v" not in call) == ["pdfinfo", "pdftoppm", "pdftoppm"]
        assert len(calls) == 4
        pdfs.book(path, [["another file"]])
        assert renderer.inspect(path).page_count == 1
