"""What a server's status and body mean: text, or a fault for the page, the configuration, or the moment.

Here belongs the table of everything vLLM, and the proxies before it, were seen to answer (0.11 to 0.33). Pure: bytes
in, a `ParsedResponse` out, and nothing that a server can send raises. Not here: lost connections and time limits
(client.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from ocr_pipeline.ocr.vllm.answers import Fault

MAX_DETAIL = 300  # characters of a server's words that are kept
MAX_RETRY_AFTER = 300.0  # seconds; a server that asks for more is asked again after this


@dataclass(frozen=True, slots=True)
class ParsedResponse:
    """`Answer` without the clock."""

    outcome: str
    fault: Fault | None = None
    detail: str = ""
    text: str = ""
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    retry_after: float | None = None


def read_refusal(status: int, headers: Mapping[str, str], body: bytes) -> ParsedResponse:
    """Reads any answer that is not 200. `headers` by lower-case name; `body` may be cut short."""
    said = _ErrorBody.parse(body)
    if wall := _login_wall(status, headers, said):
        return wall
    if 300 <= status < 400:
        return ParsedResponse(
            "redirect", Fault.CONFIG, f"sends on to {_host(headers)}: the url must be vLLM's own root"
        )
    if status == 401:
        return ParsedResponse(
            "unauthorized", Fault.CONFIG, _hint("the API key is missing or wrong: set api_key_env", said)
        )
    if status == 403:
        return ParsedResponse("forbidden", Fault.CONFIG, _hint("a proxy forbids it: look at headers_env", said))
    if status == 404:
        return _not_found(said)
    if status == 413:
        return ParsedResponse(
            "refused", Fault.PAGE, _hint("a proxy before the server takes no request of this size", said)
        )
    if status in (400, 422):
        return _bad_request(said)
    if status in (405, 406, 411, 415, 421, 426, 501, 505):
        return ParsedResponse(f"http_{status}", Fault.CONFIG, _hint("this is not vLLM's chat API", said))
    if status == 500:
        return _server_error(said)
    if status in (408, 425, 429) or 500 < status < 600:
        detail = said.text
        if status == 524:
            detail = _hint("Cloudflare waits 100 s for an answer: ask for less at once with max_in_flight", said)
        return ParsedResponse(f"http_{status}", Fault.TRANSIENT, detail, retry_after=_retry_after(headers))
    if 400 <= status < 500:
        return ParsedResponse("refused", Fault.PAGE, _hint(f"HTTP {status}", said))
    return ParsedResponse(f"http_{status}", Fault.TRANSIENT, said.text)


# -- 200 ---------------------------------------------------------------------------------------------------------------


def read_completion(headers: Mapping[str, str], body: bytes) -> ParsedResponse:
    """Reads an answer to POST /v1/chat/completions with status 200, which may hold an error all the same."""
    answer = parse_json(body)
    if not isinstance(answer, dict):
        said = _ErrorBody.parse(body)
        if wall := _login_wall(200, headers, said):
            return wall
        if said.html:
            return ParsedResponse("not_vllm", Fault.CONFIG, _hint("a web page: the url must be vLLM's own root", said))
        return ParsedResponse("bad_answer", Fault.TRANSIENT, _hint("not a JSON object", said))
    if "error" in answer and "choices" not in answer:
        error = answer["error"]
        code = error.get("code") if isinstance(error, dict) else None
        return read_refusal(code if isinstance(code, int) and 400 <= code < 600 else 500, headers, body)
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        return ParsedResponse("bad_answer", Fault.TRANSIENT, _hint("an answer without choices", _ErrorBody.parse(body)))
    text = _content(message.get("content"))
    if text is None:
        return ParsedResponse("bad_answer", Fault.TRANSIENT, _hint("the content is not a text", _ErrorBody.parse(body)))
    usage = answer.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    finish = choice.get("finish_reason")
    parsed = ParsedResponse(
        "ok",
        text=text,
        finish_reason=one_line(finish)[:40] if isinstance(finish, str) else None,
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
    )
    if finish in ("abort", "error"):
        # The server stops, or gave this one request up. What there is of a text is kept for the record only.
        detail = "the server gave the request up"
        return replace(parsed, outcome=f"finish_{finish}", fault=Fault.TRANSIENT, detail=detail)
    return parsed


def _content(content: object) -> str | None:
    """A text, "" for null (an empty answer), None for what is neither; a list of parts is joined."""
    if content is None:
        return ""
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "".join(part for part in parts if isinstance(part, str))
    return _SURROGATE.sub("\ufffd", content) if isinstance(content, str) else None


_SURROGATE = re.compile("[\ud800-\udfff]")  # JSON can spell half a character that no file takes


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else None


# -- what an error says ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _ErrorBody:
    """An error body of any shape: OpenAI's object, `error` as a string, FastAPI's `detail`, HTML, nothing."""

    text: str  # one line, bounded
    message: str  # in lower case, to be searched; "" where the body has none
    param: str
    html: bool
    vllm: bool  # of the shape {"error": {"message": …}}

    @classmethod
    def parse(cls, body: bytes) -> _ErrorBody:
        answer = parse_json(body)
        raw: object = ""
        param: object = None
        vllm = False
        if isinstance(answer, dict):
            error = answer.get("error", answer)
            if isinstance(error, dict):
                raw = error.get("message", error.get("detail", answer.get("detail", "")))
                param = error.get("param")
                vllm = error is not answer and "message" in error
            else:
                raw = error
        elif answer is not None:
            raw = answer
        else:
            raw = body[:4000].decode("utf-8", "replace")
        if raw is None:
            raw = ""
        words = raw if isinstance(raw, str) else json.dumps(raw)[:4000]
        start = words[:500].lstrip().lower()
        html = answer is None and (start.startswith(("<!doctype", "<html")) or "<head" in start)
        shown = one_line(_TAG.sub(" ", words[:20000]) if html else words[: MAX_DETAIL * 4])
        return cls(shown[:MAX_DETAIL], words[:20000].lower(), param if isinstance(param, str) else "", html, vllm)


_TAG = re.compile(r"<[^<>]{0,300}>")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def one_line(text: str) -> str:
    return " ".join(_CONTROL.sub(" ", text).split())


def _hint(hint: str, said: _ErrorBody) -> str:
    return f"{hint} ({said.text})" if said.text else hint


def parse_json(body: bytes) -> Any:
    """The body as JSON, None where it is none. Deep nesting and endless numbers count as none."""
    try:
        return json.loads(body.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None


# -- refusals ----------------------------------------------------------------------------------------------------------

_ABOUT_THE_IMAGE = (
    "failed to load image",
    "cannot identify image",
    "image file is truncated",
    "base64",
    "invalid data url",
    "decompression bomb",
    "exceeds limit of",
    "cannot load local files",
    "absolute aspect ratio",
)
_ABOUT_THE_REQUEST = (
    # Every page is asked alike: what is wrong with the request is wrong with all of them.
    "maximum context length",
    "maximum model length",
    "max_model_len",
    "max_tokens",
    "max_completion_tokens",
    "validation error",
    "ngram_size",
    "window_size",
    "whitelist_token_ids",
    "logits processor",
    "logitsprocessor",
    "mm_processor_kwargs",
    "trust-request-mm-kwargs",
    "chat template",
    "roles must alternate",
    "may be provided in one prompt",
    "not a multimodal model",
    "priority",
    "repetition_detection",
    "temperature",
    "top_p",
    "seed",
)
_DEAD_ENGINE = (
    "enginecore encountered an issue",
    "the server had an error while processing your request",
    "enginedeaderror",
)
_PERHAPS_DEAD = (  # a server says this of one request too, and lives on: whether it died is seen at its /health
    "enginegenerateerror",
    "cuda error",
    "cuda out of memory",
    "outofmemoryerror",
    "illegal memory access",
)


def _bad_request(said: _ErrorBody) -> ParsedResponse:
    if any(mark in said.message for mark in _ABOUT_THE_IMAGE):
        return ParsedResponse("refused", Fault.PAGE, said.text)
    if any(mark in said.message for mark in _ABOUT_THE_REQUEST) or said.param in ("max_tokens", "input_tokens"):
        return ParsedResponse(
            "bad_request", Fault.CONFIG, _hint("the server is set up otherwise than its profile", said)
        )
    # What is not known to be of the request is put on the page: the other way one page could close every backend.
    return ParsedResponse("refused", Fault.PAGE, said.text)


def _not_found(said: _ErrorBody) -> ParsedResponse:
    if said.param == "model" or "does not exist" in said.message:
        return ParsedResponse("unknown_model", Fault.CONFIG, _hint("write the name it serves as served_model", said))
    return ParsedResponse("not_found", Fault.CONFIG, _hint("no chat API here: the url must be vLLM's own root", said))


def _server_error(said: _ErrorBody) -> ParsedResponse:
    """500 is four things: an image it will never take, an engine that died, one that may have, and anything else."""
    if any(mark in said.message for mark in _ABOUT_THE_IMAGE):
        return ParsedResponse("refused", Fault.PAGE, said.text)
    if any(mark in said.message for mark in _DEAD_ENGINE):
        return ParsedResponse("engine_dead", Fault.DEATH, said.text)
    if any(mark in said.message for mark in _PERHAPS_DEAD) or (said.vllm and not said.message.strip()):
        return ParsedResponse("engine_error", Fault.DEATH, said.text or "HTTP 500 with an empty message")
    return ParsedResponse("http_500", Fault.TRANSIENT, said.text)


def _login_wall(status: int, headers: Mapping[str, str], said: _ErrorBody) -> ParsedResponse | None:
    """Cloudflare Access answers with a redirect to its login, or with its page and 200, 401 or 403."""
    goes_to = headers.get("location", "")
    if "cloudflareaccess.com" in goes_to or "/cdn-cgi/access/" in goes_to:
        found = True
    else:
        found = said.html and ("cloudflareaccess.com" in said.message or "cloudflare access" in said.message)
    if not found:
        return None
    return ParsedResponse(
        "access_login",
        Fault.CONFIG,
        f"HTTP {status}: Cloudflare Access asks for a login. Name the variables of a service token under "
        "[backend.headers_env] as CF-Access-Client-Id and CF-Access-Client-Secret, and allow the token with a "
        "policy of action Service Auth",
    )


def _host(headers: Mapping[str, str]) -> str:
    """Of the location only the host: the rest may hold a token."""
    try:
        return one_line(urlsplit(headers.get("location", "")).hostname or "another path")[:100]
    except ValueError:
        return "an address that is none"


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds or an HTTP date; never below 0 nor above `MAX_RETRY_AFTER`."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), MAX_RETRY_AFTER)
    try:
        until = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return min(max((until - datetime.now(UTC)).total_seconds(), 0.0), MAX_RETRY_AFTER)
