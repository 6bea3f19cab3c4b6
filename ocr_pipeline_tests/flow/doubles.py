"""A transcriber that answers from a table and counts: the only double, since no real engine fails to order."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

from ocr_pipeline.records import Attempt, Geometry, PageImage, PageStatus, Reason, Transcript

Answer = str | Reason


class ScriptedTranscriber:
    """Answers with the page's text layer, or what `script` says of the page: a text, or a reason to fail."""

    recipe_id = "scripted"
    geometry = Geometry(dpi=72, max_long_side=900, max_short_side=700)
    max_in_flight = 4

    def __init__(
        self, script: Callable[[PageImage], Answer | None] = lambda image: None, format: str = "markdown"
    ) -> None:
        self.script = script
        self.format = format
        self.asked: Counter[tuple[str, int]] = Counter()
        self.at_once = 0
        self.most_at_once = 0

    async def transcribe(self, image: PageImage, previous: Transcript | None = None) -> Transcript:
        self.asked[image.document_id, image.page_number] += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        said = self.script(image)
        failed = said if isinstance(said, Reason) else None
        text = "" if failed else said if said is not None else image.text_layer
        now = datetime.now(UTC)
        earlier = previous.attempts if previous else ()
        attempt = Attempt(
            document_id=image.document_id,
            page_number=image.page_number,
            attempt=len(earlier) + 1,
            backend="double",
            model="double",
            choice="only one",
            started_at=now,
            seconds=0.0,
            outcome=str(failed or "ok"),
            text=text,
        )
        return Transcript(
            recipe_id=self.recipe_id,
            image_sha256=image.sha256,
            status=PageStatus.FAILED if failed else PageStatus.OK,
            reason=failed,
            text=str(text),
            format=self.format,
            engine="double",
            backend="double",
            model="double",
            width=image.width,
            height=image.height,
            finished_at=now,
            attempts=(*earlier, attempt),
        )

    async def aclose(self) -> None: ...
