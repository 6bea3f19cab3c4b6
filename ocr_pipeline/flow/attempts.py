"""Which requests were sent for a page of a document: each one is a row of `attempts`, whichever answer the page shows.

A reading carries the requests of its own transcript and those of the readings that it has replaced. Without the latter
a request would be lost if its reading was replaced (by another run's answer, or another recipe's) before it was
published.
"""

from __future__ import annotations

from dataclasses import replace

from ocr_pipeline.flow.reading import PageReading, Reading
from ocr_pipeline.records import PageAttempt


def of_transcript(page: PageReading, document_id: str) -> list[PageAttempt]:
    """The requests of the page's transcript. Those that another page with the same image sent are rows of that page."""
    if page.transcript is None:
        return []
    own = (document_id, page.number)
    asked = page.transcript.attempts
    return [PageAttempt(page.transcript.recipe_id, a) for a in asked if (a.document_id, a.page_number) == own]


def sent(page: PageReading, document_id: str) -> list[PageAttempt]:
    """Every request that was sent for the page, each once: a transcript repeats the requests of earlier ones."""
    return list(dict.fromkeys([*of_transcript(page, document_id), *page.replaced]))


def with_earlier(reading: Reading, earlier: Reading | None) -> Reading:
    """The reading, with the requests of the earlier reading that it replaces added."""
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
