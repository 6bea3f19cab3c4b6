"""What `doctor` says of a backend: green when it is ready, red with the right mend when it is not."""

from __future__ import annotations

import asyncio
import shlex
from dataclasses import dataclass
from typing import Any

import pytest

from ocr_pipeline.ocr.vllm.gpus import DGX_SPARK, GPUS, RTX_4090
from ocr_pipeline.ocr.vllm.models import DEEPSEEK_OCR, DEEPSEEK_OCR_2, DOTS_OCR, LIGHTON_OCR_2, MODELS
from ocr_pipeline.ocr.vllm.preflight import Check, preflight, version_number
from ocr_pipeline.ocr.vllm.serve import serve_command
from ocr_pipeline_tests.ocr.vllm.odd_server import JPEG, Request, backend, completion, http, serving

TEXT = "<|ref|>title<|/ref|><|det|>[[56, 48, 941, 102]]<|/det|>\n# Tiny title"


@dataclass
class FakeVllm:
    """vLLM's surface as measured, with one thing wrong at a time."""

    model: str = "deepseek-ocr"
    max_model_len: int | None = 8192
    version: str | None = "0.30.0"
    processor: bool = True
    text: str | None = TEXT
    key: str | None = None
    health: bytes = http(200, b"")
    sample: bytes | None = None

    async def __call__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(self.answer(request))

    def answer(self, request: Request) -> bytes:
        if request.path == "/health":
            return self.health
        if request.path == "/version":
            return http(200, {"version": self.version}) if self.version else http(404, {"detail": "Not Found"})
        if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
            return http(401, {"error": "Unauthorized"})
        if request.path == "/v1/models":
            card: dict[str, Any] = {"id": self.model, "object": "model", "root": "/model"}
            if self.max_model_len is not None:
                card["max_model_len"] = self.max_model_len
            return http(200, {"object": "list", "data": [card]})
        if self.processor and request.json().get("vllm_xargs", {}).get("ngram_size") == 0:
            message = "`ngram_size` has to be a strictly positive integer, got 0."
            return http(400, {"error": {"message": message, "type": "BadRequestError", "param": None, "code": 400}})
        return self.sample or http(200, completion(self.text))


def checked(server: FakeVllm, **changes: Any) -> list[Check]:
    async def run() -> list[Check]:
        async with serving(server) as listening:
            return await preflight(backend(listening.url, **changes), JPEG)

    return asyncio.run(asyncio.wait_for(run(), 30))


def red(checks: list[Check]) -> list[Check]:
    for check in checks:
        assert check.ok or check.mend, f"{check.name} fails without a mend"
    return [check for check in checks if not check.ok]


def test_a_server_that_is_ready_is_green_in_every_point() -> None:
    checks = checked(FakeVllm())
    assert red(checks) == []
    assert [check.name for check in checks] == [
        "reachable",
        "model",
        "max_model_len",
        "vLLM",
        "logits processor",
        "sample page",
        "tags",
    ]


def test_a_server_without_the_logits_processor_is_told_how_to_start_with_it() -> None:
    [check] = red(checked(FakeVllm(processor=False)))
    assert check.name == "logits processor"
    assert "--logits-processors vllm.model_executor.models.deepseek_ocr:NGramPerReqLogitsProcessor" in check.mend
    assert "VLLM_USE_V2_MODEL_RUNNER" not in check.mend


def test_a_refusal_for_another_reason_does_not_prove_the_processor() -> None:
    refused = {"error": {"message": "At most 0 image(s) may be provided in one prompt.", "type": "BadRequestError"}}
    checks = red(checked(FakeVllm(processor=False, sample=http(400, refused))))
    assert [check.name for check in checks] == ["logits processor", "sample page"]


def test_a_release_that_refuses_the_processor_is_told_its_variable() -> None:
    [check] = red(checked(FakeVllm(processor=False, version="0.32.0+cpu")))
    assert "VLLM_USE_V2_MODEL_RUNNER=0" in check.mend
    assert red(checked(FakeVllm(version="0.32.0+cpu"))) == []


@pytest.mark.parametrize(
    ("version", "gpu", "name"),
    [("0.11.0", RTX_4090, "vLLM"), ("0.6.4.post1", RTX_4090, "vLLM"), ("0.18.1", DGX_SPARK, "vLLM")],
)
def test_a_release_that_is_too_old_is_told_which_to_install(version: str, gpu: Any, name: str) -> None:
    [check] = red(checked(FakeVllm(version=version), gpu=gpu))
    assert check.name == name
    assert "0.30.0" in check.mend


@pytest.mark.parametrize("version", [None, "nightly", ""])
def test_a_server_that_does_not_tell_its_version_is_not_red_for_it(version: str | None) -> None:
    assert red(checked(FakeVllm(version=version))) == []


def test_another_name_of_the_model_is_told_as_served_model() -> None:
    [check] = red(checked(FakeVllm(model="deepseek-ai/DeepSeek-OCR")))
    assert check.name == "model"
    assert 'served_model = "deepseek-ai/DeepSeek-OCR"' in check.mend


def test_a_context_that_cuts_dense_pages_is_red_until_the_file_says_so_too() -> None:
    [check] = red(checked(FakeVllm(max_model_len=4096)))
    assert check.name == "max_model_len"
    assert "--max-model-len 8192" in check.mend
    assert "max_model_len = 4096" in check.mend
    assert red(checked(FakeVllm(max_model_len=4096), max_model_len=4096)) == []
    assert red(checked(FakeVllm(max_model_len=None))) == []


def test_a_missing_key_is_told_as_api_key_env() -> None:
    [check] = red(checked(FakeVllm(key="k")))
    assert (check.name, "api_key_env" in check.mend) == ("reachable", True)


@pytest.mark.parametrize(
    ("health", "mend"),
    [
        (http(503, ""), "log"),
        (http(404, {"detail": "Not Found"}), "without /v1"),
        (http(302, "", "location: https://t.cloudflareaccess.com/cdn-cgi/access/login"), "CF-Access-Client-Id"),
        (http(403, "<html>no</html>"), "headers_env"),
    ],
)
def test_a_server_that_is_not_well_or_not_to_be_reached_ends_the_checks(health: bytes, mend: str) -> None:
    [check] = checked(FakeVllm(health=health))
    assert not check.ok
    assert mend in check.mend


def test_nobody_at_the_address_is_told_with_the_line_that_starts_a_server() -> None:
    async def run() -> list[Check]:
        async with serving(FakeVllm()) as listening:
            url = listening.url
        return await preflight(backend(url), JPEG)

    [check] = asyncio.run(run())
    assert "connect_failed" in check.detail
    assert "vllm serve deepseek-ai/DeepSeek-OCR" in check.mend


def test_stripped_tags_are_red() -> None:
    [check] = red(checked(FakeVllm(text="title[[56, 48, 941, 102]]\n# Tiny title")))
    assert (check.name, "skip_special_tokens" in check.mend) == ("tags", True)


@pytest.mark.parametrize(
    ("text", "finish", "said"),
    [
        ("", "stop", "empty_text"),
        (None, "stop", "empty_text"),
        ("<|ref|>text<|/ref|><|det|>[[1, 2, 3, 4]]<|/det|>", "stop", "empty_text"),
        ("the cat sat on the mat and " * 200, "length", "repetition"),
        ("words without an end", "length", "truncated"),
        ("\ufffd\ufffd\ufffd abc \ufffd\ufffd", "stop", "garbage"),
    ],
)
def test_a_server_that_answers_and_does_not_read_is_red(text: str | None, finish: str, said: str) -> None:
    [check] = red(checked(FakeVllm(sample=http(200, completion(text, finish)))))
    assert check.name == "sample page"
    assert check.detail.startswith(f"{said}: ")


def test_a_server_that_dies_of_the_sample_is_red() -> None:
    dead = {"error": {"message": "EngineCore encountered an issue.", "type": "InternalServerError", "code": 500}}
    [check] = red(checked(FakeVllm(sample=http(500, dead))))
    assert "engine_dead" in check.detail


def test_a_model_that_needs_no_processor_is_not_asked_for_one() -> None:
    checks = checked(FakeVllm(processor=False, text="# Words"), model=LIGHTON_OCR_2)
    assert red(checks) == []
    assert "logits processor" not in [check.name for check in checks]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0.11.1", (0, 11, 1)),
        ("v0.30.0rc1", (0, 30, 0)),
        ("0.32.0+cpu", (0, 32, 0)),
        ("0.24", (0, 24, 0)),
        ("nightly", None),
        ("", None),
        (None, None),
        ("9" * 5000 + ".1", None),
    ],
)
def test_versions_are_read(text: str | None, number: tuple[int, int, int] | None) -> None:
    assert version_number(text) == number


# -- the line that starts a server -------------------------------------------------------------------------------------


@pytest.mark.parametrize("gpu", GPUS.values(), ids=list(GPUS))
@pytest.mark.parametrize("model", MODELS.values(), ids=list(MODELS))
def test_the_serve_line_is_one_line_that_a_shell_reads_as_it_is_meant(gpu: Any, model: Any) -> None:
    command = serve_command(gpu, model)
    words = shlex.split(command.line())
    assert words[len(command.env) :] == list(command.argv)
    assert "\n" not in command.line()
    assert str(model.context_length) in words


def test_the_serve_line_has_what_was_asked_for_with_the_corrected_numbers() -> None:
    line = serve_command(RTX_4090, DEEPSEEK_OCR).line()
    for flag in (
        "vllm serve deepseek-ai/DeepSeek-OCR ",
        "--logits-processors vllm.model_executor.models.deepseek_ocr:NGramPerReqLogitsProcessor",
        "--no-enable-prefix-caching",
        "--mm-processor-cache-gb 0",
        "--max-model-len 8192",
        "--gpu-memory-utilization 0.90",
        "VLLM_USE_V2_MODEL_RUNNER=0 ",  # harmless before 0.31, needed from there
    ):
        assert flag in line
    assert "max_image_size" not in line  # asked for, not a parameter of this model
    assert "--gpu-memory-utilization 0.30" in serve_command(DGX_SPARK, DEEPSEEK_OCR_2).line()
    assert "VLLM_USE" not in serve_command(RTX_4090, DOTS_OCR).line()


def test_other_weights_are_served_under_the_name_of_the_model() -> None:
    argv = serve_command(RTX_4090, DEEPSEEK_OCR, checkpoint="own/DeepSeek-OCR-AWQ", quantization="awq").argv
    assert argv[:5] == ("vllm", "serve", "own/DeepSeek-OCR-AWQ", "--served-model-name", "deepseek-ai/DeepSeek-OCR")
    assert argv[-2:] == ("--quantization", "awq")


def test_the_notes_give_each_number_its_reason() -> None:
    notes = "\n".join(serve_command(DGX_SPARK, DEEPSEEK_OCR).notes)
    assert "gpu_memory_utilization: 0.30 (asked: 0.95)" in notes
    assert "always, not on failure" in notes
    assert "licence MIT, 6.7 GB of weights" in notes
