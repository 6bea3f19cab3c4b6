"""The language between renderer and worker: frames of a small JSON header and bytes.

Here belongs the form of a frame. Not here: what the headers say (`worker.py`), or pipes and deadlines (`process.py`).
A frame is two unsigned 32-bit lengths (header, bytes; network order), then the two.
"""

from __future__ import annotations

import json
import struct
from typing import Any

_LENGTHS = struct.Struct("!II")
MAX_HEADER = 1 << 20
MAX_BLOB = 1 << 28
"""A worker that a hostile file has taken over must not make its parent allocate without end."""

Header = dict[str, Any]
Frame = tuple[Header, bytes]


class BadFrame(ValueError):
    """The bytes are not a frame."""


def pack(header: Header, blob: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return _LENGTHS.pack(len(text), len(blob)) + text + blob


def take(buffer: bytearray) -> Frame | None:
    """Remove and return the first frame of `buffer`, or None where it is not whole yet. Raises BadFrame."""
    if len(buffer) < _LENGTHS.size:
        return None
    header_length, blob_length = _LENGTHS.unpack_from(buffer)
    if header_length > MAX_HEADER or blob_length > MAX_BLOB:
        raise BadFrame(f"frame of {header_length} + {blob_length} bytes")
    blob_at = _LENGTHS.size + header_length
    end = blob_at + blob_length
    if len(buffer) < end:
        return None
    try:
        header = json.loads(buffer[_LENGTHS.size : blob_at])
    except ValueError as error:
        raise BadFrame("frame header is not JSON") from error
    if not isinstance(header, dict):
        raise BadFrame("frame header is not an object")
    blob = bytes(memoryview(buffer)[blob_at:end])
    del buffer[:end]
    return header, blob
