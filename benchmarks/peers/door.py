"""A door before the simulated server: counts the bytes of each request, and gives olmOCR the answer it knows.

olmOCR wants YAML front matter before the text, and asks up to eight times where there is none. The door puts it there,
so that every client gets each page at its first request.
"""

from __future__ import annotations

import http.client
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

FRONT_MATTER = (
    "---\nprimary_language: en\nis_rotation_valid: True\nrotation_correction: 0\nis_table: False\n"
    "is_diagram: False\n---\n"
)


class Door:
    """Listens on a free port of 127.0.0.1 while it is open."""

    def __init__(self, server_url: str, *, front_matter: bool = False) -> None:
        self.bytes = self.requests = 0
        door, target, lock = self, urlsplit(server_url).netloc, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._pass_on("GET", None)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                with lock:
                    door.bytes += len(body)
                    door.requests += 1
                self._pass_on("POST", body)

            def _pass_on(self, method: str, body: bytes | None) -> None:
                connection = http.client.HTTPConnection(target, timeout=600)
                try:
                    connection.request(method, self.path, body, {"Content-Type": "application/json"})
                    answer = connection.getresponse()
                    data = answer.read()
                except OSError:
                    self.close_connection = True
                    return
                finally:
                    connection.close()
                if method == "POST" and front_matter and answer.status == 200:
                    told = json.loads(data)
                    message = told["choices"][0]["message"]
                    message["content"] = FRONT_MATTER + message["content"]
                    data = json.dumps(told).encode()
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.getheader("Content-Type") or "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None: ...

        class Server(ThreadingHTTPServer):
            request_queue_size = 256
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
