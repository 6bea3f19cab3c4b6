"""The ledger, whatever becomes of the pages: as many rows as the PDF has pages, each with one status."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from ocr_pipeline import checks
from ocr_pipeline.commands.summary import summarise
from ocr_pipeline.flow import documents
from ocr_pipeline.flow.reading import PageReading, Reading
from ocr_pipeline.flow.rendered import RenderedDocument, RenderedPage
from ocr_pipeline.lake import keys
from ocr_pipeline.records import Batch, DocumentStatus, PageStatus, Reason, Transcript, Upload
from ocr_pipeline_tests.flow.rows import assembled

NOW = datetime(2026, 1, 1, tzinfo=UTC)
UPLOAD = Upload("inbox/a.pdf", "e", 1, NOW)
DOCUMENT = keys.document_id(UPLOAD.key)
SHA = "s"

reasons = st.sampled_from(list(Reason))


@st.composite
def outcomes(draw: st.DrawFn, number: int) -> tuple[RenderedPage, PageReading | None]:
    """A page as rendering and OCR may leave it: drawn or not, read or not, of this image or an older one."""
    drawn = draw(st.sampled_from([None, PageStatus.BLANK, PageStatus.FAILED, PageStatus.SKIPPED]))
    page = RenderedPage(
        number=number,
        rotation=0,
        status=drawn,
        reason=draw(reasons) if drawn in (PageStatus.FAILED, PageStatus.SKIPPED) else None,
        image_sha256=SHA,
        width=100,
        height=100,
        ink=draw(st.sampled_from([0.0, 1e-4, 0.1])),
    )
    status = draw(st.sampled_from([None, PageStatus.OK, PageStatus.FAILED]))
    transcript = (
        None
        if status is None
        else Transcript(
            recipe_id="r",
            image_sha256=draw(st.sampled_from([SHA, "another image"])),
            status=status,
            reason=draw(reasons) if status is PageStatus.FAILED else None,
            text="words" if status is PageStatus.OK else "",
            format="markdown",
            engine="e",
            backend="b",
            model="m",
            width=100,
            height=100,
            finished_at=NOW + timedelta(seconds=number),
        )
    )
    layer = draw(st.sampled_from([None, "the layer"]))
    reason = draw(reasons) if transcript is None and layer is None else None
    read = PageReading(number=number, transcript=transcript, layer=layer, reason=reason)
    return page, draw(st.sampled_from([read, read, None]))


@st.composite
def made(draw: st.DrawFn) -> tuple[RenderedDocument, Reading | None]:
    count = draw(st.integers(1, 12))
    pages = [draw(outcomes(number)) for number in range(1, count + 1)]
    document = RenderedDocument(
        upload=UPLOAD, document_id=DOCUMENT, rendered_at=NOW, page_count=count, pages=tuple(page for page, _ in pages)
    )
    reading = Reading(document_id=DOCUMENT, recipe_id="r", pages=tuple(read for _, read in pages if read))
    return document, draw(st.sampled_from([reading, reading, None]))


@given(made())
def test_any_mix_of_outcomes_gives_each_page_one_row_and_the_sums_agree(
    document: tuple[RenderedDocument, Reading | None],
) -> None:
    drawn, reading = document
    batch = Batch("b", (UPLOAD,))
    result = assembled(batch, drawn, reading)
    assert [page.page_number for page in result.pages] == list(range(1, drawn.page_count + 1))
    assert Counter(page.status for page in result.pages).total() == drawn.page_count == result.document.page_count
    assert checks.imbalances(batch, [result]) == []
    bad = [page for page in result.pages if page.status.is_bad]
    assert all(page.reason for page in bad)
    assert not any(page.markdown for page in bad)
    ended = {0: DocumentStatus.OK, drawn.page_count: DocumentStatus.FAILED}.get(len(bad), DocumentStatus.PARTIAL)
    assert result.document.status is ended
    told = summarise([result], ["b"], 0.0)
    assert (told.pages, len(told.failed)) == (drawn.page_count, len(bad))
    assert documents.page_markdown(result.pages[-1]).startswith(f"<!-- page {drawn.page_count}")
