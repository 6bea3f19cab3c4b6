"""A chat completion request as vLLM checks it: the body to a `ChatRequest`, or a `Refusal` with vLLM's words.

The order of the checks is vLLM 0.32.0's: schema, model, max_tokens, messages and images, length, sampling, processor.
Not here: the queue, the engine, the text.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from ocr_pipeline_tests.simulator import pictures
from ocr_pipeline_tests.simulator.completion import Repetition
from ocr_pipeline_tests.simulator.options import Options
from ocr_pipeline_tests.simulator.pictures import Picture
from ocr_pipeline_tests.simulator.refusals import Refusal, bad_request, invalid, unknown_model

_PROMPT_SPECIAL = re.compile(r"<\|/?ref\|>|<\|/?det\|>|<\|grounding\|>|</?td>|</?tr>|<image>")


class _Repetition(BaseModel):
    max_pattern_size: int
    min_pattern_size: int = 1
    min_count: int = 2


class _StreamOptions(BaseModel):
    include_usage: bool = False


class _Body(BaseModel):
    """The fields that matter here. Unknown ones are ignored, as vLLM does."""

    messages: list[dict[str, Any]]
    model: str | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    n: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = False
    stream_options: _StreamOptions | None = None
    skip_special_tokens: bool = True
    return_token_ids: bool | None = None
    priority: int = 0
    request_id: str | None = None
    repetition_detection: _Repetition | None = None
    mm_processor_kwargs: dict[str, Any] | None = None
    vllm_xargs: dict[str, str | int | float | list[str | int | float]] | None = None


@dataclass(frozen=True, slots=True)
class ChatRequest:
    pictures: tuple[Picture, ...]
    text: str  # all texts of all messages
    prompt_tokens: int
    max_tokens: int  # of output, clamped to the context
    asked_max_tokens: int | None
    temperature: float
    n: int
    stop: tuple[str, ...]
    stream: bool
    include_usage: bool
    skip_special: bool
    priority: int
    request_id: str | None
    repetition: Repetition | None
    ngram: int | None  # None: no guard against loops, for this request or on this server
    window: int
    whitelist: frozenset[int]

    @property
    def greedy(self) -> bool:
        return self.temperature < 1e-5

    @property
    def grounded(self) -> bool:
        return "<|grounding|>" in self.text


def parse(body: bytes, content_type: str, options: Options) -> ChatRequest:
    fields = _schema(body, content_type)
    if fields.model is not None and fields.model != options.model:
        raise unknown_model(fields.model, options.model)
    asked = fields.max_completion_tokens if fields.max_completion_tokens is not None else fields.max_tokens
    if asked is not None and asked > options.max_model_len:
        raise bad_request(
            f"max_tokens={asked} cannot be greater than max_model_len={options.max_model_len}. "
            f"Please request fewer output tokens. (parameter=max_tokens, value={asked})",
            "max_tokens",
        )
    if fields.mm_processor_kwargs is not None:
        raise bad_request(
            "Per-request mm_processor_kwargs are disabled by default because they can change multimodal preprocessing "
            "resource usage. Start the server with --trust-request-mm-kwargs only when clients are trusted. "
            "(parameter=mm_processor_kwargs)",
            "mm_processor_kwargs",
        )
    text, images = _messages(fields.messages, options)
    prompt_tokens = _prompt_tokens(text, images, asked, options)
    temperature, n = _sampling(fields, asked)
    ngram, window, whitelist = _guard(fields.vllm_xargs or {}, options)
    stop = (fields.stop,) if isinstance(fields.stop, str) else tuple(fields.stop or ())
    rule = fields.repetition_detection
    room = options.max_model_len - prompt_tokens
    return ChatRequest(
        pictures=images,
        text=text,
        prompt_tokens=prompt_tokens,
        max_tokens=min(asked, room) if asked is not None else room,
        asked_max_tokens=asked,
        temperature=temperature,
        n=n,
        stop=stop,
        stream=bool(fields.stream),
        include_usage=bool(fields.stream_options and fields.stream_options.include_usage),
        skip_special=fields.skip_special_tokens,
        priority=fields.priority,
        request_id=fields.request_id,
        repetition=Repetition(rule.max_pattern_size, rule.min_pattern_size, rule.min_count) if rule else None,
        ngram=ngram,
        window=window,
        whitelist=whitelist,
    )


def _schema(body: bytes, content_type: str) -> _Body:
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise invalid("1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed")
    if not body:
        raise _schema_error([{"type": "missing", "loc": (), "msg": "Field required", "input": None}])
    try:
        fields = json.loads(body)
    except ValueError as problem:
        at, why = getattr(problem, "pos", 0), getattr(problem, "msg", str(problem))
        error = {"type": "json_invalid", "loc": (at,), "msg": "JSON decode error", "input": {}, "ctx": {"error": why}}
        raise _schema_error([error]) from None
    if not isinstance(fields, dict):
        what = "Input should be a valid dictionary or object to extract fields from"
        raise _schema_error([{"type": "model_attributes_type", "loc": (), "msg": what, "input": fields}])
    try:
        return _Body.model_validate(fields)
    except ValidationError as problem:
        raise _schema_error(problem.errors(include_url=False)) from None


def _schema_error(errors: Any) -> Refusal:
    lines: list[str] = []
    param: str | None = None
    for error in errors:
        # The branches of a union (str, int, …) are not part of the path that vLLM shows.
        path = [str(part) for part in error["loc"]][: 2 if error["loc"][:1] == ("vllm_xargs",) else None]
        where = ".".join(["body", *path])
        param = param or where
        shown = {"type": error["type"], "loc": where, "msg": error["msg"], "input": _shown(error["input"])}
        if "ctx" in error and error["type"] == "json_invalid":
            shown["ctx"] = error["ctx"]
        lines.append(f"  {shown}")
    return invalid(f"{len(lines)} validation error{'s' if len(lines) > 1 else ''}:\n" + "\n".join(lines), param)


def _shown(value: object) -> str:
    if isinstance(value, dict | list):
        return f"<{type(value).__name__} of {len(value)} items>"
    return str(value)


def _messages(messages: list[dict[str, Any]], options: Options) -> tuple[str, tuple[Picture, ...]]:
    if not messages:
        raise bad_request("Cannot apply chat template to an empty conversation. Provide at least one message.")
    texts: list[str] = []
    urls: list[str] = []
    for message in messages:
        if "role" not in message:
            raise invalid("1 validation error:\n  {'type': 'missing', 'msg': 'Field required'}", "body.messages.0.role")
        content = message.get("content")
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content or []:
            _part(part, texts, urls)
    limit = options.images_per_prompt
    if limit is not None and len(urls) > limit:
        raise bad_request(f"At most {limit} image(s) may be provided in one prompt. (parameter=image)", "image")
    read = tuple(pictures.read(url) for url in urls)
    turns = [message["role"] for message in messages if message["role"] not in ("system", "developer")]
    if any(role != ("user", "assistant")[index % 2] for index, role in enumerate(turns)):
        raise bad_request("Conversation roles must alternate user/assistant/user/assistant/...")
    text = "".join(texts)
    if text.count("<image>") > len(read):
        raise bad_request(
            "Found more '<image>' placeholders in input prompt than actual multimodal data items. (parameter=messages)",
            "messages",
        )
    return text, read


def _part(part: Any, texts: list[str], urls: list[str]) -> None:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        texts.append(part["text"])
    elif kind == "image_url" and isinstance(part.get("image_url"), dict) and part["image_url"].get("url"):
        urls.append(str(part["image_url"]["url"]))
    else:
        raise bad_request(f"1 validation error for a content part of type {kind!r}")


def _prompt_tokens(text: str, images: tuple[Picture, ...], asked: int | None, options: Options) -> int:
    text_tokens = 1 + count_text_tokens(text.replace("<image>", ""), options.mode)
    if text_tokens > options.max_model_len:
        raise bad_request(
            f"This model's maximum context length is {options.max_model_len} tokens. However, your prompt contains "
            f"at least {options.max_model_len + 1} input tokens, which exceeds this limit even without any output "
            "tokens. Please reduce the length of the input prompt. "
            f"(parameter=input_tokens, value={options.max_model_len + 1})",
            "input_tokens",
        )
    if not options.clamps_max_tokens and asked is not None and text_tokens + asked > options.max_model_len:
        raise bad_request(
            f"This model's maximum context length is {options.max_model_len} tokens. However, you requested {asked} "
            f"output tokens and your prompt contains {text_tokens} input tokens, for a total of {text_tokens + asked} "
            "tokens. Please reduce the length of the input prompt or the number of requested output tokens.",
            "max_tokens",
        )
    # Each missing "<image>" is put before the text with a newline after it, each "<image>" becomes its tokens.
    missing = len(images) - text.count("<image>")
    total = text_tokens + missing + sum(image.tokens for image in images)
    if total >= options.max_model_len:
        raise bad_request(f"Input length ({total}) exceeds model's maximum context length ({options.max_model_len}).")
    return total


def count_text_tokens(text: str, mode: str) -> int:
    """Scripted: the tiny model's tokenizer, one token a byte but for the special ones. Page: about 4 letters each."""
    plain, special = _PROMPT_SPECIAL.subn("", text)
    size = len(plain.encode())
    return special + (size if mode == "scripted" else -(-size // 4))


def _sampling(fields: _Body, asked: int | None) -> tuple[float, int]:
    temperature = 1.0 if fields.temperature is None else fields.temperature
    n = 1 if fields.n is None else fields.n
    if n < 1:
        raise bad_request(f"n must be at least 1, got {n}.")
    if temperature < 0:
        raise _out_of_range("temperature", f"must be non-negative, got {temperature}.", temperature)
    if temperature > 2:
        raise _out_of_range("temperature", f"must be in [0, 2], got {temperature}.", temperature)
    if fields.top_p is not None and not 0 < fields.top_p <= 1:
        raise _out_of_range("top_p", f"must be in (0, 1], got {fields.top_p}.", fields.top_p)
    if asked is not None and asked < 1:
        raise _out_of_range("max_tokens", f"must be at least 1, got {asked}.", asked)
    if n > 1 and temperature < 1e-5:
        raise bad_request(f"n must be 1 when using greedy sampling, got {n}.")
    return temperature, n


def _out_of_range(name: str, what: str, value: float) -> Refusal:
    return bad_request(f"{name} {what} (parameter={name}, value={value})", name)


def _guard(xargs: dict[str, Any], options: Options) -> tuple[int | None, int, frozenset[int]]:
    """vLLM's NGramPerReqLogitsProcessor: without it the arguments are silently ignored."""
    ngram, window, whitelist = xargs.get("ngram_size"), xargs.get("window_size", 100), xargs.get("whitelist_token_ids")
    if not options.logits_processor or ngram is None:
        return None, 0, frozenset()
    for name, value in (("ngram_size", ngram), ("window_size", window)):
        if not isinstance(value, int) or value <= 0:
            raise bad_request(f"`{name}` has to be a strictly positive integer, got {value}.")
    if whitelist is not None and not isinstance(whitelist, str | list):
        raise bad_request(f"`whitelist_token_ids` has to be a sequence of integers, got {whitelist}.")
    # Any other sequence passes and has no effect: strings, lists of strings, ids out of range.
    ids = frozenset(i for i in whitelist if isinstance(i, int)) if isinstance(whitelist, list) else frozenset()
    return ngram, window, ids
