"""Two sets of page rows side by side."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_pipeline.records import PageStatus, Reason
from ocr_pipeline.upkeep.comparison import compare, overlap
from ocr_pipeline_tests.warehouse.sample_rows import result, to_tables


def test_two_recipes_are_compared_page_by_page() -> None:
    old = result(
        "a.pdf",
        batch="b1",
        pages=4,
        markdown={1: "same text", 2: "one two three", 4: "only here"},
        statuses={3: (PageStatus.FAILED, Reason.REPETITION)},
    )
    new = result(
        "a.pdf", batch="b1", pages=3, recipe_id="r2", markdown={1: "same text", 2: "one two four", 3: "at last"}
    )
    for a, b in ((old.pages, new.pages), (to_tables([old])["pages"], to_tables([new])["pages"])):
        found = compare(a, b)
        assert (found.compared, found.same, found.only_a, found.only_b, found.mended, found.broken) == (
            3,
            1,
            1,
            0,
            1,
            0,
        )
        assert [page.page_number for page in found.changed] == [2, 3, 4]
        second, third, fourth = found.changed
        assert second.overlap == pytest.approx(2 / 3)
        assert (third.a.reason, third.b.reason, third.overlap) == ("repetition", None, 0.0)  # type: ignore[union-attr]
        assert (fourth.b, fourth.overlap) == (None, None)
        assert (found.length_a, found.length_b) == (
            len("same text" + "one two three"),
            len("same textone two fourat last"),
        )
        assert found.mean_agreement_a == pytest.approx(sum(p.agreement or 0 for p in old.pages[:2]) / 2)
    assert compare([], []).pages == ()
    back = compare(new.pages, old.pages)
    assert (back.mended, back.broken, back.only_b) == (0, 1, 1)


@given(st.text(), st.text())
def test_overlap_is_a_share_and_the_same_both_ways(a: str, b: str) -> None:
    share = overlap(a, b)
    assert share == overlap(b, a)
    assert share is None or 0 <= share <= 1
    assert overlap(a, a) in (1, None)
