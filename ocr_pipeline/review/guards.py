"""What stands between the app and the rest of the browser: Host check, headers, and the proof that a POST is ours.

Here belongs what holds for every request, whatever the screen. There is no login: who reaches 127.0.0.1 may look. So a
page of another site must not reach it through the user's browser: not by a name that resolves to 127.0.0.1 (Host is
checked), not by a script (no CORS headers, ever), not by a frame, and not by a form (token and origin).
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
# Not "no-referrer": under it Chromium sends "Origin: null" with our own form too, and `Token` could not tell it apart.
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")


class Guards:
    """ASGI middleware. `allowed_hosts`: names, without a port, under which the app may be asked."""

    def __init__(self, app: ASGIApp, allowed_hosts: Collection[str]) -> None:
        self._app = app
        self._allowed = {host.lower().rstrip(".") for host in allowed_hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        if host_name(Headers(scope=scope).get("host", "")) not in self._allowed:
            refusal = PlainTextResponse(
                "This host name is not allowed: use 127.0.0.1, or start the app with --allow-host NAME.\n",
                status_code=421,
            )
            await refusal(scope, receive, with_headers)
            return
        await self._app(scope, receive, with_headers)


def host_name(host: str) -> str:
    """The name in a Host header, lower case, without port and final dot; "" where it is no such header."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
    if not name or any(mark in host for mark in "/@?#\\ "):
        return ""
    return f"[{name}]" if ":" in name else name.rstrip(".")


class Token:
    """A secret of this run of the app, in every form of ours: another site cannot read it, so it cannot send it."""

    def __init__(self) -> None:
        self.value = secrets.token_urlsafe(32)

    def is_ours(self, headers: Headers, sent: str) -> bool:
        """Whether a POST was sent from one of our own pages."""
        origin = headers.get("origin")
        same_origin = origin is None or urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
        same_site = headers.get("sec-fetch-site", "same-origin") == "same-origin"
        return same_origin and same_site and hmac.compare_digest(self.value.encode(), sent.encode("utf-8", "replace"))
