"""Pages and requests for the simulator's own tests: distinct small images, asked one by one or at once."""

from __future__ import annotations

import base64
import functools
import hashlib
import io
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
from PIL import Image

PROMPT = "<|grounding|>Convert the document to markdown."
PATH = "/v1/chat/completions"


@functools.cache
def image(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (32, 48), (number % 256, number // 256 % 256, 128)).save(file, "PNG")
    return file.getvalue()


def sha256(number: int) -> str:
    return hashlib.sha256(image(number)).hexdigest()


def body(number: int, **fields: Any) -> dict[str, Any]:
    url = f"data:image/png;base64,{base64.b64encode(image(number)).decode()}"
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": PROMPT}]
    guard = {"ngram_size": 30, "window_size": 90}
    whole = {"messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 7000}
    return {**whole, "skip_special_tokens": False, "vllm_xargs": guard, **fields}


def ask(url: str, number: int, *, timeout: float = 20, **fields: Any) -> httpx.Response:
    """One page on a connection of its own."""
    with httpx.Client(trust_env=False, timeout=timeout) as client:
        return client.post(url + PATH, json=body(number, **fields), headers={"X-Request-Id": f"page-{number}"})


def ask_all(url: str, numbers: Iterable[int], **fields: Any) -> list[httpx.Response | Exception]:
    """All at once; for each its answer, or the exception that came instead."""

    def one(number: int) -> httpx.Response | Exception:
        try:
            return ask(url, number, **fields)
        except httpx.HTTPError as error:
            return error

    wanted = list(numbers)
    with ThreadPoolExecutor(len(wanted)) as pool:
        return list(pool.map(one, wanted))


def text(answer: httpx.Response | Exception) -> str:
    assert isinstance(answer, httpx.Response), answer
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


def finish(answer: httpx.Response) -> str:
    return str(answer.json()["choices"][0]["finish_reason"])
