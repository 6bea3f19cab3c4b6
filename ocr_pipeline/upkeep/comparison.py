"""What changed between two recipes, page by page.

Here belongs the comparison of two sets of page rows. The tables hold one recipe a page, so the rows come from the
caller: from Parquet of two runs, from transcripts, or one side from the tables. Pure: reads nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from ocr_pipeline.records import Page

_COLUMNS = ("document_id", "page_number", "status", "reason", "markdown", "quality", "agreement", "seconds")
_BAD = frozenset({"failed", "skipped"})


@dataclass(frozen=True, slots=True)
class PageSide:
    """One page under one recipe."""

    status: str
    reason: str | None
    length: int  # characters of markdown
    quality: float | None
    agreement: float | None
    seconds: float | None

    @property
    def failed(self) -> bool:
        return self.status in _BAD


@dataclass(frozen=True, slots=True)
class PageDifference:
    """One page under both. A side is None where it has no such page."""

    document_id: str
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

    @property
    def changed(self) -> tuple[PageDifference, ...]:
        return tuple(page for page in self.pages if not page.same)


def compare(a: pa.Table | Iterable[Page], b: pa.Table | Iterable[Page]) -> Comparison:
    """Two sets of rows of `pages`, as Arrow tables (other columns do no harm) or records; each has a page at most once,
    else the last one counts."""
    left, right = _by_page(a), _by_page(b)
    pages = tuple(_difference(key, left.get(key), right.get(key)) for key in sorted(left.keys() | right.keys()))
    both = [(page.a, page.b) for page in pages if page.a and page.b]
    agreements = [(x.agreement, y.agreement) for x, y in both if x.agreement is not None and y.agreement is not None]
    return Comparison(
        pages=pages,
        compared=len(both),
        same=sum(page.same for page in pages),
        only_a=sum(page.b is None for page in pages),
        only_b=sum(page.a is None for page in pages),
        mended=sum(x.failed and not y.failed for x, y in both),
        broken=sum(y.failed and not x.failed for x, y in both),
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


_Row = tuple[PageSide, str]


def _by_page(rows: pa.Table | Iterable[Page]) -> dict[tuple[str, int], _Row]:
    if isinstance(rows, pa.Table):
        records = zip(*(rows[name].to_pylist() for name in _COLUMNS), strict=True)
    else:
        records = (tuple(getattr(page, name) for name in _COLUMNS) for page in rows)  # type: ignore[assignment]
    return {
        (document_id, number): (PageSide(status, reason, len(markdown), quality, agreement, seconds), markdown)
        for document_id, number, status, reason, markdown, quality, agreement, seconds in records
    }


def _difference(key: tuple[str, int], a: _Row | None, b: _Row | None) -> PageDifference:
    if a is None or b is None:
        return PageDifference(*key, a[0] if a else None, b[0] if b else None, None, same=False)
    same = (a[0].status, a[0].reason, a[1]) == (b[0].status, b[0].reason, b[1])
    return PageDifference(*key, a[0], b[0], overlap(a[1], b[1]), same=same)
