"""A server on a loopback socket that says exactly the bytes a test gives it, however odd."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from ocr_pipeline.ocr.vllm.answers import Ask
from ocr_pipeline.ocr.vllm.backends import Backend
from ocr_pipeline.ocr.vllm.gpus import RTX_4090
from ocr_pipeline.ocr.vllm.models import DEEPSEEK_OCR

JPEG = b"\xff\xd8\xff\xe0 not really a picture, and never looked at \xff\xd9"


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


Handler = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class OddServer:
    url: str = ""
    connections: int = 0
    requests: list[Request] = field(default_factory=list)


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[OddServer]:
    """Reads whole requests and hands each to `handler`; a connection stays open until the handler closes it."""
    server = OddServer()
    writers: set[asyncio.StreamWriter] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        writers.add(writer)
        try:
            while not writer.is_closing():
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, path, _ = head[0].split(" ")
                headers = {
                    name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)
                }
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                request = Request(method, path, headers, body)
                server.requests.append(request)
                await handler(request, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writers.discard(writer)
            writer.close()

    listening = await asyncio.start_server(connected, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listening.close()
        for writer in list(writers):
            writer.transport.abort()


def says(raw: bytes, *, close: bool = False) -> Handler:
    """The same bytes to every request."""

    async def handler(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        if close:
            await writer.drain()
            writer.close()

    return handler


def http(status: int | str, body: bytes | str | object, *headers: str, type: str = "application/json") -> bytes:
    """A whole HTTP/1.1 response; a body that is neither bytes nor text is sent as JSON."""
    if not isinstance(body, bytes):
        body = (body if isinstance(body, str) else json.dumps(body)).encode()
    lines = [f"HTTP/1.1 {status} X", f"content-type: {type}", f"content-length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def completion(content: object, finish: object = "stop", **usage: object) -> dict[str, object]:
    """As vLLM 0.32 answers, with the fields that nobody needs."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "deepseek-ai/DeepSeek-OCR",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content, "refusal": None, "reasoning": None},
                "logprobs": None,
                "finish_reason": finish,
                "stop_reason": None,
                "token_ids": None,
            }
        ],
        "usage": {"prompt_tokens": 939, "total_tokens": 953, "completion_tokens": 14} | usage,
        "prompt_logprobs": None,
    }


def backend(url: str, **changes: Any) -> Backend:
    made = Backend(
        name="rtx4090",
        url=url,
        gpu=RTX_4090,
        model=DEEPSEEK_OCR,
        served_model="deepseek-ocr",
        max_in_flight=4,
        dpi=150,
        timeout=20.0,
        max_model_len=8192,
    )
    return replace(made, **changes)


def an_ask(**changes: Any) -> Ask:
    return replace(Ask(jpeg=JPEG, rung=DEEPSEEK_OCR.rungs[0], request_id="page-0001"), **changes)
