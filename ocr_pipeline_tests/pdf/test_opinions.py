from __future__ import annotations

import pytest

from ocr_pipeline.pdf.opinions import Image, NoImage, Opening, choose, clean_line, page_count, why_closed
from ocr_pipeline.records import Reason

BLANK = 0.01
OPEN_3, OPEN_5 = Opening(3), Opening(5)
PASSWORD, LOST = Opening(None, problem="password"), Opening(None, problem="lost")
NO_PAGES, DAMAGED = Opening(None, problem="no_pages"), Opening(None, problem="damaged")


def image(renderer: str, ink: float, objects: int = 0) -> Image:
    return Image(b"", 10, 10, ink, renderer, objects)


@pytest.mark.parametrize(
    ("openings", "count"),
    [((OPEN_3, DAMAGED), 3), ((DAMAGED, OPEN_3), 3), ((OPEN_3, OPEN_5), 5), ((DAMAGED, LOST), None)],
)
def test_one_library_that_opens_a_file_is_enough(openings: tuple[Opening, ...], count: int | None) -> None:
    assert page_count(openings) == count


@pytest.mark.parametrize(
    ("openings", "reason"),
    [
        ((DAMAGED, DAMAGED), Reason.DAMAGED),
        ((DAMAGED, PASSWORD), Reason.ENCRYPTED),
        ((LOST, PASSWORD), Reason.ENCRYPTED),
        ((LOST, DAMAGED), Reason.INSPECT_TIMEOUT),
        ((NO_PAGES, DAMAGED), Reason.NO_PAGES),
    ],
)
def test_the_most_telling_verdict_is_the_reason(openings: tuple[Opening, ...], reason: Reason) -> None:
    assert why_closed(openings) is reason
    assert why_closed(openings[::-1]) is reason


TIMEOUT = NoImage("took longer than 60 s", Reason.RENDER_TIMEOUT)
CRASH = NoImage("died (SIGSEGV)")
UNDRAWN = NoImage("an image that cannot be decoded", undrawn=True)
BLANK_POPPLER, FULL_PDFIUM = image("poppler", 0), image("pdfium", 0.2, 5)


def test_an_empty_image_yields_to_one_with_something_on_it() -> None:
    assert choose(BLANK_POPPLER, FULL_PDFIUM, BLANK) is FULL_PDFIUM


def test_two_empty_images_make_a_blank_page() -> None:
    assert choose(BLANK_POPPLER, image("pdfium", 0, 3), BLANK) is BLANK_POPPLER


def test_an_empty_image_of_a_page_with_a_broken_picture_is_no_blank_page() -> None:
    assert choose(BLANK_POPPLER, UNDRAWN, BLANK) is UNDRAWN


def test_an_empty_image_stands_where_the_second_opinion_fails() -> None:
    assert choose(BLANK_POPPLER, CRASH, BLANK) is BLANK_POPPLER


def test_the_second_image_stands_in_for_the_first() -> None:
    assert choose(TIMEOUT, FULL_PDFIUM, BLANK) is FULL_PDFIUM


def test_an_empty_second_image_of_a_page_that_broke_the_first_library_is_not_believed() -> None:
    chosen = choose(TIMEOUT, image("pdfium", 0, 1), BLANK)
    assert isinstance(chosen, NoImage)
    assert chosen.reason is Reason.RENDER_TIMEOUT


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        (CRASH, CRASH, Reason.RENDER_FAILED),
        (TIMEOUT, CRASH, Reason.RENDER_TIMEOUT),
        (CRASH, TIMEOUT, Reason.RENDER_TIMEOUT),
    ],
)
def test_a_page_that_both_fail_on_tells_of_both(first: NoImage, second: NoImage, reason: Reason) -> None:
    chosen = choose(first, second, BLANK)
    assert isinstance(chosen, NoImage)
    assert chosen.reason is reason
    assert first.detail in chosen.detail
    assert second.detail in chosen.detail


def test_a_line_is_clean_and_short() -> None:
    assert clean_line("a\0b\n\t c\u001b[31m\ud800", 100) == "a b c [31m"
    assert len(clean_line("x" * 999, 500)) == 500
