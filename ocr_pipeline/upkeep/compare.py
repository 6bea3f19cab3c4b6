"""What changed between two recipes, page by page, from their transcripts in the lake.

The tables hold one text a page; transcripts of old recipes stay in the lake, and each knows which page asked for it.
Pages with the same image share one transcript: those that did not ask are known by what is published.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from ocr_pipeline.lake import batches, keys, transcripts
from ocr_pipeline.lake.storage import Storage, Tell
from ocr_pipeline.ocr.parsing.parse import parse
from ocr_pipeline.records import PageStatus, Reason, Transcript
from ocr_pipeline.upkeep.published import of_each, readable_columns

Place = tuple[str, int]
"""A page: document id and page number."""


@dataclass(frozen=True, slots=True)
class PageSide:
    """One page under one recipe."""

    status: PageStatus
    reason: Reason | None
    quality: float | None
    agreement: float | None
    seconds: float | None
    text: str = field(repr=False)  # markdown

    @property
    def length(self) -> int:
        return len(self.text)


@dataclass(frozen=True, slots=True)
class PageDifference:
    """One page under both. A side is None where it has no such page."""

    document_id: str
    key: str | None  # the upload's; None where no batch list names the document any more
    page_number: int
    a: PageSide | None
    b: PageSide | None
    overlap: float | None
    """Share of words the two texts have in common, 0 to 1 (Dice over words with their counts; 1: the same words).
    None unless both sides have a text. Linear in the text's length, so a page of a megabyte does no harm."""
    same: bool  # the same status, reason and text


@dataclass(frozen=True, slots=True)
class Comparison:
    """All pages of both sides, sorted by document and page, and the sums."""

    pages: tuple[PageDifference, ...]
    compared: int  # pages on both sides
    same: int
    only_a: int
    only_b: int
    mended: int  # failed under a, not under b
    broken: int  # the other way round
    mean_agreement_a: float | None  # over pages that have one on both sides
    mean_agreement_b: float | None
    length_a: int  # characters, over pages on both sides
    length_b: int
    unread: tuple[str, ...] = ()  # what could not be looked into and is left out: what is wrong, and what to do

    @property
    def changed(self) -> tuple[PageDifference, ...]:
        return tuple(page for page in self.pages if not page.same)


def recipes(lake: Storage) -> dict[str, int]:
    """The recipes that have transcripts, with how many."""
    found: dict[str, int] = {}
    for info in lake.list(keys.TRANSCRIPTS):
        recipe, _ = keys.parse_transcript(info.key)
        found[recipe] = found.get(recipe, 0) + 1
    return found


def compare_recipes(lake: Storage, recipe_a: str, recipe_b: str) -> Comparison:
    """What changed between two recipes; a page that only one of them has read counts as changed."""
    unread: list[str] = []
    published = _published(lake, unread.append)
    a, b = _pages(lake, recipe_a, published, unread.append), _pages(lake, recipe_b, published, unread.append)
    upload_keys = _upload_keys(lake, {document_id for document_id, _ in (*a, *b)}, unread.append)
    return replace(compare(a, b, upload_keys), unread=tuple(sorted(set(unread))))


def compare(
    a: Mapping[Place, PageSide], b: Mapping[Place, PageSide], upload_keys: Mapping[str, str] | None = None
) -> Comparison:
    """Two sets of pages. `upload_keys`: of the documents, by id."""
    pages = tuple(_difference(place, a.get(place), b.get(place), upload_keys or {}) for place in sorted({*a, *b}))
    both = [(page.a, page.b) for page in pages if page.a and page.b]
    agreements = [(x.agreement, y.agreement) for x, y in both if x.agreement is not None and y.agreement is not None]
    return Comparison(
        pages=pages,
        compared=len(both),
        same=sum(page.same for page in pages),
        only_a=sum(page.b is None for page in pages),
        only_b=sum(page.a is None for page in pages),
        mended=sum(x.status.is_bad and not y.status.is_bad for x, y in both),
        broken=sum(y.status.is_bad and not x.status.is_bad for x, y in both),
        mean_agreement_a=sum(x for x, _ in agreements) / len(agreements) if agreements else None,
        mean_agreement_b=sum(y for _, y in agreements) / len(agreements) if agreements else None,
        length_a=sum(x.length for x, _ in both),
        length_b=sum(y.length for _, y in both),
    )


def overlap(a: str, b: str) -> float | None:
    """Dice over the words of both texts with their counts, 0 to 1; None where neither has a word."""
    left, right = Counter(a.split()), Counter(b.split())
    total = left.total() + right.total()
    return 2 * (left & right).total() / total if total else None


def _difference(place: Place, a: PageSide | None, b: PageSide | None, upload_keys: Mapping[str, str]) -> PageDifference:
    document_id, number = place
    where = (document_id, upload_keys.get(document_id), number)
    if a is None or b is None:
        return PageDifference(*where, a, b, None, same=False)
    same = (a.status, a.reason, a.text) == (b.status, b.reason, b.text)
    return PageDifference(*where, a, b, overlap(a.text, b.text), same=same)


def _upload_keys(lake: Storage, wanted: Collection[str], tell: Tell) -> dict[str, str]:
    """The keys of these documents, by id, as the batch lists name them."""
    listed = (upload.key for batch in batches.load(lake, tell=tell) for upload in batch.uploads)
    return {document_id: key for key in listed if (document_id := keys.document_id(key)) in wanted}


def _published(lake: Storage, tell: Tell) -> dict[str, set[Place]]:
    """The pages of each image, by its SHA-256."""
    found: dict[str, set[Place]] = {}
    names = ("pages", "image_sha256", "document_id", "page_number")
    for pages in of_each(lake, lambda manifest: readable_columns(lake, manifest, *names, tell=tell), tell=tell):
        if pages is not None:
            for image, *place in zip(*(pages[name].to_pylist() for name in pages.column_names), strict=True):
                if image is not None:
                    found.setdefault(image, set()).add((place[0], place[1]))
    return found


def _pages(lake: Storage, recipe_id: str, published: Mapping[str, set[Place]], tell: Tell) -> dict[Place, PageSide]:
    """The newest transcript of each page: of the pages that asked for it, else of pages with the same image.

    Which images pages had under a recipe that is no longer published is not known. Pages that have the same image now
    are taken to have had the same image then.
    """
    alike = {place: places for places in published.values() if len(places) > 1 for place in places}
    asked: dict[Place, Transcript] = {}
    used: dict[Place, Transcript] = {}
    for transcript in transcripts.load(lake, recipe_id, tell):
        places = {(attempt.document_id, attempt.page_number) for attempt in transcript.attempts}
        for place in places:
            _keep_newest(asked, place, transcript)
        others = published.get(transcript.image_sha256, set()).union(*(alike.get(place, set()) for place in places))
        for place in others - places:
            _keep_newest(used, place, transcript)
    return {place: _side(transcript) for place, transcript in {**used, **asked}.items()}


def _side(transcript: Transcript) -> PageSide:
    return PageSide(
        status=transcript.status,
        reason=transcript.reason,
        quality=transcript.quality,
        agreement=transcript.agreement,
        seconds=transcript.seconds,
        text=parse(transcript).markdown if transcript.status is PageStatus.OK else "",
    )


def _keep_newest(found: dict[Place, Transcript], place: Place, transcript: Transcript) -> None:
    known = found.get(place)
    if known is None or known.finished_at < transcript.finished_at:
        found[place] = transcript
