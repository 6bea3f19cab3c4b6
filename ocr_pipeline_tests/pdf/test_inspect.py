"""What a file is before a page of it is drawn. Each test runs with poppler and without."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from reportlab.lib.pdfencrypt import StandardEncryption

from ocr_pipeline.pdf.renderer import PdfError, PdfInfo, RenderedPage, Renderer, RenderLimits
from ocr_pipeline.records import Geometry, Reason

from . import pdfs


def reason(renderer: Renderer, path: Path) -> Reason:
    with pytest.raises(PdfError) as caught:
        renderer.inspect(path)
    assert caught.value.detail
    assert str(path.parent) not in caught.value.detail
    return caught.value.reason


def test_pages_and_title_of_a_sound_file_are_told(renderer: Renderer, pdf: Path) -> None:
    pdfs.book(pdf, [["one"], ["two"], ["three"]], title="Überschrift – 第一章")
    assert renderer.inspect(pdf) == PdfInfo(3, "Überschrift – 第一章")


def test_a_file_without_title_has_none(renderer: Renderer, pdf: Path) -> None:
    pdf.write_bytes(pdfs.pages([pdfs.TEXT_PAGE], [pdfs.TEXT]))
    assert renderer.inspect(pdf).title is None


def test_a_title_is_one_line_of_at_most_500_printable_characters(renderer: Renderer, pdf: Path) -> None:
    title = b"/Title(A\\000\\033[31mB\\nPages: 99\\n" + b"x" * 2000 + b")"
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R" + pdfs.TEXT_PAGE + b"/Contents 4 0 R>>",
        pdfs.TEXT,
        b"<<" + title + b">>",
    ]
    pdf.write_bytes(pdfs.raw(objects, trailer=b"/Info 5 0 R"))
    info = renderer.inspect(pdf)
    assert info.page_count == 1
    assert info.title is not None
    assert info.title.isprintable()
    assert len(info.title) == 500


def test_a_file_of_no_bytes_is_empty(renderer: Renderer, pdf: Path) -> None:
    pdf.write_bytes(b"")
    assert reason(renderer, pdf) is Reason.EMPTY_FILE


@pytest.mark.parametrize("content", [b"PK\x03\x04 a zip", b"\xff\xd8\xff\xe0 a jpeg", b"x" * 1020 + b"%PDF-1.7"])
def test_what_does_not_say_pdf_in_its_first_kilobyte_is_none(renderer: Renderer, pdf: Path, content: bytes) -> None:
    pdf.write_bytes(content)
    assert reason(renderer, pdf) is Reason.NOT_A_PDF


def test_a_pdf_behind_other_bytes_or_under_another_name_is_one(renderer: Renderer, tmp_path: Path) -> None:
    file = tmp_path / "letter.docx"
    file.write_bytes(b"\n" * 1000 + pdfs.pages([pdfs.TEXT_PAGE], [pdfs.TEXT]))
    assert renderer.inspect(file).page_count == 1


def test_garbage_behind_a_header_is_damaged(renderer: Renderer, pdf: Path) -> None:
    pdf.write_bytes(b"%PDF-1.4\n" + bytes(range(256)) * 200)
    assert reason(renderer, pdf) is Reason.DAMAGED


def test_a_file_cut_off_before_its_page_tree_is_damaged(renderer: Renderer, pdf: Path) -> None:
    pdfs.book(pdf, [["a page"]] * 20)
    pdf.write_bytes(pdf.read_bytes()[:3000])
    assert reason(renderer, pdf) is Reason.DAMAGED


def test_a_file_that_lost_only_its_end_is_repaired(renderer: Renderer, pdf: Path) -> None:
    pdf.write_bytes(pdfs.pages([pdfs.TEXT_PAGE], [pdfs.TEXT]).partition(b"startxref")[0])
    assert renderer.inspect(pdf).page_count == 1


def test_a_pdf_without_pages_says_so(renderer: Renderer, pdf: Path) -> None:
    pdf.write_bytes(b"%PDF-1.4\n not really")
    assert reason(renderer, pdf) is Reason.DAMAGED  # PDFium must not remember this as the reason of the next file
    pdf.write_bytes(pdfs.pages([], []))
    assert reason(renderer, pdf) is Reason.NO_PAGES


@pytest.mark.parametrize("strength", [40, 128])
def test_a_file_that_needs_a_password_is_encrypted(renderer: Renderer, pdf: Path, strength: int) -> None:
    pdfs.book(pdf, [["secret"]], encrypt=StandardEncryption("user", "owner", strength=strength))
    assert reason(renderer, pdf) is Reason.ENCRYPTED


@pytest.mark.parametrize("strength", [40, 128])
def test_a_file_encrypted_with_an_empty_password_opens(
    renderer: Renderer, pdf: Path, geometry: Geometry, strength: int
) -> None:
    pdfs.book(pdf, [["not so secret"]], encrypt=StandardEncryption("", "owner", canPrint=0, strength=strength))
    assert renderer.inspect(pdf).page_count == 1
    [page] = renderer.render(pdf, 1, 1, geometry)
    assert isinstance(page, RenderedPage)
    assert page.text_layer.strip() == "not so secret"
    assert page.ink > 0


def test_an_unknown_encryption_is_encryption(renderer: Renderer, pdf: Path) -> None:
    whole = pdfs.pages([pdfs.TEXT_PAGE], [pdfs.TEXT])
    pdf.write_bytes(whole.replace(b"/Root 1 0 R", b"/Root 1 0 R/Encrypt<</Filter/Secret/V 9>>"))
    assert reason(renderer, pdf) is Reason.ENCRYPTED


def test_more_pages_than_allowed_are_refused(pdf: Path) -> None:
    pdfs.book(pdf, [["a page"]] * 12)
    with Renderer(RenderLimits(max_pages=11)) as renderer:
        assert reason(renderer, pdf) is Reason.TOO_MANY_PAGES
    with Renderer(RenderLimits(max_pages=12)) as renderer:
        assert renderer.inspect(pdf).page_count == 12


@pytest.mark.parametrize("said", [0, 1000])
def test_a_file_that_lies_about_its_page_count_is_counted(renderer: Renderer, pdf: Path, said: int) -> None:
    pdf.write_bytes(pdfs.pages([pdfs.TEXT_PAGE] * 3, [pdfs.TEXT] * 3, count=said))
    assert renderer.inspect(pdf).page_count == 3


@pytest.mark.parametrize("name", ["-r 1.pdf", "a\nb;$(id).pdf", "ä 'quoted\".pdf", os.fsdecode(b"not utf-8 \xff.pdf")])
def test_no_file_name_is_taken_for_anything_else(
    renderer: Renderer, tmp_path: Path, geometry: Geometry, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path(name)
    file.write_bytes(pdfs.pages([pdfs.TEXT_PAGE], [pdfs.TEXT]))
    assert renderer.inspect(file).page_count == 1
    [page] = renderer.render(file, 1, 1, geometry)
    assert isinstance(page, RenderedPage)
    assert page.text_layer.strip() == "Some words"


def test_a_file_that_is_not_there_is_the_caller_s_fault(renderer: Renderer, pdf: Path, geometry: Geometry) -> None:
    with pytest.raises(FileNotFoundError):
        renderer.inspect(pdf)
    with pytest.raises(FileNotFoundError):
        renderer.render(pdf, 1, 1, geometry)


def test_a_file_replaced_under_its_name_is_read_anew(renderer: Renderer, pdf: Path, geometry: Geometry) -> None:
    pdfs.book(pdf, [["before"]])
    assert renderer.inspect(pdf).page_count == 1
    pdfs.book(pdf, [["after"], ["and more"]])
    assert renderer.inspect(pdf).page_count == 2
    pages = renderer.render(pdf, 1, 2, geometry)
    assert [page.text_layer.strip() for page in pages if isinstance(page, RenderedPage)] == ["after", "and more"]
