"""What is asked of a server and what comes back: the records between the client, the quality ladder and the fleet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Fault(StrEnum):
    """What a request without a text means for what is done next."""

    TRANSIENT = "transient"  # back off, here later or elsewhere now: 429, 503, timeouts, refused connections
    DEATH = "death"  # the server may have died with this page in flight: lost connection, dead engine's 500
    PAGE = "page"  # this server will never take this image: no second try with the same bytes
    CONFIG = "config"  # this backend answers no page at all as it is set up: 401, unknown model, max_tokens


@dataclass(frozen=True, slots=True)
class Rung:
    """One step of the quality ladder: how the page is asked this time."""

    name: str  # "first", "warmer", "free_ocr", …
    prompt: str | None
    sampling: Mapping[str, Any]  # temperature, max_tokens, …
    extra_body: Mapping[str, Any] = field(default_factory=dict)  # vllm_xargs, skip_special_tokens, …
    other_backend: bool = False  # ask elsewhere where there is an elsewhere


@dataclass(frozen=True, slots=True)
class Ask:
    """One request for one page."""

    jpeg: bytes
    rung: Rung
    request_id: str
    priority: int = 0  # vLLM: lower is earlier
    timeout: float = 600.0  # seconds, whole request


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, or the lack of one. `fault is None` means that `text` is what the model said."""

    outcome: str  # "ok", or a code for `attempts.outcome`: "http_503", "timeout", "connection_lost", "refused", …
    seconds: float
    text: str = ""
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    fault: Fault | None = None
    detail: str = ""
    retry_after: float | None = None  # seconds, from the server's header
