"""HTTP/1.1 on asyncio, as cheap as it gets: parsed by httptools, answered with one write.

It behaves as the uvicorn under vLLM does where a client can see it: keep-alive for 5 idle seconds, 400 for what is
not HTTP, a request is dropped when its client goes away. Not here: what is answered.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections import deque
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import cast

import httptools

KEEP_ALIVE_SECONDS = 5.0  # uvicorn's default, and vLLM's (VLLM_HTTP_TIMEOUT_KEEP_ALIVE)


class HttpRequest:
    __slots__ = ("body", "headers", "keep_alive", "method", "path")

    def __init__(self) -> None:
        self.method = self.path = ""
        self.headers: dict[str, str] = {}
        self.body = b""
        self.keep_alive = True


Handler = Callable[[HttpRequest, "Connection"], Awaitable[None]]


class Connection(asyncio.Protocol):
    """One client connection; requests on it are answered one after the other."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._request = HttpRequest()
        self._chunks: list[bytes] = []
        self._queue: deque[HttpRequest] = deque()
        self._answering = self._request
        self._task: asyncio.Task[None] | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._chunked = False

    # ---- asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._stop_idling()
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        self._stop_idling()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.send(400, b"Invalid HTTP request received.", "text/plain; charset=utf-8", close=True)

    # ---- httptools

    def on_message_begin(self) -> None:
        self._request = HttpRequest()
        self._chunks = []

    def on_url(self, url: bytes) -> None:
        self._request.path = url.partition(b"?")[0].decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._request.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._request.method = self._parser.get_method().decode("ascii")
        self._request.keep_alive = self._parser.should_keep_alive()
        if self._request.headers.get("expect", "").lower() == "100-continue":
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        self._request.body = b"".join(self._chunks)
        self._queue.append(self._request)
        if self._task is None:
            self._task = self._loop.create_task(self._answer_all())

    async def _answer_all(self) -> None:
        try:
            while self._queue and self._transport is not None:
                self._answering = self._queue.popleft()
                try:
                    await self._handler(self._answering, self)
                except Exception:  # a fault of the simulator's own must be seen, and keep nobody waiting
                    traceback.print_exc()
                    self.send(500, b"the simulator has a fault: see its stderr", "text/plain", close=True)
        finally:
            self._task = None
            if self._transport is not None:
                self._idle = self._loop.call_later(KEEP_ALIVE_SECONDS, self.close)

    def _stop_idling(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    # ---- answers

    @property
    def is_open(self) -> bool:
        return self._transport is not None

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def send(
        self,
        status: int,
        body: bytes,
        content_type: str = "application/json",
        *,
        headers: tuple[tuple[str, str], ...] = (),
        close: bool = False,
    ) -> None:
        self.write(head(status, content_type, (*headers, ("content-length", str(len(body))))) + body)
        if close or not self._answering.keep_alive:
            self.close()

    def start_stream(self) -> None:
        self.write(head(200, "text/event-stream; charset=utf-8", (("transfer-encoding", "chunked"),)))

    def stream(self, data: str) -> None:
        raw = data.encode()
        self.write(b"%x\r\n%s\r\n" % (len(raw), raw))

    def end_stream(self) -> None:
        self.write(b"0\r\n\r\n")


_date = (0, "")


def _now() -> str:
    global _date
    second = int(time.time())
    if _date[0] != second:
        _date = (second, formatdate(second, usegmt=True))
    return _date[1]


def head(status: int, content_type: str, headers: tuple[tuple[str, str], ...]) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unknown"
    lines = [f"HTTP/1.1 {status} {phrase}", f"date: {_now()}", "server: uvicorn"]
    if content_type:
        lines.append(f"content-type: {content_type}")
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
