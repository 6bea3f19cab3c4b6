"""Memory that was freed goes back to the system between the hops of a batch.

glibc and Arrow keep what is freed for later; with one hop's peak after the other in one process, a run of a document
of thousands of pages then holds the sum of them all instead of the largest.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from functools import cache

import pyarrow as pa


def give_back() -> None:
    """Costs milliseconds; does nothing where the C library has no `malloc_trim`."""
    pa.default_memory_pool().release_unused()
    if (library := _libc()) is not None:
        library.malloc_trim(0)


@cache
def _libc() -> ctypes.CDLL | None:
    name = ctypes.util.find_library("c")
    library = ctypes.CDLL(name) if name else None
    return library if hasattr(library, "malloc_trim") else None
