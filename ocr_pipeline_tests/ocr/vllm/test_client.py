# ruff: noqa: E501  # the contract's messages stand as they were seen, one line a case
"""One request on a real socket: what goes over the wire, and what is made of everything that can come back."""

from __future__ import annotations

import asyncio
import html
import json
import logging
import ssl
from base64 import b64decode
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import SecretStr

from ocr_pipeline.ocr.vllm.answers import Answer, Ask, Fault
from ocr_pipeline.ocr.vllm.backends import Backend
from ocr_pipeline.ocr.vllm.client import MAX_ANSWER, VllmClient, request_body
from ocr_pipeline.ocr.vllm.models import DOTS_OCR, LIGHTON_OCR_2, OLMOCR_2, ModelProfile
from ocr_pipeline_tests.ocr.vllm.odd_server import (
    JPEG,
    Handler,
    OddServer,
    Request,
    an_ask,
    backend,
    completion,
    http,
    says,
    serving,
)

T = pytest.mark.parametrize


def asked(handler: Handler, *, asks: int = 1, ask: Ask | None = None, **changes: Any) -> tuple[list[Answer], OddServer]:
    """The answers to `asks` requests, one after the other, from one client."""

    async def run() -> tuple[list[Answer], OddServer]:
        async with serving(handler) as server:
            client = VllmClient(backend(server.url, **changes))
            try:
                return [await client.ask(ask or an_ask()) for _ in range(asks)], server
            finally:
                await client.aclose()

    return asyncio.run(asyncio.wait_for(run(), 30))


def answer_to(raw: bytes, *, close: bool = False, **changes: Any) -> Answer:
    return asked(says(raw, close=close), **changes)[0][0]


def probed(handler: Handler, probe: Callable[[VllmClient], Awaitable[Any]], **changes: Any) -> Any:
    async def run() -> Any:
        async with serving(handler) as server:
            client = VllmClient(backend(server.url, **changes))
            try:
                return await probe(client)
            finally:
                await client.aclose()

    return asyncio.run(asyncio.wait_for(run(), 30))


# -- what is sent ------------------------------------------------------------------------------------------------------


def test_a_page_is_sent_as_one_base64_image_before_the_prompt_with_all_that_the_model_needs() -> None:
    [answer], server = asked(says(http(200, completion("# Title"))))
    [request] = server.requests
    assert (request.method, request.path) == ("POST", "/v1/chat/completions")
    assert request.headers["content-type"] == "application/json"
    assert request.headers["x-request-id"] == "page-0001"
    assert "authorization" not in request.headers
    body = request.json()
    [message] = body["messages"]
    image, text = message["content"]
    kind, _, data = image["image_url"]["url"].partition(",")
    assert (kind, b64decode(data)) == ("data:image/jpeg;base64", JPEG)
    assert text == {"type": "text", "text": "<|grounding|>Convert the document to markdown."}
    assert body["model"] == "deepseek-ocr"
    assert (body["temperature"], body["max_tokens"], body["skip_special_tokens"]) == (0.0, 7000, False)
    assert body["vllm_xargs"] == {"ngram_size": 30, "window_size": 90, "whitelist_token_ids": [128821, 128822]}
    assert "stream" not in body
    assert "priority" not in body
    assert answer.outcome == "ok"


@T(
    ("model", "parts"),
    [
        (OLMOCR_2, ["text", "image_url"]),
        (LIGHTON_OCR_2, ["image_url"]),
        (DOTS_OCR, ["image_url", "text"]),
    ],
)
def test_models_of_other_families_are_asked_in_their_own_way(model: ModelProfile, parts: list[str]) -> None:
    target = backend("http://gpu.example", model=model, max_model_len=model.context_length)
    body = json.loads(request_body(target, an_ask(rung=model.rungs[0])))
    [message] = body["messages"]
    assert [part["type"] for part in message["content"]] == parts
    assert body["max_tokens"] == model.rungs[0].sampling["max_tokens"]
    assert "vllm_xargs" not in body


def test_the_length_asked_for_fits_the_context_the_server_was_started_with() -> None:
    """Releases up to 0.31 refuse with 400 what passes max_model_len."""
    assert json.loads(request_body(backend("http://gpu.example", max_model_len=4096), an_ask()))["max_tokens"] == 3096


def test_a_system_message_comes_first_even_an_empty_one() -> None:
    model = replace(OLMOCR_2, system_prompt="")
    body = json.loads(request_body(backend("http://gpu.example", model=model), an_ask(rung=model.rungs[0])))
    assert body["messages"][0] == {"role": "system", "content": ""}
    assert [message["role"] for message in body["messages"]] == ["system", "user"]


def test_an_urgent_page_carries_its_priority() -> None:
    assert json.loads(request_body(backend("http://gpu.example"), an_ask(priority=-10)))["priority"] == -10


def test_key_and_headers_are_sent_and_a_request_id_cannot_smuggle_a_header_in() -> None:
    _, server = asked(
        says(http(200, completion("x"))),
        ask=an_ask(request_id="inbox/a b.pdf\r\nX-Evil: 1"),
        api_key=SecretStr("k-123"),
        headers={"CF-Access-Client-Id": SecretStr("id.access")},
    )
    headers = server.requests[0].headers
    assert headers["authorization"] == "Bearer k-123"
    assert headers["cf-access-client-id"] == "id.access"
    assert headers["x-request-id"] == "inbox-a-b.pdf--X-Evil--1"
    assert "x-evil" not in headers


def test_requests_one_after_the_other_use_one_connection() -> None:
    answers, server = asked(says(http(200, completion("x"))), asks=5)
    assert [answer.outcome for answer in answers] == ["ok"] * 5
    assert server.connections == 1


def test_a_proxy_in_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert answer_to(http(200, completion("x"))).outcome == "ok"


# -- texts -------------------------------------------------------------------------------------------------------------


def test_a_text_comes_back_with_its_tokens_and_its_finish_reason() -> None:
    answer = answer_to(http(200, completion("<|ref|>title<|/ref|>…", "length")))
    assert (answer.text, answer.finish_reason, answer.fault) == ("<|ref|>title<|/ref|>…", "length", None)
    assert (answer.prompt_tokens, answer.completion_tokens) == (939, 14)
    assert answer.seconds > 0


@T(
    ("body", "text"),
    [
        (completion(None), ""),
        (completion(""), ""),
        (completion([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}, 5, {"text": 6}]), "ab"),
        (completion("half \ud83d character"), "half \ufffd character"),
        (completion("x", None), "x"),
        (completion("x", 5, prompt_tokens=-1, completion_tokens="14"), "x"),
        (completion("x", prompt_tokens=True, completion_tokens=1e400), "x"),
        (completion("x") | {"usage": None}, "x"),
        (completion("x") | {"usage": [1]}, "x"),
    ],
)
def test_a_text_in_an_odd_wrapping_is_still_a_text(body: object, text: str) -> None:
    answer = answer_to(http(200, body))
    assert (answer.outcome, answer.fault, answer.text) == ("ok", None, text)
    answer.text.encode()
    for count in (answer.prompt_tokens, answer.completion_tokens):
        assert count is None or count >= 0


def test_bytes_that_are_no_utf8_become_replacement_characters() -> None:
    raw = json.dumps(completion("caf?"), ensure_ascii=False).encode().replace(b"caf?", b"caf\xe9")
    assert answer_to(http(200, raw)).text == "caf\ufffd"


@T("finish", ["abort", "error"])
def test_an_answer_that_the_server_gave_up_is_no_text(finish: str) -> None:
    answer = answer_to(http(200, completion("half a pa", finish)))
    assert (answer.outcome, answer.fault) == (f"finish_{finish}", Fault.TRANSIENT)


# -- every refusal of the contract, byte for byte ----------------------------------------------------------------------


def error(
    message: object, type: str = "BadRequestError", param: str | None = None, code: int = 400
) -> dict[str, object]:
    return {"error": {"message": message, "type": type, "param": param, "code": code}}


PAGE, CONFIG, TRANSIENT, DEATH = Fault.PAGE, Fault.CONFIG, Fault.TRANSIENT, Fault.DEATH
ENGINE_CORE = "EngineCore encountered an issue. See stack trace (above) for the root cause."
LOGIN = "https://team.cloudflareaccess.com/cdn-cgi/access/login/gpu.example?kid=1&redirect_url=%2F"

REFUSALS: list[tuple[str, int, object, Fault, str]] = [
    # the image
    ("not an image", 400, error("Failed to load image: cannot identify image file <_io.BytesIO object>"), PAGE, "refused"),
    ("cut image", 400, error("Failed to load image: image file is truncated"), PAGE, "refused"),
    ("bad base64", 400, error("Non-base64 digit found"), PAGE, "refused"),
    ("bomb", 500, error("Image size (400000000 pixels) exceeds limit of 178956970 pixels, could be decompression bomb DOS attack.", "InternalServerError", code=500), PAGE, "refused"),
    ("file url", 500, error("Cannot load local files without `--allowed-local-media-path`.", "InternalServerError", code=500), PAGE, "refused"),
    ("remote image", 422, error("404, message='Not Found'", "UnprocessableEntityError", "image_url", 422), PAGE, "refused"),
    ("unheard of", 400, error("this picture displeases me"), PAGE, "refused"),
    ("too large for a proxy", 413, "<html><head><title>413 Request Entity Too Large</title></head></html>", PAGE, "refused"),
    # the configuration
    ("max_tokens", 400, error("max_tokens=100000 cannot be greater than max_model_len=8192. Please request fewer output tokens. (parameter=max_tokens, value=100000)", param="max_tokens"), CONFIG, "bad_request"),
    ("prompt and max_tokens", 400, error("This model's maximum context length is 8192 tokens. However, you requested 8192 output tokens and your prompt contains 903 input tokens"), CONFIG, "bad_request"),
    ("prompt too long", 400, error("Input length (1136) exceeds model's maximum context length (1024)."), CONFIG, "bad_request"),
    ("prompt with image", 400, error("The decoder prompt (length 939) is longer than the maximum model length of 512. Make sure that `max_model_len` is no smaller than the number of text tokens plus multimodal tokens."), CONFIG, "bad_request"),
    ("ngram", 400, error("`ngram_size` has to be a strictly positive integer, got 0."), CONFIG, "bad_request"),
    ("whitelist", 400, error("`whitelist_token_ids` has to be a sequence of integers, got 5."), CONFIG, "bad_request"),
    ("validation", 400, error("1 validation error:\n  {'type': 'list_type', 'loc': ('body', 'messages')}", "Bad Request"), CONFIG, "bad_request"),
    ("images per prompt", 400, error("At most 0 image(s) may be provided in one prompt. (parameter=image)", param="image"), CONFIG, "bad_request"),
    ("processor kwargs", 400, error("Passing mm_processor_kwargs is disabled by default, use --trust-request-mm-kwargs"), CONFIG, "bad_request"),
    ("no key", 401, {"error": "Unauthorized"}, CONFIG, "unauthorized"),
    ("proxy forbids", 403, "<html><body>Forbidden</body></html>", CONFIG, "forbidden"),
    ("unknown model", 404, error("The model `nope` does not exist. Valid aliases: deepseek-ai/DeepSeek-OCR.", "NotFoundError", "model", 404), CONFIG, "unknown_model"),
    ("unknown path", 404, {"detail": "Not Found"}, CONFIG, "not_found"),
    ("wrong method", 405, {"detail": "Method Not Allowed"}, CONFIG, "http_405"),
    ("not base64 url", 501, error("Only base64 data URLs are supported for now.", "NotImplementedError", code=501), CONFIG, "http_501"),
    # the moment
    ("busy", 503, error("The engine is currently busy with too many requests", "Service Unavailable", code=503), TRANSIENT, "http_503"),
    ("please retry", 503, error("Request failed; please retry", "ServiceUnavailableError", code=503), TRANSIENT, "http_503"),
    ("too many", 429, "", TRANSIENT, "http_429"),
    ("bad gateway", 502, "<html>\r\n<head><title>502 Bad Gateway</title></head></html>", TRANSIENT, "http_502"),
    ("gateway timeout", 504, "upstream request timeout", TRANSIENT, "http_504"),
    ("tunnel down", 530, "error code: 1033", TRANSIENT, "http_530"),
    ("cloudflare lost patience", 524, "error code: 524", TRANSIENT, "http_524"),
    ("some 500", 500, "Internal Server Error", TRANSIENT, "http_500"),
    ("500 of nothing", 500, b"", TRANSIENT, "http_500"),
    ("500 of a list", 500, ["what", 5, None], TRANSIENT, "http_500"),
    ("500 of binary", 500, bytes(range(256)) * 40, TRANSIENT, "http_500"),
    # the engine
    ("engine core", 500, error(ENGINE_CORE, "InternalServerError", code=500), DEATH, "engine_dead"),
    ("engine, later releases", 500, error("The server had an error while processing your request.", "InternalServerError", code=500), DEATH, "engine_dead"),
    ("engine, no words", 500, error("", "InternalServerError", code=500), DEATH, "engine_error"),
    ("out of memory", 500, error("CUDA out of memory. Tried to allocate 2.00 GiB.", "InternalServerError", code=500), DEATH, "engine_error"),
    # 200 that is none
    ("no choices", 200, completion("x") | {"choices": []}, TRANSIENT, "bad_answer"),
    ("choices are none", 200, completion("x") | {"choices": None}, TRANSIENT, "bad_answer"),
    ("no message", 200, completion("x") | {"choices": [{"finish_reason": "stop"}]}, TRANSIENT, "bad_answer"),
    ("content is a number", 200, completion(5), TRANSIENT, "bad_answer"),
    ("a list", 200, [], TRANSIENT, "bad_answer"),
    ("null", 200, "null", TRANSIENT, "bad_answer"),
    ("empty", 200, b"", TRANSIENT, "bad_answer"),
    ("not JSON", 200, "OK", TRANSIENT, "bad_answer"),
    ("half of JSON", 200, json.dumps(completion("x"))[:-40], TRANSIENT, "bad_answer"),
    ("nested without end", 200, "[" * 100_000, TRANSIENT, "bad_answer"),
    ("a number without end", 200, "1" * 100_000, TRANSIENT, "bad_answer"),
    ("an event stream", 200, 'data: {"choices": []}\n\ndata: [DONE]\n\n', TRANSIENT, "bad_answer"),
    ("an error in 200", 200, error(ENGINE_CORE, "InternalServerError", code=500), DEATH, "engine_dead"),
    ("a busy in 200", 200, error("busy", "Service Unavailable", code=503), TRANSIENT, "http_503"),
    ("somebody's web page", 200, "<!DOCTYPE html><html><head><title>Router</title></head></html>", CONFIG, "not_vllm"),
    ("login page", 200, "<!doctype html><title>Sign in ・ Cloudflare Access</title>", CONFIG, "access_login"),
    ("forbidden by Access", 403, "<!DOCTYPE html><html><title>Forbidden ・ Cloudflare Access</title></html>", CONFIG, "access_login"),
]  # fmt: skip


@T(("status", "body", "fault", "outcome"), [case[1:] for case in REFUSALS], ids=[case[0] for case in REFUSALS])
def test_each_answer_of_the_contract_means_what_it_means(
    status: int, body: bytes | str | object, fault: Fault, outcome: str
) -> None:
    answer = answer_to(http(status, body))
    assert (answer.fault, answer.outcome) == (fault, outcome)
    assert answer.text == ""
    assert len(answer.detail) < 800
    assert answer.detail.isprintable()


@T("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    [answer], server = asked(says(http(status, "", "location: /v1/chat/completions")))
    assert (answer.fault, answer.outcome) == (Fault.CONFIG, "redirect")
    assert len(server.requests) == 1


def test_the_login_of_cloudflare_access_is_named_with_its_mend_and_without_its_token() -> None:
    answer = answer_to(http(302, "", f"location: {LOGIN}"))
    assert (answer.fault, answer.outcome) == (Fault.CONFIG, "access_login")
    assert "CF-Access-Client-Secret" in answer.detail
    assert "kid=" not in answer.detail


@T(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("999999999999", 300.0),
        ("0", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Fri, 31 Dec 2999 23:59:59 GMT", 300.0),
        ("soon", None),
        ("-5", None),
        ("1e3", None),
        ("", None),
        ("Fri, 99 Foo 99999 99:99:99 GMT", None),
    ],
)
def test_retry_after_is_read_and_bounded(value: str, seconds: float | None) -> None:
    assert answer_to(http(503, "", f"retry-after: {value}")).retry_after == seconds


# -- connections -------------------------------------------------------------------------------------------------------


def test_a_refused_connection_is_transient() -> None:
    async def run() -> Answer:
        async with serving(says(b"")) as server:
            url = server.url
        client = VllmClient(backend(url))
        try:
            return await client.ask(an_ask())
        finally:
            await client.aclose()

    answer = asyncio.run(run())
    assert (answer.outcome, answer.fault) == ("connect_failed", Fault.TRANSIENT)


def test_a_server_that_goes_while_it_has_the_page_may_have_died_of_it() -> None:
    answer = answer_to(b"", close=True)
    assert (answer.outcome, answer.fault) == ("connection_lost", Fault.DEATH)


def test_a_connection_that_is_reset_while_it_has_the_page_may_be_a_death() -> None:
    async def reset(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    [answer], _ = asked(reset)
    assert (answer.outcome, answer.fault) == ("connection_lost", Fault.DEATH)


def test_a_body_that_ends_too_early_may_be_a_death() -> None:
    raw = http(200, completion("x" * 5000))
    answer = answer_to(raw[:-2000], close=True)
    assert (answer.outcome, answer.fault) == ("connection_lost", Fault.DEATH)


def test_an_error_whose_body_ends_too_early_is_still_that_error() -> None:
    answer = answer_to(http(503, "x" * 5000)[:-2000], close=True)
    assert (answer.outcome, answer.fault) == ("http_503", Fault.TRANSIENT)


def test_a_page_that_was_never_wholly_sent_killed_nothing() -> None:
    async def run() -> Answer:
        async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1000)
            writer.transport.abort()

        listening = await asyncio.start_server(hang_up, "127.0.0.1", 0, limit=1024)
        client = VllmClient(backend(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"))
        try:
            return await client.ask(an_ask(jpeg=b"x" * 30_000_000))
        finally:
            await client.aclose()
            listening.close()

    answer = asyncio.run(run())
    assert (answer.outcome, answer.fault) == ("send_failed", Fault.TRANSIENT)


def test_a_refusal_that_comes_before_the_page_was_sent_is_read() -> None:
    async def run() -> Answer:
        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1000)
            writer.write(http(413, "too large", "connection: close"))
            await writer.drain()
            writer.write_eof()
            while await reader.read(1_000_000):
                pass
            writer.close()

        listening = await asyncio.start_server(refuse, "127.0.0.1", 0)
        client = VllmClient(backend(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"))
        try:
            return await client.ask(an_ask(jpeg=b"x" * 3_000_000))
        finally:
            await client.aclose()
            listening.close()

    assert asyncio.run(run()).outcome == "refused"


def test_a_used_connection_that_the_server_closed_meanwhile_is_no_death() -> None:
    """uvicorn closes idle connections; the next request may meet the closing one."""
    answered = 0

    async def once(request: Request, writer: asyncio.StreamWriter) -> None:
        nonlocal answered
        answered += 1
        if answered == 1:
            writer.write(http(200, completion("x")))
        else:
            writer.transport.abort()

    [first, second], server = asked(once, asks=2)
    assert server.connections == 1
    assert first.outcome == "ok"
    assert (second.outcome, second.fault) == ("connection_stale", Fault.TRANSIENT)


def test_a_server_that_says_nothing_is_given_up_after_the_time_of_the_page() -> None:
    async def silent(request: Request, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    [answer], _ = asked(silent, ask=an_ask(timeout=0.3))
    assert (answer.outcome, answer.fault) == ("timeout", Fault.TRANSIENT)


def test_a_server_that_drips_for_ever_is_given_up_after_the_time_of_the_page() -> None:
    async def drip(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"1\r\nx\r\n")
            await writer.drain()
            await asyncio.sleep(0.02)

    [answer], _ = asked(drip, timeout=0.4)
    assert (answer.outcome, answer.fault) == ("timeout", Fault.TRANSIENT)


def test_a_server_that_sends_for_ever_is_not_read_for_ever() -> None:
    sent = 0

    async def flood(request: Request, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while sent < 50 * MAX_ANSWER:
            writer.write(b"100000\r\n" + b"x" * 0x100000 + b"\r\n")
            await writer.drain()
            sent += 0x100000

    [answer], _ = asked(flood)
    assert (answer.outcome, answer.fault) == ("answer_too_large", Fault.TRANSIENT)
    assert sent < 10 * MAX_ANSWER


@T(
    "raw",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 60_000 + b"\r\n",
        bytes(range(256)),
        http(200, b"\x1f\x8b\x08\x00 not even gzip", "content-encoding: gzip"),
    ],
)
def test_what_is_not_http_is_an_answer_too(raw: bytes) -> None:
    answer = answer_to(raw, close=True)
    assert (answer.outcome, answer.fault) == ("bad_answer", Fault.TRANSIENT)


def test_bytes_after_a_content_length_that_is_too_short_never_become_a_text() -> None:
    whole = json.dumps(completion("x")).encode()
    answers_given = 0

    async def handler(request: Request, writer: asyncio.StreamWriter) -> None:
        nonlocal answers_given
        answers_given += 1
        short = f"HTTP/1.1 200 OK\r\ncontent-length: {len(whole) - 30}\r\n\r\n".encode() + whole
        writer.write(short if answers_given == 1 else http(200, whole))

    [first, second, third], _ = asked(handler, asks=3)
    assert (first.outcome, first.fault) == ("bad_answer", Fault.TRANSIENT)
    assert second.outcome == "ok" or second.fault is Fault.TRANSIENT
    assert third.outcome == "ok"


def answer_over_tls(context: ssl.SSLContext | None) -> Answer:
    """From a server that speaks first: TLS with the context, plain HTTP without."""

    async def run() -> Answer:
        async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(http(400, "this is no https"))
            await reader.read(1)
            writer.close()

        listening = await asyncio.start_server(speak, "127.0.0.1", 0, ssl=context)
        client = VllmClient(backend(f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}"))
        try:
            return await client.ask(an_ask())
        finally:
            await client.aclose()
            listening.close()

    return asyncio.run(asyncio.wait_for(run(), 30))


def test_https_to_a_server_that_has_none_is_an_answer_too() -> None:
    answer = answer_over_tls(None)
    assert (answer.outcome, answer.fault) == ("connect_failed", Fault.TRANSIENT)


def test_a_certificate_that_nobody_signed_is_a_fault_of_the_configuration(tmp_path: Path) -> None:
    answer = answer_over_tls(self_signed(tmp_path))
    assert (answer.outcome, answer.fault) == ("tls_failed", Fault.CONFIG)


def self_signed(folder: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gpu-a.example")])
    begin = datetime(2020, 1, 1, tzinfo=UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=36500))
        .sign(key, hashes.SHA256())
    )
    pem, encoding = folder / "server.pem", serialization.Encoding.PEM
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    pem.write_bytes(key.private_bytes(encoding, *plain) + certificate.public_bytes(encoding))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


def test_cancelling_passes_and_hangs_up_so_that_the_server_stops_too() -> None:
    async def run() -> None:
        begun, gone = asyncio.Event(), asyncio.Event()

        async def watching(request: Request, writer: asyncio.StreamWriter) -> None:
            begun.set()
            try:
                while True:
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                    await writer.drain()
                    await asyncio.sleep(0.01)
            finally:
                gone.set()

        async with serving(watching) as server:
            client = VllmClient(backend(server.url))
            task = asyncio.create_task(client.ask(an_ask()))
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.wait_for(gone.wait(), 5)
            await client.aclose()

    asyncio.run(run())


# -- secrets -----------------------------------------------------------------------------------------------------------


def test_no_secret_is_in_an_answer_a_record_or_a_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "s3cr3t-key-of-the-gpu"

    async def echo(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(http(400, error(f"you sent {request.headers}")))

    made: list[Backend] = []

    async def run() -> Answer:
        async with serving(echo) as server:
            target = backend(server.url, api_key=SecretStr(secret), headers={"X-Token": SecretStr(secret + "2")})
            made.append(target)
            client = VllmClient(target)
            try:
                return await client.ask(an_ask())
            finally:
                await client.aclose()

    answer = asyncio.run(run())
    assert "***" in answer.detail
    for told in (repr(answer), repr(made[0]), str(made[0]), caplog.text):
        assert secret not in told


@T(
    "around",
    [
        lambda said: "x" * 275 + " " + said,
        lambda said: "x" * 293 + said,
        lambda said: [said],
        lambda said: json.dumps({"sent": said}),
    ],
)
@T("secret", ["S3cr3tKey-0123456789abcdefghij", 'ab"cd\\ef<gh>/ij&k', "https://token.example/?a=b"])
def test_a_secret_that_a_server_says_back_is_masked_however_it_is_quoted_or_cut(around: Any, secret: str) -> None:
    bodies = [error(around(f"Bearer {secret}")), str(around(secret)), f"<html>{html.escape(secret)} {quote(secret)}"]
    for status in (200, 400, 502):
        for body in bodies:
            detail = answer_to(http(status, body), api_key=SecretStr(secret)).detail
            parts = [secret[at : at + 7] for at in range(len(secret) - 6)]
            assert not any(part in detail for part in parts), (body, detail)


def test_a_header_that_http_cannot_carry_is_an_answer_without_its_value() -> None:
    answer = answer_to(http(200, completion("x")), headers={"X-Token": SecretStr("line\nbreak-s3cret")})
    assert (answer.outcome, answer.fault) == ("bad_request", Fault.CONFIG)
    assert "s3cret" not in answer.detail


# -- probes ------------------------------------------------------------------------------------------------------------


def test_health_metrics_version_and_models_are_read() -> None:
    async def handler(request: Request, writer: asyncio.StreamWriter) -> None:
        bodies: dict[str, object] = {
            "/health": b"",
            "/metrics": "vllm:num_requests_running 3\n",
            "/version": {"version": "0.30.0"},
            "/v1/models": {"object": "list", "data": [{"id": "deepseek-ocr", "max_model_len": 8192}, {"id": 5}, "x"]},
        }
        writer.write(http(200, bodies[request.path]))

    async def all_of(client: VllmClient) -> Any:
        return await client.health(), await client.metrics_text(), await client.version(), await client.models()

    health, metrics, version, models = probed(handler, all_of)
    assert health.ok
    assert metrics.text == "vllm:num_requests_running 3\n"
    assert version == "0.30.0"
    assert [(model.id, model.max_model_len) for model in models.models] == [("deepseek-ocr", 8192)]


@T(
    ("raw", "close", "outcome", "fault"),
    [
        (http(503, ""), False, "http_503", Fault.TRANSIENT),
        (http(401, {"error": "Unauthorized"}), False, "unauthorized", Fault.CONFIG),
        (http(302, "", f"location: {LOGIN}"), False, "access_login", Fault.CONFIG),
        (b"", True, "connection_lost", Fault.TRANSIENT),  # no page was there to die of
    ],
)
def test_a_probe_that_fails_says_why(raw: bytes, close: bool, outcome: str, fault: Fault) -> None:
    probe = probed(says(raw, close=close), lambda client: client.health())
    assert (probe.ok, probe.outcome, probe.fault) == (False, outcome, fault)


@T("body", ["[]", "{}", '{"data": 5}', "<html>", "", "[" * 50_000])
def test_models_that_are_no_list_are_not_vllm(body: str) -> None:
    served = probed(says(http(200, body)), lambda client: client.models())
    assert (served.outcome, served.fault, served.models) == ("not_vllm", Fault.CONFIG, ())
    assert probed(says(http(200, body)), lambda client: client.version()) is None
