"""Requests as the contract suite makes them: small images, chat bodies, and the reading of /metrics."""

from __future__ import annotations

import base64
import contextlib
import functools
import io
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from http.client import HTTPResponse
from typing import Any
from urllib.parse import urlsplit

import httpx
from PIL import Image

from ocr_pipeline_tests.vllm_contract.servers import ServerUnderTest

MODEL = "deepseek-ai/DeepSeek-OCR"
PROMPT = "<|grounding|>Convert the document to markdown."
PATH = "/v1/chat/completions"
CLEAN = (
    "<|ref|>title<|/ref|><|det|>[[56, 48, 941, 102]]<|/det|>\n# Tiny title\n\n"
    "<|ref|>text<|/ref|><|det|>[[60, 120, 930, 300]]<|/det|>\nTiny paragraph, größer 中文.\n\n"
    "<|ref|>table<|/ref|><|det|>[[60, 320, 930, 500]]<|/det|>\n<table><tr><td>a</td></tr></table>"
)
"""What the tiny model says to a prompt that ends in a full stop: 13 tokens and the end token."""


@functools.cache
def picture(width: int = 64, height: int = 64, kind: str = "PNG", mode: str = "RGB") -> bytes:
    color: Any = (200, 210, 220) if mode == "RGB" else 0
    file = io.BytesIO()
    Image.new(mode, (width, height), color).save(file, kind)
    return file.getvalue()


@functools.cache
def poison(width: int = 1280, height: int = 1280) -> bytes:
    """Half black, half white: its normalised crops sum to exactly 0, which vLLM takes for no crops at all."""
    image = Image.new("RGB", (width, height), "white")
    image.paste("black", (0, 0, width, height // 2))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def data_url(data: bytes, mime: str = "image/png") -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


_REMOVED = object()
without: Any = _REMOVED
"""As a value in `body`: leave the field out."""


def body(text: str | None = PROMPT, *urls: str, **fields: Any) -> dict[str, Any]:
    """A chat request as the pipeline sends it, with one small image unless `urls` are given."""
    content: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": url}} for url in urls or (data_url(picture()),)
    ]
    if text is not None:
        content.append({"type": "text", "text": text})
    whole = {
        "model": MODEL,
        "messages": [{"role": "user", "content": content}],
        "temperature": 0,
        "max_tokens": 30,
        "skip_special_tokens": False,
        **fields,
    }
    return {name: value for name, value in whole.items() if value is not _REMOVED}


def messages(*contents: Any, role: str = "user") -> list[dict[str, Any]]:
    return [{"role": role, "content": content} for content in contents]


def sent(url: str, request: dict[str, Any], key: str = "") -> socket.socket:
    """A connection on which this request has been sent and nothing been read: close it and the client is gone."""
    address = urlsplit(url)
    assert address.hostname is not None
    content = json.dumps(request).encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(content)}\r\nAuthorization: Bearer {key}\r\n\r\n"
    connection = socket.create_connection((address.hostname, address.port or 80), timeout=60)
    connection.sendall(head.encode() + content)
    return connection


def read_status(connection: socket.socket) -> int:
    """The status of the next answer, which is read to its end: head and body may come in pieces."""
    answer = HTTPResponse(connection)
    answer.begin()
    answer.read()
    return answer.status


def read_all(connection: socket.socket) -> bytes:
    """Everything until the server closes the connection, whether it does so in order or not."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(65536):
            received += data
    return received


class Metrics:
    """One reading of /metrics."""

    def __init__(self, text: str) -> None:
        self.types = dict(re.findall(r"^# TYPE (vllm:\S+) (\w+)$", text, re.MULTILINE))
        self.samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for name, labels, value in re.findall(r"^(vllm:[\w:]+)(?:\{(.*)\})? (\S+)$", text, re.MULTILINE):
            pairs = frozenset(re.findall(r'(\w+)="([^"]*)"', labels))
            self.samples[name, pairs] = float(value)

    def get(self, name: str, **labels: str) -> float:
        """The sum of all samples of this name that carry these labels."""
        wanted = set(labels.items())
        found = [value for (n, pairs), value in self.samples.items() if n == f"vllm:{name}" and wanted <= pairs]
        assert found, f"no sample vllm:{name} {labels}"
        return sum(found)

    def label_names(self, name: str) -> set[frozenset[str]]:
        return {frozenset(key for key, _ in pairs) for (n, pairs) in self.samples if n == name}


def metrics(http: httpx.Client) -> Metrics:
    return Metrics(http.get("/metrics").text)


def idle_metrics(http: httpx.Client) -> Metrics:
    """Waits until no request runs or waits."""
    readings: list[Metrics] = []

    def is_idle() -> bool:
        readings.append(metrics(http))
        return readings[-1].get("num_requests_running") + readings[-1].get("num_requests_waiting") == 0

    wait_until(is_idle, "the server never became idle", seconds=60)
    return readings[-1]


@contextlib.contextmanager
def paused(server: ServerUnderTest, http: httpx.Client) -> Iterator[Callable[[int], None]]:
    """The engine of a server that tracks its load stands still, so that what is sent meanwhile stays in flight.

    What is given waits until there are so many such requests. With an engine at work nothing could be counted on: on
    two cores a decoding vLLM may leave its own API server, and this process, without a processor for seconds, longer
    than the longest answer takes.
    """
    idle_metrics(http)
    idle = load(http)
    with server.paused_engine():
        yield lambda count: wait_until(lambda: load(http) == idle + count, f"never {count} requests in flight")


@contextlib.contextmanager
def paused_when(server: ServerUnderTest, http: httpx.Client, condition: Callable[[Metrics], bool]) -> Iterator[Metrics]:
    """Lets the engine work a moment at a time until /metrics fulfils the condition; it stands still in the block."""
    until = time.monotonic() + 30
    while True:
        with server.paused_engine():
            reading = metrics(http)
            if condition(reading):
                yield reading
                return
        assert time.monotonic() < until, {name: v for (name, _), v in reading.samples.items() if "num_requests" in name}
        time.sleep(0.05)  # the moment


@contextlib.contextmanager
def held_in_flight(server: ServerUnderTest, http: httpx.Client, count: int, key: str) -> Iterator[None]:
    """So many requests in flight that do not end before this does, on a server that tracks its load."""
    with paused(server, http) as wait_for_in_flight, contextlib.ExitStack() as connections:
        for _ in range(count):
            connections.enter_context(sent(server.url, body(messages=messages("loop!")), key))
        wait_for_in_flight(count)
        yield
    idle_metrics(http)


def load(http: httpx.Client) -> int:
    return int(http.get("/load").json()["server_load"])


def wait_until(is_so: Callable[[], bool], otherwise: str, seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until, otherwise
        time.sleep(0.02)  # between two polls
