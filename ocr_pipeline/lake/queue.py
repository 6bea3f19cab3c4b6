"""New uploads from R2's event notifications, by the HTTP pull API of a Cloudflare Queue.

The order is the rule: `pull`, then the caller writes the batch lists, then `acknowledge`. A crash in between only
brings the same events again. Here: the requests, and what becomes of each message. Not here: what an event says
(`events.py`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import httpx

from ocr_pipeline.lake import events
from ocr_pipeline.lake.current import stat_many
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.records import Upload

log = logging.getLogger(__name__)

MESSAGES = 100  # of one pull: the most that the API gives
ATTEMPTS = 4
RETRY_SECONDS = 60
ANSWER_SECONDS = 10.0
"""For one whole answer, however it drips; all attempts of a request end before the 60 s that Dagster gives a tick."""

MOST_BYTES = 32 * 2**20  # of an answer: 100 messages of 128 kB, as the API takes them, are 17 MB in base64


class QueueError(Exception):
    """The queue could not be asked; the message says what to do. Nothing is lost: its messages come again."""


@dataclass(frozen=True, slots=True)
class QueueOptions:
    """Where the queue is. The token needs the right "Queues: read and write" and is never shown."""

    api_url: str
    account_id: str
    queue_id: str
    token: str = field(repr=False)
    bucket: str
    lake_prefix: str = ""  # the lake's place in the bucket, as in OCR_LAKE, without slashes at its ends
    visibility_seconds: float = 600
    """For how long pulled messages are ours: longer than it takes to write the batch lists of one tick."""


@dataclass(slots=True)
class Pulled:
    """What the events of one pull come to, held against the store."""

    uploads: list[Upload] = field(default_factory=list)  # as they stand now, each key once
    deleted: list[str] = field(default_factory=list)  # keys of which nothing is there any more
    more: bool = False  # time or count ran out before the queue was empty
    undecodable: int = 0  # no R2 events; given back
    foreign: int = 0  # about other buckets, prefixes, hidden files
    refused_keys: list[str] = field(default_factory=list)  # what is there the store does not say; given back
    leases: dict[str, list[str]] = field(default_factory=dict, repr=False)  # by key; foreign ones under ""
    given_back: list[str] = field(default_factory=list, repr=False)  # leases

    def give_back(self, keys: Iterable[str]) -> None:
        """Lets the messages about these keys come again: they are not acknowledged."""
        for key in keys:
            self.given_back += self.leases.pop(key, [])

    @property
    def messages(self) -> int:
        return sum(map(len, self.leases.values())) + len(self.given_back)


class QueuePull:
    """One queue. A context manager: it holds an HTTP connection."""

    def __init__(self, options: QueueOptions) -> None:
        self._options = options
        # httpx counts its time from one byte to the next; only what is asynchronous can be given up as a whole.
        self._loop = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._client = httpx.AsyncClient(
            base_url=f"{options.api_url.rstrip('/')}/accounts/{options.account_id}/queues/{options.queue_id}",
            # what unpacks without a bound is not asked for, and not unpacked
            headers={"Authorization": f"Bearer {options.token}", "Accept-Encoding": "identity"},
            timeout=ANSWER_SECONDS,
        )

    def __enter__(self) -> QueuePull:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._loop.run(self._client.aclose())
        self._loop.close()

    def pull(
        self,
        storage: Storage,
        inbox: str,
        *,
        out_of_time: Callable[[], bool] = lambda: False,
        most: int = 2000,
    ) -> Pulled:
        """Take events until the queue is empty, time is up or `most` messages are held; then ask the store what is.

        Raises QueueError and StorageError; nothing is acknowledged then.
        """
        pulled = Pulled()
        prefix = f"{self._options.lake_prefix.strip('/')}/".lstrip("/")
        while True:
            messages = self._pull_once()
            for message in messages:
                self._sort(message, pulled, prefix, inbox)
            if not messages:
                break
            if out_of_time() or pulled.messages >= most:
                pulled.more = True
                break
        stats = stat_many(storage, [key for key in pulled.leases if key])
        pulled.deleted += stats.missing
        pulled.uploads += [info.as_upload() for info in stats.found.values()]
        for key, error in stats.refused.items():
            log.warning("the event of %s is given back to the queue: %s", ascii(key), error)
        pulled.refused_keys += stats.refused
        pulled.give_back(stats.refused)
        return pulled

    def acknowledge(self, pulled: Pulled) -> None:
        """Tell the queue that every upload and deletion of `pulled` is in a written batch list.

        What was given back, and what could not be read as an event, comes again; after the queue's `max_retries` it
        goes to the dead-letter queue, and stands in nobody's way. Raises QueueError: the events come again, which is
        harmless.
        """
        acks = [{"lease_id": lease} for leases in pulled.leases.values() for lease in leases]
        retries = [{"lease_id": lease, "delay_seconds": RETRY_SECONDS} for lease in pulled.given_back]
        while acks or retries:
            self._post("/messages/ack", {"acks": acks[:MESSAGES], "retries": retries[:MESSAGES]})
            acks, retries = acks[MESSAGES:], retries[MESSAGES:]

    def _sort(self, message: dict[str, Any], pulled: Pulled, lake_prefix: str, inbox: str) -> None:
        lease = message.get("lease_id")
        if not isinstance(lease, str):
            raise QueueError(f"{self._client.base_url} gave a message without a lease: is it the Queues API?")
        event = events.decode(message)
        if event is None:
            log.warning("message %s of the queue is no R2 event; given back", ascii(message.get("id"))[:80])
            pulled.undecodable += 1
            pulled.given_back.append(lease)
            return
        key = events.upload_key(event, self._options.bucket, lake_prefix, inbox)
        pulled.foreign += key is None
        pulled.leases.setdefault(key or "", []).append(lease)

    def _pull_once(self) -> list[dict[str, Any]]:
        asked = {"batch_size": MESSAGES, "visibility_timeout_ms": int(self._options.visibility_seconds * 1000)}
        result = self._post("/messages/pull", asked)
        messages = result.get("messages") or []
        if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
            raise QueueError(f"{self._client.base_url} answered something else than messages: is it the Queues API?")
        return messages

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                status, answer = self._loop.run(self._exchange(path, body))
                error = None if status == 200 else self._error_response(status, answer)
                passes = status == 429 or status >= 500
            except (httpx.HTTPError, TimeoutError) as fault:
                error = QueueError(
                    f"cannot reach {self._client.base_url} ({type(fault).__name__}): check OCR_QUEUE_API_URL and the "
                    "network"
                )
                passes = True
            if error is None:
                return self._result(answer)
            if not passes or attempt == ATTEMPTS:
                raise error
            time.sleep(random.uniform(0.5, 1.0) * 0.5 * 2 ** (attempt - 1))  # noqa: S311
        raise AssertionError("unreachable")

    async def _exchange(self, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
        """HTTP status and body, as it came."""
        said = bytearray()
        async with asyncio.timeout(ANSWER_SECONDS), self._client.stream("POST", path, json=body) as answer:
            async for piece in answer.aiter_raw():
                said += piece
                if len(said) > MOST_BYTES:
                    raise QueueError(
                        f"{self._client.base_url} answered more than {MOST_BYTES} bytes: is it the Queues API?"
                    )
            return answer.status_code, bytes(said)

    def _result(self, answer: bytes) -> dict[str, Any]:
        try:
            said = json.loads(answer)
            result = said["result"] if said["success"] else None
        except (ValueError, KeyError, TypeError, RecursionError):
            result = None
        if not isinstance(result, dict):
            raise QueueError(f"{self._client.base_url} answered: {_beginning(answer)}")
        return result

    def _error_response(self, status: int, answer: bytes) -> QueueError:
        mend = {
            401: "the token is not accepted: check OCR_QUEUE_TOKEN",
            403: "the token lacks the right: give it Queues read and write (OCR_QUEUE_TOKEN)",
            404: "there is no such queue, or it has no HTTP pull consumer: check OCR_QUEUE_ID and R2_ACCOUNT_ID, and "
            "run `wrangler queues consumer http add <queue>`",
            429: "it asks to slow down, even after several attempts",
        }.get(status, f"it answered {status}: {_beginning(answer)}")
        return QueueError(f"{self._client.base_url}: {mend}")


def _beginning(answer: bytes) -> str:
    return repr(answer[:200].decode("utf-8", "replace"))
