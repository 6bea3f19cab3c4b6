"""The order of waiting pages."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from ocr_pipeline.ocr.fleet.fair_queue import FairQueue


@dataclass(eq=False)
class Waits:
    document_id: str
    page_number: int = 1
    urgent: bool = False
    asked_before: bool = False


def serve(queue: FairQueue[Waits], count: int) -> list[str]:
    served = []
    for _ in range(count):
        page = next(queue.in_order())
        queue.take(page)
        served.append(f"{page.document_id}{page.page_number}")
    return served


def test_a_small_document_does_not_wait_for_the_end_of_a_huge_one():
    queue: FairQueue[Waits] = FairQueue()
    for number in range(1, 101):
        queue.add(Waits("huge", number))
    assert serve(queue, 3) == ["huge1", "huge2", "huge3"]
    queue.add(Waits("a", 1))
    queue.add(Waits("a", 2))
    queue.add(Waits("b", 1))
    assert set(serve(queue, 3)) == {"a1", "b1", "huge4"}
    assert set(serve(queue, 2)) == {"a2", "huge5"}


def test_a_document_cannot_save_up_turns_by_staying_away():
    queue: FairQueue[Waits] = FairQueue()
    queue.add(Waits("late", 1))
    serve(queue, 1)
    for number in range(1, 51):
        queue.add(Waits("busy", number))
    serve(queue, 30)
    for number in range(2, 12):
        queue.add(Waits("late", number))
    assert sum(name.startswith("late") for name in serve(queue, 8)) in (4, 5)


def test_urgent_pages_come_before_all_others():
    queue: FairQueue[Waits] = FairQueue()
    queue.add(Waits("a", 1))
    queue.add(Waits("now", 1, urgent=True))
    queue.add(Waits("now", 2, urgent=True))
    assert serve(queue, 3) == ["now1", "now2", "a1"]


def test_within_a_document_a_page_that_was_asked_before_goes_first():
    queue: FairQueue[Waits] = FairQueue()
    queue.add(Waits("a", 1))
    queue.add(Waits("a", 7, asked_before=True))
    assert serve(queue, 2) == ["a7", "a1"]


@given(
    st.lists(st.tuples(st.sampled_from("abcde"), st.integers(1, 9), st.booleans(), st.booleans()), max_size=40),
    st.data(),
)
def test_every_page_is_served_once_whatever_comes_and_goes(pages, data):
    queue: FairQueue[Waits] = FairQueue()
    waiting = [Waits(*page) for page in pages]
    gone = []
    for page in waiting:
        queue.add(page)
        if data.draw(st.booleans()):
            taken = next(queue.in_order())
            gone.append(taken)
            (queue.take if data.draw(st.booleans()) else queue.remove)(taken)
    rest = list(queue.in_order())
    assert len(rest) == len(queue)
    assert {id(page) for page in rest} | {id(page) for page in gone} == {id(page) for page in waiting}
    assert len(rest) + len(gone) == len(waiting)
