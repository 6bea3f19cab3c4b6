"""How fast one server reads pages, by its answers of late. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ocr_pipeline.ocr.vllm.answers import Answer

EWMA = 0.2


@dataclass(slots=True)
class Speed:
    """What a page takes on a server, in seconds, by the answers of late."""

    average: float | None = None  # exponentially weighted, so that a crawl shows after a few answers
    last_at: float = 0.0  # fleet's clock
    pages: int = 0
    tokens: int = 0

    def record(self, answer: Answer, now: float) -> None:
        self.last_at = now
        self.average = answer.seconds if self.average is None else self.average + EWMA * (answer.seconds - self.average)
        self.pages += 1
        self.tokens += answer.completion_tokens or 0

    def at_least(self, seconds: float) -> None:
        """A page that was cancelled after `seconds` would have taken longer: else a crawl that hedging hides is
        never learnt."""
        if self.average is not None and seconds > self.average:
            self.average += (seconds - self.average) / 2
