from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_pipeline.pdf.frames import MAX_BLOB, MAX_HEADER, BadFrame, pack, take

headers = st.dictionaries(st.text(max_size=8), st.none() | st.integers() | st.text(max_size=20), max_size=4)


@given(st.lists(st.tuples(headers, st.binary(max_size=200)), max_size=5), st.integers(1, 64))
def test_frames_come_out_as_they_went_in_however_the_pipe_cuts_them(
    frames: list[tuple[dict[str, object], bytes]], chunk: int
) -> None:
    wire = b"".join(pack(header, blob) for header, blob in frames)
    buffer, arrived = bytearray(), []
    for at in range(0, len(wire), chunk):
        buffer += wire[at : at + chunk]
        while (frame := take(buffer)) is not None:
            arrived.append(frame)
    assert arrived == frames
    assert not buffer


@given(st.binary(max_size=64))
def test_nonsense_is_refused_or_awaited_but_never_crashes(data: bytes) -> None:
    try:
        frame = take(bytearray(data))
    except BadFrame:
        return
    assert frame is None or isinstance(frame[0], dict)


@pytest.mark.parametrize("lengths", [(MAX_HEADER + 1, 0), (2, MAX_BLOB + 1)])
def test_a_frame_that_claims_to_be_huge_is_refused_before_it_is_read(lengths: tuple[int, int]) -> None:
    with pytest.raises(BadFrame):
        take(bytearray(struct.pack("!II", *lengths)))
