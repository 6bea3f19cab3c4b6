"""The pipeline's own client and preflight on the same servers: what it makes of what they answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

import pytest
from pydantic import SecretStr

from ocr_pipeline.ocr.vllm.answers import Answer, Ask, Fault, Rung
from ocr_pipeline.ocr.vllm.backends import Backend
from ocr_pipeline.ocr.vllm.client import VllmClient
from ocr_pipeline.ocr.vllm.preflight import Check, preflight
from ocr_pipeline_tests.vllm_contract.asking import CLEAN, held_in_flight, idle_metrics, paused, picture
from ocr_pipeline_tests.vllm_contract.conftest import BackendOf, Connect
from ocr_pipeline_tests.vllm_contract.servers import LAB_KEY, ServerUnderTest

T = TypeVar("T")
A4 = (1240, 1754)


def _with_client(backend: Backend, work: Callable[[VllmClient], Awaitable[T]]) -> T:
    async def run() -> T:
        client = VllmClient(backend)
        try:
            return await work(client)
        finally:
            await client.aclose()

    return asyncio.run(run())


def _ask_of(backend: Backend, jpeg: bytes, **changes: object) -> Ask:
    rung: Rung = replace(backend.model.rungs[0], **changes)  # type: ignore[arg-type]
    return Ask(jpeg=jpeg, rung=rung, request_id="page-1", timeout=120)


def _answer(backend: Backend, jpeg: bytes, **changes: object) -> Answer:
    return _with_client(backend, lambda client: client.ask(_ask_of(backend, jpeg, **changes)))


def test_a_page_is_read_with_its_tags(server: ServerUnderTest, backend_of: BackendOf) -> None:
    answer = _answer(backend_of(server), picture(*A4, "JPEG"))
    assert (answer.outcome, answer.fault, answer.text) == ("ok", None, CLEAN)
    assert (answer.finish_reason, answer.prompt_tokens, answer.completion_tokens) == ("stop", 939, 14)


def test_every_rung_of_the_ladder_is_accepted(server: ServerUnderTest, backend_of: BackendOf) -> None:
    backend = backend_of(server)
    for rung in backend.model.rungs:
        ask = Ask(jpeg=picture(kind="JPEG"), rung=rung, request_id=f"page-{rung.name}", timeout=120)
        answer = _with_client(backend, lambda client, ask=ask: client.ask(ask))  # type: ignore[misc]
        assert (rung.name, answer.outcome) == (rung.name, "ok")


def test_what_a_request_costs_fits_what_the_profile_reserves(server: ServerUnderTest, backend_of: BackendOf) -> None:
    backend = backend_of(server)
    answer = _answer(backend, picture(600, 6000, "JPEG"))  # the dearest shape
    assert answer.prompt_tokens is not None
    assert answer.prompt_tokens <= backend.model.prompt_tokens


@pytest.mark.parametrize("jpeg", [b"%PDF-1.7", picture(*A4, "JPEG")[:-300]])
def test_an_unreadable_image_is_the_pages_fault(server: ServerUnderTest, backend_of: BackendOf, jpeg: bytes) -> None:
    assert _answer(backend_of(server), jpeg).fault is Fault.PAGE


def test_an_image_of_too_many_pixels_is_the_pages_fault_and_the_next_page_is_none_the_worse(
    server: ServerUnderTest, backend_of: BackendOf
) -> None:
    """vLLM answers 500 and drops the connection: neither is a death."""
    backend = backend_of(server)

    async def both(client: VllmClient) -> tuple[Answer, Answer]:
        huge = await client.ask(_ask_of(backend, picture(20_000, 20_000, "PNG", "1")))
        return huge, await client.ask(_ask_of(backend, picture(kind="JPEG")))

    huge, after = _with_client(backend, both)
    assert huge.fault is Fault.PAGE
    assert after.fault in (None, Fault.TRANSIENT)
    assert _answer(backend, picture(kind="JPEG")).outcome == "ok"


def test_an_unknown_model_is_the_configurations_fault(server: ServerUnderTest, backend_of: BackendOf) -> None:
    answer = _answer(replace(backend_of(server), served_model="nope"), picture(kind="JPEG"))
    assert (answer.outcome, answer.fault) == ("unknown_model", Fault.CONFIG)


def test_arguments_that_the_processor_refuses_are_the_configurations_fault(
    server: ServerUnderTest, backend_of: BackendOf
) -> None:
    answer = _answer(backend_of(server), picture(kind="JPEG"), extra_body={"vllm_xargs": {"ngram_size": 0}})
    assert answer.fault is Fault.CONFIG


def test_a_request_that_is_cancelled_leaves_the_server(
    plain_server: ServerUnderTest, connect: Connect, backend_of: BackendOf
) -> None:
    backend = backend_of(plain_server)
    http = connect(plain_server)
    endless = _ask_of(backend, picture(kind="JPEG"), prompt="loop!", extra_body={})

    async def cancelled(client: VllmClient) -> None:
        with paused(plain_server, http) as wait_for_in_flight:
            asked = asyncio.create_task(client.ask(endless))
            await asyncio.to_thread(wait_for_in_flight, 1)
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
            await asyncio.to_thread(wait_for_in_flight, 0)

    before = idle_metrics(http).get("generation_tokens_total")
    _with_client(backend, cancelled)
    # Beside a page that is read now, the engine does nothing for the one that was given up.
    assert _answer(backend, picture(kind="JPEG")).outcome == "ok"
    assert idle_metrics(http).get("generation_tokens_total") - before < 1000


def test_the_preflight_of_a_good_server_is_green(server: ServerUnderTest, backend_of: BackendOf) -> None:
    checks = asyncio.run(preflight(backend_of(server), picture(*A4, "JPEG")))
    assert [check for check in checks if not check.ok] == []
    names = [check.name for check in checks]
    assert names == ["reachable", "model", "max_model_len", "vLLM", "logits processor", "sample page", "tags"]


def test_the_preflight_without_the_processor_is_red_and_says_how_to_mend_it(
    plain_server: ServerUnderTest, backend_of: BackendOf
) -> None:
    red = _red(asyncio.run(preflight(backend_of(plain_server), picture(*A4, "JPEG"))))
    assert red.name == "logits processor"
    processor = "vllm.model_executor.models.deepseek_ocr:NGramPerReqLogitsProcessor"
    assert f"--logits-processors {processor}" in red.mend
    assert "VLLM_USE_V2_MODEL_RUNNER=0" in red.mend  # it is vLLM 0.32.0


def test_the_preflight_of_a_short_context_is_red_and_says_how_to_mend_it(
    strict_server: ServerUnderTest, backend_of: BackendOf
) -> None:
    checks = asyncio.run(preflight(backend_of(strict_server), picture(kind="JPEG")))
    assert "--max-model-len 8192" in {check.name: check for check in checks}["max_model_len"].mend


def test_a_wrong_key_is_the_configurations_fault_and_is_not_shown(
    strict_server: ServerUnderTest, backend_of: BackendOf
) -> None:
    backend = replace(backend_of(strict_server), api_key=SecretStr("wrong-key"))
    answer = _answer(backend, picture(kind="JPEG"))
    assert (answer.outcome, answer.fault) == ("unauthorized", Fault.CONFIG)
    assert "wrong-key" not in repr(answer)
    assert _red(asyncio.run(preflight(backend, picture(kind="JPEG")))).name == "reachable"


def test_a_full_queue_is_transient(strict_server: ServerUnderTest, connect: Connect, backend_of: BackendOf) -> None:
    http = connect(strict_server)
    backend = replace(backend_of(strict_server), max_model_len=1024)
    with held_in_flight(strict_server, http, 2, LAB_KEY):
        answer = _answer(backend, picture(kind="JPEG"), sampling={"temperature": 0, "max_tokens": 10})
    assert (answer.outcome, answer.fault) == ("http_503", Fault.TRANSIENT)


def _red(checks: list[Check]) -> Check:
    [red] = [check for check in checks if not check.ok]
    return red
