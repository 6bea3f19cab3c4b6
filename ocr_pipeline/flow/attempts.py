"""Which requests were sent for a page of one document: each is a row of `attempts`, whichever answer the page shows.

A reading names those of its own transcript, and those of the readings whose place it has taken. Without the latter, a
request would have no row where a run takes another one's answer, or another recipe's, before its own was published.
"""

from __future__ import annotations

from dataclasses import replace

from ocr_pipeline.flow.reading import PageReading, Reading
from ocr_pipeline.records import PageAttempt


def of_transcript(page: PageReading, document_id: str) -> list[PageAttempt]:
    """The requests that the page's transcript took; those of another page with the same image are that page's rows."""
    if page.transcript is None:
        return []
    own = (document_id, page.number)
    asked = page.transcript.attempts
    return [PageAttempt(page.transcript.recipe_id, a) for a in asked if (a.document_id, a.page_number) == own]


def sent(page: PageReading, document_id: str) -> list[PageAttempt]:
    """Every request that was sent for the page, once: transcripts repeat those of the ones before them."""
    return list(dict.fromkeys([*of_transcript(page, document_id), *page.replaced]))


def with_earlier(reading: Reading, earlier: Reading | None) -> Reading:
    """The reading with the requests of the one whose place it takes."""
    if earlier is None:
        return reading
    pages = {page.number: page for page in reading.pages}
    for before in earlier.pages:
        page = pages.get(before.number, PageReading(number=before.number))
        known = sent(page, reading.document_id)
        lost = [request for request in sent(before, reading.document_id) if request not in known]
        if lost:
            pages[before.number] = replace(page, replaced=(*page.replaced, *lost))
    return replace(reading, pages=tuple(pages[number] for number in sorted(pages)))
