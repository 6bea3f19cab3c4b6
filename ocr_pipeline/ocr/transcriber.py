"""The door of the OCR room: what turns one page image into one transcript, whatever stands behind it.

The flow knows only this. The CPU engines and the GPU fleet each implement it.
"""

from __future__ import annotations

from typing import Protocol

from ocr_pipeline.records import Geometry, PageImage, Transcript


class Transcriber(Protocol):
    """Reads pages. One instance serves many documents at once, on one event loop."""

    @property
    def recipe_id(self) -> str:
        """Hash of what is asked: model, prompt, sampling, quality ladder, image geometry."""
        ...

    @property
    def geometry(self) -> Geometry:
        """How page images must be made for this recipe."""
        ...

    @property
    def max_in_flight(self) -> int:
        """How many pages are worth handing over at once (all backends together, with some to spare)."""
        ...

    async def transcribe(self, image: PageImage, previous: Transcript | None = None) -> Transcript:
        """Reads one page; returns a transcript with status ok or failed, and never raises for a bad page or server.

        `previous` is an earlier failed transcript of the same image: its attempts are kept, and numbering
        continues from them.
        Cancelling the task cancels the request.
        """
        ...

    async def aclose(self) -> None: ...
