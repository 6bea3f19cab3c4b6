"""Two recipes side by side, page by page, from their transcripts in the lake.

The tables hold one text a page; transcripts of old recipes stay in the lake, and each knows which page asked for it.
Pages with the same image share one transcript: those that did not ask are known by what is published.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date

from ocr_pipeline.lake import keys, transcripts
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.ocr.parsing.parse import parse
from ocr_pipeline.records import Page, PageStatus, Transcript
from ocr_pipeline.upkeep.comparison import Comparison, compare
from ocr_pipeline.upkeep.published import columns, manifests

_Place = tuple[str, int]  # document, page number


def recipes(lake: Storage) -> dict[str, int]:
    """The recipes that have transcripts, with how many."""
    found: dict[str, int] = {}
    for info in lake.list(keys.TRANSCRIPTS):
        recipe = info.key.removeprefix(keys.TRANSCRIPTS).split("/", 1)[0]
        found[recipe] = found.get(recipe, 0) + 1
    return found


def compare_recipes(lake: Storage, recipe_a: str, recipe_b: str) -> Comparison:
    """What changed between two recipes on the pages that both have read."""
    published = _published(lake)
    return compare(_pages(lake, recipe_a, published), _pages(lake, recipe_b, published))


def _published(lake: Storage) -> dict[str, set[_Place]]:
    """The pages of each image, by its SHA-256."""
    found: dict[str, set[_Place]] = {}
    for manifest in manifests(lake):
        pages = columns(lake, manifest, "pages", "image_sha256", "document_id", "page_number")
        if pages is not None:
            for image, *place in zip(*(pages[name].to_pylist() for name in pages.column_names), strict=True):
                if image is not None:
                    found.setdefault(image, set()).add((place[0], place[1]))
    return found


def _pages(lake: Storage, recipe_id: str, published: Mapping[str, set[_Place]]) -> Iterator[Page]:
    """The newest transcript of each page: those that asked, then those with the same image. Of a recipe that is no
    longer published the images are known no more; pages that are alike now were alike then."""
    alike = {place: places for places in published.values() if len(places) > 1 for place in places}
    asked: dict[_Place, Transcript] = {}
    used: dict[_Place, Transcript] = {}
    for transcript in transcripts.load(lake, recipe_id):
        places = {(attempt.document_id, attempt.page_number) for attempt in transcript.attempts}
        for place in places:
            _keep_newest(asked, place, transcript)
        others = published.get(transcript.image_sha256, set()).union(*(alike.get(place, set()) for place in places))
        for place in others - places:
            _keep_newest(used, place, transcript)
    for (document_id, number), transcript in {**used, **asked}.items():
        yield _page(document_id, number, transcript)


def _keep_newest(found: dict[_Place, Transcript], place: _Place, transcript: Transcript) -> None:
    known = found.get(place)
    if known is None or known.finished_at < transcript.finished_at:
        found[place] = transcript


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
