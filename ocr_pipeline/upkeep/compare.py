"""Two recipes side by side, page by page, from their transcripts in the lake.

The tables hold one text a page; transcripts of old recipes stay in the lake, and each knows which page asked for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

from ocr_pipeline.lake import keys, transcripts
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.ocr.parsing.parse import parse
from ocr_pipeline.records import Page, PageStatus, Transcript
from ocr_pipeline.warehouse.compare import Comparison, compare


def recipes(lake: Storage) -> dict[str, int]:
    """The recipes that have transcripts, with how many."""
    found: dict[str, int] = {}
    for info in lake.list(keys.TRANSCRIPTS):
        recipe = info.key.removeprefix(keys.TRANSCRIPTS).split("/", 1)[0]
        found[recipe] = found.get(recipe, 0) + 1
    return found


def compare_recipes(lake: Storage, recipe_a: str, recipe_b: str) -> Comparison:
    """What changed between two recipes on the pages that both have read."""
    return compare(_pages(lake, recipe_a), _pages(lake, recipe_b))


def _pages(lake: Storage, recipe_id: str) -> Iterator[Page]:
    newest: dict[tuple[str, int], Transcript] = {}
    for transcript in transcripts.load(lake, recipe_id):
        for place in {(attempt.document_id, attempt.page_number) for attempt in transcript.attempts}:
            known = newest.get(place)
            if known is None or known.finished_at < transcript.finished_at:
                newest[place] = transcript
    for (document_id, number), transcript in newest.items():
        yield _page(document_id, number, transcript)


def _page(document_id: str, number: int, transcript: Transcript) -> Page:
    return Page(
        document_id=document_id,
        page_number=number,
        status=transcript.status,
        reason=transcript.reason,
        detail=transcript.detail,
        markdown=parse(transcript).markdown if transcript.status is PageStatus.OK else "",
        engine=transcript.engine,
        backend=transcript.backend,
        model=transcript.model,
        attempts=len(transcript.attempts),
        prompt_tokens=transcript.prompt_tokens,
        completion_tokens=transcript.completion_tokens,
        seconds=transcript.seconds,
        finish_reason=transcript.finish_reason,
        quality=transcript.quality,
        agreement=transcript.agreement,
        width=transcript.width,
        height=transcript.height,
        rotation=0,
        image_uri=None,
        image_sha256=transcript.image_sha256,
        recipe_id=transcript.recipe_id,
        batch="",
        ingest_date=date.min,
        processed_at=transcript.finished_at,
    )
