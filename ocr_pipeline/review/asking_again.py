"""What "ask again" hands over, and to whom: the one thing the app can set going.

Here belongs only the interface. The work is the same code as `ocr-pipeline retry`, which the command gives the app.
Like that code it asks by document and reason: all pages of these documents that failed for these reasons.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class RetryRequest:
    """Which documents, and for which reasons; each once, sorted."""

    document_ids: tuple[str, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of it."""

    batches: tuple[str, ...]  # names; none where there was nothing left to ask for
    pages: int
    gone: int = 0  # documents left out, since their upload was replaced or deleted


class RetryHandler(Protocol):
    """Writes the batch lists that ask again. An error's text is shown to the user."""

    def __call__(self, request: RetryRequest) -> Asked: ...
