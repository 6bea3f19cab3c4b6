"""The deaths of one server, and which of them were only its connection's: the server itself is asked.

Here belongs telling a death from a fault on the way there. Not here: what a death means for the server (station.py),
for a page (failover.py) and for how many pages the server bears (admission.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from ocr_pipeline.ocr.fleet.failover import Evidence
from ocr_pipeline.ocr.fleet.health import Progress
from ocr_pipeline.ocr.fleet.vitals import parse_metrics
from ocr_pipeline.ocr.vllm.answers import Answer
from ocr_pipeline.ocr.vllm.client import VllmClient

CONFIRM_AFTER = (0.0, 0.3)  # seconds before each look: a server whose connections are lost refuses at once


class Deaths:
    """One server's."""

    def __init__(
        self, client: VllmClient, *, patience: float, clock: Callable[[], float], changed: Callable[[], None]
    ) -> None:
        """`patience`: seconds that a page waits for the server's return. `changed` is called when a doubt is over."""
        self.count = 0
        self.progress = Progress()  # of the server's process, as the last look showed it
        self._client = client
        self._patience = patience
        self._clock = clock
        self._changed = changed
        self._survived: set[int] = set()  # by number: it was only the way to the server
        self._returned: asyncio.Future[bool | None] | None = None  # since the last one: is it another process?
        self._confirming: asyncio.Task[bool] | None = None

    @property
    def in_doubt(self) -> bool:
        """Whether the server is being asked at this moment if it is alive."""
        return self._confirming is not None

    async def confirm(self) -> bool:
        """Whether a server that lost a connection is dead. All who ask at one time wait for one answer."""
        if self._confirming is None:
            self._confirming = asyncio.create_task(self._looks_dead(), name="is the server dead")
            self._confirming.add_done_callback(self._confirmed)
        return await asyncio.shield(self._confirming)

    def _confirmed(self, task: asyncio.Task[bool]) -> None:
        self._confirming = None
        self._changed()

    async def _looks_dead(self) -> bool:
        for pause in CONFIRM_AFTER:
            await asyncio.sleep(pause)
            if not (await self._client.health()).ok:
                return True
        # well again at once: a supervisor was quick, or it was only the connection
        probed = await self._client.metrics_text()
        return probed.ok and self.progress.seen(parse_metrics(probed.text), 0, self._clock()).restarted

    def happened(self) -> None:
        """One more; what came of the one before will not be known any more."""
        self.count += 1
        self._tell(None)
        self._returned = asyncio.get_running_loop().create_future()

    async def look_who_returned(self) -> bool:
        """Called when the server answers again: whether the last death has just turned out to be none."""
        if self._returned is None or self._returned.done():
            return False
        death = self.count
        probed = await self._client.metrics_text()
        if death != self.count:
            return False  # another meanwhile
        restarted = self.progress.has_restarted(parse_metrics(probed.text)) if probed.ok else None
        if restarted is False:
            self._survived.add(self.count)
        self._tell(restarted)
        return restarted is False

    def _tell(self, restarted: bool | None) -> None:
        if self._returned is not None and not self._returned.done():
            self._returned.set_result(restarted)

    def survived(self, death: int) -> bool:
        """Whether the n-th has turned out to be none."""
        return death in self._survived

    async def against(self, evidence: Evidence, answer: Answer) -> Evidence | None:
        """What the death that this answer tells of says against its page; None if the server did not die.

        A dead engine says so. Else a page that was alone waits here for the server's return, since a tunnel that is
        away for a second looks like a death too: a page is not blamed for a death that was none.
        """
        if evidence is Evidence.BESIDE or answer.outcome == "engine_dead":
            return evidence
        restarted = None
        if self._returned is not None:
            with suppress(TimeoutError):
                restarted = await asyncio.wait_for(asyncio.shield(self._returned), self._patience)
        if restarted is None:
            return Evidence.DOUBTFUL
        return evidence if restarted else None

    async def aclose(self) -> None:
        if self._confirming is not None:
            self._confirming.cancel()
            await asyncio.gather(self._confirming, return_exceptions=True)
