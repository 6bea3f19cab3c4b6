"""Two sets of pages side by side."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_pipeline.records import PageStatus, Reason
from ocr_pipeline.upkeep.compare import PageSide, compare, overlap


def page(text: str, *, reason: Reason | None = None, agreement: float | None = 0.5) -> PageSide:
    status = PageStatus.FAILED if reason else PageStatus.OK
    return PageSide(status, reason, 0.9, None if reason else agreement, 1.0, text)


def test_two_recipes_are_compared_page_by_page() -> None:
    old = {
        ("a", 1): page("same text", agreement=0.8),
        ("a", 2): page("one two three", agreement=0.6),
        ("a", 3): page("", reason=Reason.REPETITION),
        ("a", 4): page("only here"),
    }
    new = {("a", 1): page("same text"), ("a", 2): page("one two four"), ("a", 3): page("at last")}
    found = compare(old, new, {"a": "inbox/a.pdf"})
    assert (found.compared, found.same, found.only_a, found.only_b) == (3, 1, 1, 0)
    assert (found.mended, found.broken) == (1, 0)
    assert [(one.key, one.page_number) for one in found.changed] == [("inbox/a.pdf", number) for number in (2, 3, 4)]
    second, third, fourth = found.changed
    assert second.overlap == pytest.approx(2 / 3)
    assert (third.a, third.b, third.overlap) == (old["a", 3], new["a", 3], 0.0)
    assert (fourth.b, fourth.overlap) == (None, None)
    assert (found.length_a, found.length_b) == (len("same text" + "one two three"), len("same textone two fourat last"))
    assert (found.mean_agreement_a, found.mean_agreement_b) == (pytest.approx(0.7), 0.5)
    assert compare({}, {}).pages == ()
    back = compare(new, old)
    assert (back.mended, back.broken, back.only_b) == (0, 1, 1)
    assert back.pages[0].key is None


@given(st.text(), st.text())
def test_overlap_is_a_share_and_the_same_both_ways(a: str, b: str) -> None:
    share = overlap(a, b)
    assert share == overlap(b, a)
    assert share is None or 0 <= share <= 1
    assert overlap(a, a) in (1, None)
