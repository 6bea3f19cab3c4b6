"""How the CPU time of a call grows with its input: tells a linear function from a square one on any machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

ROUNDS = 3  # the best of them: whatever else the machine does only adds


def growth(work: Callable[[T], object], small: T, large: T) -> float:
    """CPU time of `work(large)` over that of `work(small)`, each the best of three."""
    times = [(_seconds(work, small), _seconds(work, large)) for _ in range(ROUNDS)]
    return min(of_large for _, of_large in times) / min(of_small for of_small, _ in times)


def _seconds(work: Callable[[T], object], value: T) -> float:
    begun = time.process_time()
    work(value)
    return time.process_time() - begun
