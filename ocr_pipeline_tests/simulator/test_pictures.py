"""Sizes from headers against Pillow's, and images of every soundness."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ocr_pipeline_tests.simulator import pictures
from ocr_pipeline_tests.simulator.refusals import Refusal


def _image(width: int, height: int, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (10, 90, 170)).save(file, kind, **options)
    return file.getvalue()


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 900), st.integers(1, 900),
    st.sampled_from([("JPEG", {}), ("JPEG", {"progressive": True}), ("JPEG", {"exif": b"Exif\0\0" + b"x" * 500}),
                     ("JPEG", {"dpi": (150, 150), "comment": b"c" * 300}), ("PNG", {})]),
)  # fmt: skip
def test_a_header_tells_the_size_without_pillow(width: int, height: int, how: tuple[str, dict[str, Any]]) -> None:
    data = _image(width, height, how[0], **how[1])
    quick = pictures._size_of_sound_png(data) or pictures._size_of_sound_jpeg(data)
    assert quick == pictures._size_by_pillow(data) == (width, height)


def test_tables_before_the_frame_header_are_not_taken_for_it() -> None:
    data = _image(70, 50, "JPEG")
    frame = data.index(b"\xff\xc0")
    tables = data.index(b"\xff\xc4", frame)
    scan = data.index(b"\xff\xda", tables)
    reordered = data[:frame] + data[tables:scan] + data[frame:tables] + data[scan:]
    assert pictures._size_of_sound_jpeg(reordered) == pictures._size_by_pillow(reordered) == (70, 50)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"]))
def test_any_bytes_are_read_or_refused(data: bytes, magic: bytes) -> None:
    try:
        outcome = 200 if pictures.decode(magic + data).width else 0
    except Refusal as refusal:
        outcome = refusal.status
    assert outcome in (200, 400)


@given(st.integers(1, 20_000), st.integers(1, 20_000))
def test_tokens_are_273_or_more_for_two_to_six_tiles(width: int, height: int) -> None:
    columns, rows = pictures.tile_grid(width, height)
    tokens = pictures.vision_tokens(width, height)
    if width <= 640 and height <= 640:
        assert (columns, rows, tokens) == (1, 1, 273)
    else:
        assert 2 <= columns * rows <= 6
        assert tokens == 273 + 10 * rows * (10 * columns + 1)


@pytest.mark.parametrize(
    "url", ["", "x", "data:", "data:;base64", "http://h.example/a", "file:///a", "data:text/plain,a"]
)
def test_no_address_is_ever_fetched(url: str) -> None:
    with pytest.raises(Refusal):
        pictures.read(url)
