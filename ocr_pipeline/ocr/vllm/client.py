"""One vLLM server as seen from one page: sends one request, and makes of whatever happens one `Answer`.

Here belongs the wire: the request's bytes, the time limits, the size limit of what comes back, lost connections. What
a status and a body mean is decided in `responses.py`; who is asked, when, and what is done next is the fleet's.
"""

from __future__ import annotations

import asyncio
import html
import json
import re
import ssl
import time
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx

from ocr_pipeline.ocr.vllm.answers import Answer, Ask, Fault
from ocr_pipeline.ocr.vllm.backends import Backend
from ocr_pipeline.ocr.vllm.responses import (
    MAX_DETAIL,
    ParsedResponse,
    one_line,
    parse_json,
    read_completion,
    read_refusal,
)

MAX_ANSWER = 8 * 1024**2  # bytes; 16,384 tokens are about 100 kB, and twice that in JSON's escapes
PROBE_SECONDS = 10.0  # for health, models and metrics
# vLLM closes an idle connection after 5 s (VLLM_HTTP_TIMEOUT_KEEP_ALIVE): one of that age must not be used again.
KEEP_ALIVE_SECONDS = 4.0
# A used connection that fails sooner than this was closed by the server before the page came to it: no page is
# decoded and read in less.
STALE_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What a plain GET said. `fault is None` means status 200, and `text` is the body."""

    outcome: str  # "ok", or a code as in `Answer.outcome`
    text: str = ""
    detail: str = ""
    fault: Fault | None = None

    @property
    def ok(self) -> bool:
        return self.fault is None


@dataclass(frozen=True, slots=True)
class ServedModel:
    id: str
    max_model_len: int | None = None


@dataclass(frozen=True, slots=True)
class ServedModels:
    """What GET /v1/models said. `fault is None` means that `models` is its answer."""

    outcome: str
    models: tuple[ServedModel, ...] = ()
    detail: str = ""
    fault: Fault | None = None


class VllmClient:
    """Speaks to one backend. Nothing that a server or a network does raises; cancelling passes through."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._connections = _Connections(backend)
        secrets = [backend.api_key] if backend.api_key else []
        self._mask = _Mask(secret.get_secret_value() for secret in (*secrets, *backend.headers.values()))
        self._headers = {name: value.get_secret_value() for name, value in backend.headers.items()}
        if backend.api_key:
            self._headers["Authorization"] = f"Bearer {backend.api_key.get_secret_value()}"

    async def ask(self, ask: Ask) -> Answer:
        """Sends one page. One request, no retry; `Answer.seconds` is the whole of it."""
        started = time.monotonic()
        headers = {
            "Content-Type": "application/json",
            "X-Request-Id": _UNSAFE_ID.sub("-", ask.request_id)[:128] or "page",
        }
        parsed = await self._exchange(
            "POST",
            "/v1/chat/completions",
            min(ask.timeout, self.backend.timeout),
            headers=headers,
            content=request_body(self.backend, ask),
        )
        return Answer(
            outcome=parsed.outcome,
            seconds=time.monotonic() - started,
            text=parsed.text,
            finish_reason=parsed.finish_reason,
            prompt_tokens=parsed.prompt_tokens,
            completion_tokens=parsed.completion_tokens,
            fault=parsed.fault,
            detail=parsed.detail,
            retry_after=parsed.retry_after,
        )

    async def health(self) -> ProbeResult:
        """GET /health. 200 also for a hung engine: whether it makes progress is in the metrics."""
        return await self._get("/health")

    async def metrics_text(self) -> ProbeResult:
        """GET /metrics, in the Prometheus text form."""
        return await self._get("/metrics")

    async def version(self) -> str | None:
        """What GET /version says, None where it says nothing usable."""
        probed = await self._get("/version")
        answer = parse_json(probed.text.encode()) if probed.ok else None
        version = answer.get("version") if isinstance(answer, dict) else None
        return one_line(version)[:80] if isinstance(version, str) else None

    async def models(self) -> ServedModels:
        """GET /v1/models, which also proves the API key."""
        probed = await self._get("/v1/models")
        if not probed.ok:
            return ServedModels(probed.outcome, detail=probed.detail, fault=probed.fault)
        answer = parse_json(probed.text.encode())
        listed = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(listed, list):
            return ServedModels("not_vllm", detail="/v1/models is not vLLM's", fault=Fault.CONFIG)
        models = []
        for model in listed:
            if isinstance(model, dict) and isinstance(model.get("id"), str):
                longest = model.get("max_model_len")
                models.append(ServedModel(model["id"], longest if isinstance(longest, int) else None))
        return ServedModels("ok", tuple(models))

    async def aclose(self) -> None:
        await self._connections.aclose()

    async def _get(self, path: str) -> ProbeResult:
        parsed = await self._exchange("GET", path, PROBE_SECONDS)
        return ProbeResult(parsed.outcome, parsed.text, parsed.detail, parsed.fault)

    async def _exchange(
        self,
        method: str,
        path: str,
        seconds: float,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> ParsedResponse:
        """One request and what came back, whatever happens."""
        wire = _Wire()
        connection = self._connections.take()
        whole = False  # the exchange came to its end, and the connection may be used again
        timeout = httpx.Timeout(seconds, connect=min(self.backend.connect_timeout, seconds))
        try:
            # httpx counts its time from one byte to the next: a server that drips would never be late.
            async with asyncio.timeout(seconds):
                request = httpx.Request(
                    method,
                    self.backend.url + path,
                    headers=_HEADERS | self._headers | dict(headers or {}),
                    content=content,
                    extensions={"trace": wire.trace, "timeout": timeout.as_dict()},
                )
                parsed = await self._send(connection, request)
                whole = True
        except TimeoutError:
            parsed = ParsedResponse("timeout", Fault.TRANSIENT, f"no whole answer within {seconds:g} s")
        except Exception as error:  # httpx, httpcore, h11, ssl and anyio each have their own, and this must not raise
            parsed = _from_exception(error, wire, self._mask, carried_a_page=method == "POST")
        finally:
            self._connections.release(connection) if whole else self._connections.discard(connection)
        return parsed

    async def _send(self, connection: httpx.AsyncHTTPTransport, request: httpx.Request) -> ParsedResponse:
        response = await connection.handle_async_request(request)
        body = bytearray()
        try:
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > MAX_ANSWER:
                    return ParsedResponse(
                        "answer_too_large", Fault.TRANSIENT, f"more than {MAX_ANSWER} bytes: not read on"
                    )
        except httpx.TransportError:
            # A connection that is lost within an error's body changes nothing about the error.
            if response.status_code == 200:
                raise
        finally:
            await response.aclose()
        received = {name.lower(): value for name, value in response.headers.items()}
        if received.get("content-encoding", "identity").lower() not in ("", "identity"):
            # Nothing but plain bytes was asked for, and what unpacks without a bound is not unpacked.
            return ParsedResponse(
                "bad_answer", Fault.TRANSIENT, "the body is compressed although that was not asked for"
            )
        if response.status_code == 200:
            if request.method != "POST":
                return ParsedResponse("ok", text=body.decode("utf-8", "replace"))
            parsed = read_completion(received, bytes(body))
            return read_completion(received, self._mask(bytes(body))) if parsed.fault is not None else parsed
        return read_refusal(response.status_code, received, self._mask(bytes(body)))


class _Mask:
    """Takes secrets out of what a server says: it may say back what it was sent, in the quoting of JSON (also of a
    text within a text), Python, HTML or a URL. It works on the whole body, since a secret
    that is cut is not found any more."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms: set[str] = set()
        for secret in filter(None, secrets):
            for form in (secret, json.dumps(secret)[1:-1], repr(secret)[1:-1]):
                forms |= {form, json.dumps(form)[1:-1], html.escape(form)}
            forms |= {quote(secret), quote(secret, "")}
        longest_first = sorted(forms, key=len, reverse=True)
        self._pattern = re.compile(b"|".join(re.escape(form.encode()) for form in longest_first)) if forms else None

    def __call__(self, body: bytes) -> bytes:
        return self._pattern.sub(b"***", body) if self._pattern is not None else body


_UNSAFE_ID = re.compile(r"[^A-Za-z0-9._-]")


def request_body(backend: Backend, ask: Ask) -> bytes:
    """The request as JSON bytes.

    The image is put between two halves of the JSON: encoding it with the rest would escape and copy a megabyte.
    `max_tokens` is bounded by what the server's context leaves, since releases up to 0.31 refuse more with 400.
    """
    model, rung = backend.model, ask.rung
    image: dict[str, Any] = {"type": "image_url", "image_url": {"url": _IMAGE}}
    parts = [image]
    if rung.prompt is not None:
        text = {"type": "text", "text": rung.prompt}
        parts = [image, text] if model.image_first else [text, image]
    messages: list[dict[str, Any]] = [{"role": "user", "content": parts}]
    if model.system_prompt is not None:
        messages.insert(0, {"role": "system", "content": model.system_prompt})
    payload = {"model": backend.served_model, "messages": messages, **rung.sampling, **rung.extra_body}
    if "max_tokens" in payload:
        payload["max_tokens"] = min(payload["max_tokens"], backend.max_model_len - model.prompt_tokens)
    if ask.priority:
        payload["priority"] = ask.priority
    head, _, tail = json.dumps(payload).encode().partition(_IMAGE_JSON)
    return b"".join((head, b'"data:image/jpeg;base64,', b64encode(ask.jpeg), b'"', tail))


_IMAGE = "\0image\0"  # no prompt has a NUL
_IMAGE_JSON = json.dumps(_IMAGE).encode()


_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "ocr-pipeline"}


class _Connections:
    """Connections to one server, each a transport of its own, used by one request at a time. No proxy, no redirect.

    Not one httpx client with a pool: httpcore (1.0.9) loses a place of the pool for ever when a request is cancelled at
    a bad moment, since its clean-up is shielded by anyio and asyncio's own cancel goes through that. After one server's
    death 6 of 20 places were gone, after 320 requests cancelled at random 7. Requests are cancelled as a matter of
    course here (deaths, hangs, second requests), so a connection whose request did not come to its end is thrown away.
    """

    def __init__(self, backend: Backend) -> None:
        self._free: list[httpx.AsyncHTTPTransport] = []
        self._closing: set[asyncio.Task[None]] = set()
        # Loading the certificates takes 20 ms; without https an empty context will do, which trusts nobody.
        secure = backend.url.startswith("https:")
        self._verify = httpx.create_ssl_context(trust_env=False) if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    def take(self) -> httpx.AsyncHTTPTransport:
        """The one that was used last, which is most likely still open, or a new one."""
        if self._free:
            return self._free.pop()
        limits = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=KEEP_ALIVE_SECONDS)
        return httpx.AsyncHTTPTransport(verify=self._verify, trust_env=False, http2=False, limits=limits)

    def release(self, connection: httpx.AsyncHTTPTransport) -> None:
        self._free.append(connection)

    def discard(self, connection: httpx.AsyncHTTPTransport) -> None:
        """Closes the connection, which is how the server learns that nobody waits."""
        task = asyncio.get_running_loop().create_task(connection.aclose(), name="close a connection")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def aclose(self) -> None:
        free, self._free = self._free, []
        await asyncio.gather(*(connection.aclose() for connection in free), *self._closing, return_exceptions=True)


@dataclass(slots=True)
class _Wire:
    """How far a request got: what a lost connection means depends on it."""

    started: float = field(default_factory=time.monotonic)
    connected: bool = False  # a connection of its own was made, not one used again
    sent: bool = False  # the whole request is with the server, or on its way

    async def trace(self, event: str, info: Mapping[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            self.connected = True
        elif event == "http11.send_request_body.complete":
            self.sent = True


def _from_exception(error: Exception, wire: _Wire, mask: _Mask, *, carried_a_page: bool) -> ParsedResponse:
    """What an exception of the connection means."""
    words = mask(str(error).encode("utf-8", "replace")).decode()
    detail = f"{type(error).__name__}: {one_line(words)}"[:MAX_DETAIL]
    if isinstance(error, httpx.ConnectTimeout):
        return ParsedResponse("connect_timeout", Fault.TRANSIENT, detail)
    if isinstance(error, httpx.TimeoutException):
        return ParsedResponse("timeout", Fault.TRANSIENT, detail)
    if isinstance(error, httpx.ConnectError):
        if "certificate" in str(error).lower():
            return ParsedResponse("tls_failed", Fault.CONFIG, f"the server's certificate is not trusted ({detail})")
        return ParsedResponse("connect_failed", Fault.TRANSIENT, detail)
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol | httpx.LocalProtocolError):
        # The exception's text would show the header's value.
        return ParsedResponse(
            "bad_request", Fault.CONFIG, "the url or a header cannot be sent: look at url and headers_env"
        )
    if not isinstance(error, httpx.TransportError | OSError):
        return ParsedResponse("client_failed", Fault.TRANSIENT, detail)
    if isinstance(error, httpx.RemoteProtocolError) and not _CLOSED.search(str(error)):
        return ParsedResponse("bad_answer", Fault.TRANSIENT, f"not HTTP ({detail})")
    if not wire.sent:
        # The server never had the whole page: the page cannot have hurt it.
        return ParsedResponse("send_failed", Fault.TRANSIENT, detail)
    if not wire.connected and time.monotonic() - wire.started < STALE_SECONDS:
        return ParsedResponse("connection_stale", Fault.TRANSIENT, detail)
    return ParsedResponse("connection_lost", Fault.DEATH if carried_a_page else Fault.TRANSIENT, detail)


_CLOSED = re.compile("disconnected|closed connection")  # how httpcore and h11 word a connection closed early
