"""One page image to one transcript. The engine is asked only if the lake has no transcript of the image yet.

If two pages with the same image are read at the same time, both wait for one answer. A failed transcript counts as an
answer too, unless the failure was not the page's fault or a retry asks for failures of that kind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from ocr_pipeline.lake import transcripts
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.ocr.transcriber import Transcriber
from ocr_pipeline.records import PageImage, PageStatus, Reason, Transcript

NOT_THE_PAGES_FAULT = frozenset({Reason.BACKEND_UNAVAILABLE, Reason.MISCONFIGURED})


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """A retry: pages that failed for one of `reasons` before `requested_at` are asked again, once."""

    reasons: frozenset[Reason] = frozenset()
    requested_at: datetime | None = None


NO_RETRY = RetryPolicy()


def is_final(transcript: Transcript, policy: RetryPolicy = NO_RETRY) -> bool:
    """Whether this transcript is kept; otherwise its page is read again."""
    if transcript.status is PageStatus.OK:
        return True
    if transcript.reason in NOT_THE_PAGES_FAULT:
        return False
    answered_since = policy.requested_at is not None and transcript.finished_at >= policy.requested_at
    return transcript.reason not in policy.reasons or answered_since


class PageReader:
    """Reads page images on one event loop; shared by all documents and batches of the process."""

    def __init__(self, storage: Storage, transcriber: Transcriber) -> None:
        self._storage = storage
        self._transcriber = transcriber
        self._in_flight: dict[str, asyncio.Future[Transcript]] = {}

    @property
    def recipe_id(self) -> str:
        return self._transcriber.recipe_id

    async def read(
        self, image: PageImage, policy: RetryPolicy = NO_RETRY, on_asked: Callable[[], None] = lambda: None
    ) -> Transcript:
        """The transcript of `image`, durable in the lake when this returns."""
        while (running := self._in_flight.get(image.sha256)) is not None:
            # shield: the first asker's cancellation is its own, ours must not cancel its request
            await asyncio.wait([running])
            if not running.cancelled() and running.exception() is None:
                return running.result()
        future: asyncio.Future[Transcript] = asyncio.get_running_loop().create_future()
        self._in_flight[image.sha256] = future
        try:
            transcript = await self._read(image, policy, on_asked)
            future.set_result(transcript)
            return transcript
        except BaseException:
            future.cancel()
            raise
        finally:
            del self._in_flight[image.sha256]

    async def _read(self, image: PageImage, policy: RetryPolicy, on_asked: Callable[[], None]) -> Transcript:
        known = await asyncio.to_thread(transcripts.read_sound, self._storage, self.recipe_id, image.sha256)
        if known is not None and is_final(known, policy):
            return known
        on_asked()
        transcript = await self._transcriber.transcribe(image, known)
        return await asyncio.to_thread(self._keep, transcript)

    def _keep(self, transcript: Transcript) -> Transcript:
        """Writes the transcript. If this one failed and another process has read the page meanwhile, the text of that
        process is kept, with the requests of both."""
        if transcript.status is PageStatus.FAILED:
            now = transcripts.read_sound(self._storage, transcript.recipe_id, transcript.image_sha256)
            if now is not None and now.status is PageStatus.OK:
                ours = [attempt for attempt in transcript.attempts if attempt not in now.attempts]
                transcript = replace(now, attempts=(*now.attempts, *ours))
        transcripts.write(self._storage, transcript)
        return transcript
