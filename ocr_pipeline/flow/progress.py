"""What a batch reports while it runs. The command draws it, Dagster's log counts it; nobody has to listen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from ocr_pipeline.records import PageStatus, Reason


class Progress(Protocol):
    def document_opened(self, key: str, pages: int) -> None: ...

    def document_rejected(self, key: str, reason: Reason) -> None: ...

    def page_done(self, key: str, page: int, status: PageStatus, reason: Reason | None) -> None: ...

    def document_done(self, key: str) -> None: ...


class Silent:
    """Nobody listens."""

    def document_opened(self, key: str, pages: int) -> None: ...

    def document_rejected(self, key: str, reason: Reason) -> None: ...

    def page_done(self, key: str, page: int, status: PageStatus, reason: Reason | None) -> None: ...

    def document_done(self, key: str) -> None: ...


@dataclass(slots=True)
class StreamCounts:
    """What one batch did, for metadata and the summary."""

    documents: int = 0
    rejected: int = 0
    pages: int = 0
    asked: int = 0  # pages handed to an engine
    render_seconds: float = 0.0  # summed over render workers
    seconds: float = 0.0  # wall
    by_status: dict[PageStatus, int] = field(default_factory=dict)
