"""A stand-in of a Cloudflare Access team on loopback: its published keys, and tokens signed with them."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

AUDIENCE = "upload-application"


@dataclass
class Team:
    domain: str
    key: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048), repr=False)

    def token(self, *, key: rsa.RSAPrivateKey | None = None, head: dict[str, Any] | None = None, **claims: Any) -> str:
        """A token that lets its bearer in, but for what is given otherwise."""
        now = int(time.time())
        said = {"iss": self.domain, "aud": [AUDIENCE], "exp": now + 300, "iat": now, "nbf": now, "email": "a@b.example"}
        parts = [{"alg": "RS256", "kid": "one", **(head or {})}, {**said, **claims}]
        signed = ".".join(_base64url(json.dumps(part).encode()) for part in parts)
        signature = (key or self.key).sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_base64url(signature)}"

    def jwks(self) -> dict[str, Any]:
        numbers = self.key.public_key().public_numbers()
        entry = {
            "kid": "one",
            "kty": "RSA",
            "alg": "RS256",
            "use": "sig",
            "e": _number(numbers.e),
            "n": _number(numbers.n),
        }
        return {"keys": [entry], "public_certs": []}


@contextmanager
def access_stand_in() -> Iterator[Team]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path == "/cdn-cgi/access/certs"
            data = json.dumps(team.jwks() if known else {}).encode()
            self.send_response(200 if known else 404)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    team = Team(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield team
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _number(value: int) -> str:
    return _base64url(value.to_bytes((value.bit_length() + 7) // 8, "big"))
