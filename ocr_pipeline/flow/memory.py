"""Memory that was freed goes back to the system between the hops of a batch.

glibc and Arrow keep what is freed for later; with one hop's peak after the other in one process, a run of a document
of thousands of pages then holds the sum of them all instead of the largest.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from functools import cache

import pyarrow as pa


def use_system_pool() -> None:
    """Arrow takes its memory from the C library, like all else: its own pool keeps what is freed (25 MB at the peak of
    3,000 pages)."""
    if pa.default_memory_pool().backend_name != "system":
        pa.set_memory_pool(pa.system_memory_pool())


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
