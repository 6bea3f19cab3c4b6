"""The deaths of one server, and which of them turned out to be only lost connections: the server itself is asked.

Here belongs how a dead server is told from a fault on the way to it. Not here: what a death means for the server
(live_backend.py), for a page (failover.py), and for the number of pages the server is given (admission.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from ocr_pipeline.ocr.fleet.failover import Evidence
from ocr_pipeline.ocr.fleet.health import Progress
from ocr_pipeline.ocr.fleet.server_metrics import parse_metrics
from ocr_pipeline.ocr.vllm.answers import Answer
from ocr_pipeline.ocr.vllm.client import VllmClient

CONFIRM_AFTER = (0.0, 0.3)  # seconds before each check: a server whose connections are lost refuses at once


class Deaths:
    """One server's."""

    def __init__(
        self, client: VllmClient, *, recovery_timeout: float, clock: Callable[[], float], changed: Callable[[], None]
    ) -> None:
        """`recovery_timeout`: seconds that a page waits for the server's return. `changed` is called when it is known
        whether the server is dead.
        """
        self.count = 0
        self.progress = Progress()  # of the server's process, as the last poll showed it
        self._client = client
        self._recovery_timeout = recovery_timeout
        self._clock = clock
        self._changed = changed
        self._false_alarms: set[int] = set()  # deaths by number that were only a lost connection
        self._restarted: asyncio.Future[bool | None] | None = None  # since the last one: is it another process?
        self._confirming: asyncio.Task[bool] | None = None

    @property
    def is_confirming(self) -> bool:
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
        return probed.ok and self.progress.observe(parse_metrics(probed.text), 0, self._clock()).restarted

    def record(self) -> None:
        """Another death. Whether the one before was real can no longer be found out."""
        self.count += 1
        self._resolve(None)
        self._restarted = asyncio.get_running_loop().create_future()

    async def check_restarted(self) -> bool:
        """Called when the server answers again: whether the last death has just turned out to be none."""
        if self._restarted is None or self._restarted.done():
            return False
        death = self.count
        probed = await self._client.metrics_text()
        if death != self.count:
            return False  # another meanwhile
        restarted = self.progress.has_restarted(parse_metrics(probed.text)) if probed.ok else None
        if restarted is False:
            self._false_alarms.add(self.count)
        self._resolve(restarted)
        return restarted is False

    def _resolve(self, restarted: bool | None) -> None:
        if self._restarted is not None and not self._restarted.done():
            self._restarted.set_result(restarted)

    def was_false_alarm(self, death: int) -> bool:
        """Whether the n-th has turned out to be none."""
        return death in self._false_alarms

    async def evidence_against(self, evidence: Evidence, answer: Answer) -> Evidence | None:
        """What the death that this answer reports says against its page; None if the server did not die.

        An engine that died says so in its answer. Otherwise a page that was alone waits here for the server's return: a
        tunnel that is away for a second looks like a death too, and a page must not be blamed for that.
        """
        if evidence is Evidence.NOT_ALONE or answer.outcome == "engine_dead":
            return evidence
        restarted = None
        if self._restarted is not None:
            with suppress(TimeoutError):
                restarted = await asyncio.wait_for(asyncio.shield(self._restarted), self._recovery_timeout)
        if restarted is None:
            return Evidence.DOUBTFUL
        return evidence if restarted else None

    async def aclose(self) -> None:
        if self._confirming is not None:
            self._confirming.cancel()
            await asyncio.gather(self._confirming, return_exceptions=True)
