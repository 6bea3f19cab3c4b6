"""Names in the lake: hostile upload keys become safe paths, and no two uploads share one."""

from __future__ import annotations

from datetime import date
from pathlib import PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ocr_pipeline.lake import keys

parts = st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), max_size=300)
upload_keys = st.lists(parts, min_size=1, max_size=6).map(lambda parts: "inbox/" + "/".join(parts))


@given(upload_keys)
@example("inbox/../../etc/passwd")
@example("inbox//a.pdf")
@example("inbox/" + "ü" * 200 + ".pdf")
@example("inbox/a\0b.pdf")
@example("inbox/" + "/".join(["x" * 200] * 6))
def test_a_markdown_key_is_a_path_below_its_folder_on_every_disk(key: str) -> None:
    made = keys.markdown(key)
    path = PurePosixPath(made)
    assert made.startswith("markdown/")
    assert "\0" not in made
    assert not {"", ".", ".."} & set(made.split("/"))
    assert all(len(part.encode()) <= 255 for part in path.parts)
    assert len(made.encode()) <= 1024
    assert made.endswith(".md")


@given(upload_keys, upload_keys)
def test_two_uploads_never_share_a_markdown_file(one: str, other: str) -> None:
    if one != other:
        assert keys.markdown(one) != keys.markdown(other)


@pytest.mark.parametrize("name", ["a b.pdf", 'it\'s "quoted".pdf', "line\nbreak.pdf", "grün 中文.pdf"])
def test_an_ordinary_name_stays_as_it_is(name: str) -> None:
    assert keys.markdown(f"inbox/reports/{name}") == f"markdown/inbox/reports/{name}.md"


def test_a_folder_that_looks_like_a_markdown_file_does_not_collide_with_one() -> None:
    file = keys.markdown("inbox/x.pdf")
    below = keys.markdown("inbox/x.pdf.md/y.pdf")
    assert not below.startswith(file + "/")


def test_a_name_that_is_too_long_is_cut_and_marked_with_a_hash() -> None:
    one, other = (keys.markdown("inbox/" + "n" * 260 + end) for end in ("a.pdf", "b.pdf"))
    assert one != other
    assert "~" in one


def test_a_documents_id_depends_on_its_key_alone() -> None:
    assert keys.document_id("inbox/a.pdf") == keys.document_id("inbox/a.pdf")
    assert keys.document_id("inbox/a.pdf") != keys.document_id("inbox/b.pdf")


@given(
    table=st.sampled_from(("documents", "pages", "regions", "attempts")),
    day=st.dates(),
    batch=st.from_regex(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{12}", fullmatch=True),
)
def test_the_key_of_a_parquet_file_says_whose_it_is(table: str, day: date, batch: str) -> None:
    assert keys.parse_table(keys.table(table, day, batch)) == (table, day, batch)


@pytest.mark.parametrize(
    "key", ["tables/pages/ingest_date=2026-13-45/a.parquet", "tables/pages/a.parquet", "tables/manifests/a.json"]
)
def test_what_is_no_parquet_file_of_a_day_has_no_owner(key: str) -> None:
    assert keys.parse_table(key) is None
