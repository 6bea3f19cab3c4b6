"""The planner: a pure function of a listing, what is taken, and limits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from ocr_pipeline.lake import planner
from ocr_pipeline.lake.planner import BatchLimits
from ocr_pipeline.records import Reason, Upload

START = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)

uploads = st.builds(
    Upload,
    key=st.builds("inbox/{}{}.pdf".format, st.sampled_from(["", "urgent/"]), st.integers(0, 50)),
    etag=st.integers(0, 3).map(str),
    size=st.integers(0, 100),
    last_modified=st.integers(0, 600).map(lambda second: START + timedelta(seconds=second)),
)
listings = st.lists(uploads, max_size=60, unique_by=lambda upload: upload.key)
limits = st.builds(BatchLimits, documents=st.integers(1, 7), bytes=st.integers(1, 300), batches=st.integers(1, 5))


def upload(name: str, second: int = 0, size: int = 10, etag: str = "e") -> Upload:
    return Upload(f"inbox/{name}", etag, size, START + timedelta(seconds=second))


@given(listings, limits)
def test_every_upload_is_in_exactly_one_batch_or_still_left(listing: list[Upload], limits: BatchLimits) -> None:
    plan = planner.plan(listing, set(), limits)
    cut = [upload for batch in plan.batches for upload in batch.uploads]
    assert len(cut) == len(set(cut))
    assert set(cut) <= set(listing)
    assert len(cut) + plan.left == len(listing)


@given(listings, limits)
def test_ticks_after_each_other_take_everything_and_nothing_twice(listing: list[Upload], limits: BatchLimits) -> None:
    taken: set[Upload] = set()
    for _ in range(len(listing) + 1):
        plan = planner.plan(listing, taken, limits)
        fresh = {upload for batch in plan.batches for upload in batch.uploads}
        assert not fresh & taken
        taken |= fresh
    assert taken == set(listing)


@given(listings, limits, st.randoms())
def test_the_order_of_the_listing_does_not_matter(listing: list[Upload], limits: BatchLimits, random: object) -> None:
    shuffled = list(listing)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert planner.plan(listing, set(), limits) == planner.plan(shuffled, set(), limits)


@given(listings, limits)
def test_batches_keep_their_limits_and_urgent_uploads_go_by_themselves(
    listing: list[Upload], limits: BatchLimits
) -> None:
    plan = planner.plan(listing, set(), limits)
    assert len(plan.batches) <= limits.batches
    for batch in plan.batches:
        assert len(batch.uploads) <= limits.documents
        assert len(batch.uploads) == 1 or sum(u.size for u in batch.uploads) <= limits.bytes
        assert {u.key.startswith("inbox/urgent/") for u in batch.uploads} == {batch.urgent}


@given(listings, limits)
def test_nothing_that_is_left_is_older_than_the_time_to_look_back_to(
    listing: list[Upload], limits: BatchLimits
) -> None:
    plan = planner.plan(listing, set(), limits)
    cut = {upload for batch in plan.batches for upload in batch.uploads}
    left = [upload for upload in listing if upload not in cut]
    assert (plan.left_since is None) == (not left)
    assert all(upload.last_modified >= plan.left_since for upload in left if plan.left_since)


def test_urgent_uploads_come_before_a_backlog_of_older_ones() -> None:
    backlog = [upload(f"{number}.pdf", number) for number in range(100)]
    plan = planner.plan([*backlog, upload("urgent/now.pdf", 500)], set(), BatchLimits(documents=5, batches=2))
    assert plan.batches[0].urgent
    assert [u.key for u in plan.batches[0].uploads] == ["inbox/urgent/now.pdf"]


def test_a_batch_is_named_by_its_content() -> None:
    one = planner.plan([upload("a.pdf", 5), upload("b.pdf", 3)], set(), BatchLimits()).batches[0]
    assert one.name.startswith("20261122T120005Z-")
    assert one == planner.plan([upload("b.pdf", 3), upload("a.pdf", 5)], set(), BatchLimits()).batches[0]
    edited = planner.plan([upload("a.pdf", 5, etag="new"), upload("b.pdf", 3)], set(), BatchLimits()).batches[0]
    assert edited.name != one.name


def test_names_sort_by_the_time_of_the_newest_upload() -> None:
    names = [planner.name([upload("a.pdf", second)]) for second in (1, 61, 3601)]
    assert names == sorted(names)
    assert planner.name_floor(START + timedelta(seconds=61)) < names[1]
    assert planner.name_floor(START + timedelta(seconds=62)) > names[1]


def test_a_batch_that_is_not_full_waits_while_the_workers_are_busy_unless_it_is_urgent() -> None:
    listing = [upload(f"{number}.pdf", number) for number in range(7)] + [upload("urgent/x.pdf")]
    plan = planner.plan(listing, set(), BatchLimits(documents=5), hold_partial=True)
    assert [len(batch.uploads) for batch in plan.batches] == [1, 5]
    assert plan.left == 2
    assert plan.left_since == START + timedelta(seconds=5)


def test_two_versions_of_one_key_are_never_in_one_batch() -> None:
    plan = planner.plan([upload("a.pdf", 0, etag="1"), upload("a.pdf", 9, etag="2")], set(), BatchLimits())
    assert [len(batch.uploads) for batch in plan.batches] == [1, 1]


def test_a_retry_sorts_after_every_batch_that_it_repeats() -> None:
    first = planner.plan([upload("a.pdf")], set(), BatchLimits()).batches[0]
    again = planner.retry(dict.fromkeys(first.uploads, first.name), [Reason.REPETITION], START - timedelta(days=1))
    assert again.name > first.name
    assert again.retry_reasons == (Reason.REPETITION,)
    assert again.repeated(first.uploads[0]) == first.name
