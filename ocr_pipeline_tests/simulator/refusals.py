"""What vLLM answers when it does not answer: status, body and whether the connection survives.

Texts are vLLM 0.32.0's, word for word where a client could want to tell them apart. Not here: when they are due.
"""

from __future__ import annotations

import json


class Refusal(Exception):
    """An error answer. `closes`: vLLM lets the exception through to uvicorn, which answers 500 and then drops the
    connection without a `Connection: close` header: the next request on a kept-alive connection is reset."""

    def __init__(self, status: int, message: str, kind: str, param: str | None = None, *, closes: bool = False) -> None:
        super().__init__(message)
        self.status, self.message, self.kind, self.param, self.closes = status, message, kind, param, closes

    @property
    def error(self) -> dict[str, object]:
        return {"message": self.message, "type": self.kind, "param": self.param, "code": self.status}

    @property
    def body(self) -> bytes:
        return json.dumps({"error": self.error}, ensure_ascii=False, separators=(",", ":")).encode()


def bad_request(message: str, param: str | None = None) -> Refusal:
    return Refusal(400, message, "BadRequestError", param)


def invalid(message: str, param: str | None = None) -> Refusal:
    """Rejected by the request schema: the type has a space in it there."""
    return Refusal(400, message, "Bad Request", param)


def unhandled(message: str) -> Refusal:
    return Refusal(500, message, "InternalServerError", closes=True)


def unknown_model(asked: str, served: str) -> Refusal:
    return Refusal(404, f"The model `{asked}` does not exist. Valid aliases: {served}.", "NotFoundError", "model")


def queue_full() -> Refusal:
    return Refusal(
        503,
        "The engine is currently busy and cannot accept new requests. "
        "Please try again later or on a different instance.",
        "Service Unavailable",
    )


def too_many_requests() -> Refusal:
    """vLLM has no 429 of its own; gateways before it do."""
    return Refusal(429, "Too many requests. Please try again later.", "Too Many Requests")


def engine_dead() -> Refusal:
    return Refusal(
        500,
        "EngineCore encountered an issue. See stack trace (above) for the root cause.",
        "InternalServerError",
    )
