"""A PDF's own text as the text of a page: only where it is all of the page, and never as markup."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageFont
from reportlab.lib.pagesizes import A4
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas

from ocr_pipeline.flow import document_stream, rendered
from ocr_pipeline.flow.batch_run import StreamOptions
from ocr_pipeline.flow.reading import PageReading, Reading
from ocr_pipeline.flow.rendered import RenderedDocument, RenderedPage
from ocr_pipeline.flow.service import OcrService
from ocr_pipeline.lake import keys, planner
from ocr_pipeline.lake.opening import open_storage
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.records import Batch, DocumentResult, PageStatus, ParsedPage, Reason, Upload
from ocr_pipeline_tests.flow.doubles import ScriptedTranscriber
from ocr_pipeline_tests.flow.rows import assembled, rows
from ocr_pipeline_tests.pdfs import numbered, pdf

Read = Callable[[str, ScriptedTranscriber, bytes], DocumentResult]


@pytest.fixture
def lake(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "lake"))


@pytest.fixture
def read(lake: Storage) -> Iterator[Read]:
    """Takes one PDF through the stream, with the text layer used as said."""
    open_services: list[OcrService] = []

    def read(text_layer: str, transcriber: ScriptedTranscriber, data: bytes) -> DocumentResult:
        service = OcrService(lake, lambda: transcriber, StreamOptions(render_workers=1, text_layer=text_layer))
        open_services.append(service)
        lake.write("inbox/a.pdf", data)
        info = lake.stat("inbox/a.pdf")
        assert info is not None
        batch = planner.plan([info.as_upload()], set(), planner.BatchLimits()).batches[0]
        service.run(batch)
        return rows(lake, batch)[0]

    yield read
    for service in open_services:
        service.close()


def stamped_scan() -> bytes:
    """A letter as a picture, with the one line of text that a scanner's app leaves on it."""
    picture = Image.new("L", (1240, 1754), 255)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(22)
    for line in range(50):
        draw.text((100, 100 + 30 * line), f"Line {line} of the contract is worth 4,000 EUR to one party", 0, font)
    out = io.BytesIO()
    canvas = Canvas(out, pagesize=A4, invariant=1)
    canvas.drawImage(ImageReader(picture), 0, 0, *A4)
    canvas.setFont("Helvetica", 8)
    canvas.drawString(20, 10, "Scanned with CamScanner, the app for all of your documents")
    canvas.save()
    return out.getvalue()


def test_a_scanners_stamp_is_no_fallback_for_the_page_it_stands_on(read: Read) -> None:
    result = read("fallback", ScriptedTranscriber(lambda image: Reason.EMPTY_TEXT), stamped_scan())
    (page,) = result.pages
    assert (page.status, page.reason, page.markdown) == (PageStatus.FAILED, Reason.EMPTY_TEXT, "")
    assert result.document.status == "failed"


def test_preferred_a_sound_layer_costs_no_request_and_a_stamped_scan_is_read(read: Read) -> None:
    transcriber = ScriptedTranscriber(lambda image: "what stands on the scan")
    sound = read("prefer", transcriber, numbered(3))
    assert transcriber.asked.total() == 0
    assert {(page.status, page.engine) for page in sound.pages} == {(PageStatus.OK, "text_layer")}
    assert sound.pages[1].markdown == "This is page 2 of document.\nIt has two lines of text."
    (page,) = read("prefer", transcriber, stamped_scan()).pages
    assert transcriber.asked.total() == 1
    assert (page.status, page.markdown) == (PageStatus.OK, "what stands on the scan")


def of_layer(layer: str) -> ParsedPage:
    """What a page becomes whose text is this layer."""
    upload = Upload("inbox/a.pdf", "e", 1, datetime(2026, 1, 1, tzinfo=UTC))
    page = RenderedPage(
        number=1, rotation=0, image_key="k", image_sha256="s", width=800, height=1100, ink=0.1, text_layer=layer
    )
    document = RenderedDocument(
        upload=upload, document_id="d", rendered_at=upload.last_modified, page_count=1, pages=(page,)
    )
    reading = Reading(document_id="d", recipe_id="r", pages=(PageReading(number=1, layer=layer),))
    made = assembled(Batch("b", (upload,)), document, reading)
    return ParsedPage(made.pages[0].markdown, tuple(row.region for row in made.regions))


@pytest.mark.parametrize(
    ("layer", "markdown"),
    [
        ("# no heading", "\\# no heading"),
        ("1986. A great year", "1986\\. A great year"),
        ("<script>alert(1)</script>", "\\<script>alert(1)\\</script>"),
        ("![beacon](http://x.example/b.png)", "![beacon]\\(http://x.example/b.png)"),
        ("![shown](figure:3)", "![shown]\\(figure:3)"),
        ("| a | b |\n| --- | --- |", "\\| a | b |\n\\| --- | --- |"),
    ],
)
def test_a_layers_words_stand_in_the_markdown_as_words(layer: str, markdown: str) -> None:
    assert of_layer(layer).markdown == markdown


def test_no_layer_is_kept_of_blank_pages_nor_beyond_a_documents_share(
    lake: Storage, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, hidden, third = "the words of the first page", "words in white ink", "the words of the third page"
    out = io.BytesIO()
    canvas = Canvas(out, pagesize=A4, invariant=1)
    for text, grey in ((first, 0), (hidden, 1), (third, 0)):
        canvas.setFillGray(grey)
        canvas.drawString(72, 700, text)
        canvas.showPage()
    canvas.save()
    monkeypatch.setattr(document_stream, "LAYER_CHARACTERS", len(first) + 5)
    result = read("fallback", ScriptedTranscriber(lambda image: "read"), out.getvalue())
    assert [page.status for page in result.pages] == ["ok", "blank", "ok"]
    kept = rendered.read(lake, result.document.batch, keys.document_id("inbox/a.pdf"))
    assert kept is not None
    assert [page.text_layer.strip() for page in kept.pages] == [first, "", ""]


def test_the_layer_of_a_short_page_is_its_fallback_where_it_is_all_of_the_page(read: Read) -> None:
    result = read("fallback", ScriptedTranscriber(lambda image: Reason.REPETITION), pdf(["one two three\n" * 4]))
    assert [(page.status, page.reason) for page in result.pages] == [(PageStatus.FALLBACK, Reason.REPETITION)]
