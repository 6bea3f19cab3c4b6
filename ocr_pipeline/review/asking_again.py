"""What "ask again" hands over, and to whom: the one thing the app can set going.

Here belongs the door only. The work is the same code as `ocr-pipeline retry`, which the command gives the app.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class RetryRequest:
    """Pages that failed and are wanted again. A whole document that was rejected is a page number of None."""

    pages: tuple[tuple[str, int | None], ...]  # document id, page number
    reasons: tuple[str, ...]  # for which they failed, each once, sorted

    @property
    def document_ids(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(document_id for document_id, _ in self.pages))


class AskAgain(Protocol):
    """Writes a batch that asks for the pages again; returns its name. An error's text is shown to the user."""

    def __call__(self, request: RetryRequest) -> str: ...
