"""A stand-in of Cloudflare Queues' HTTP pull API on loopback: the local simulator has none.

It keeps what the real one promises: leases that run out, attempts that are counted, retries with a delay, a
dead-letter list after `max_retries`, 403 for a wrong token; and what it does not promise: it may give a message twice
and in any order. Time is a number that tests move.
"""

from __future__ import annotations

import base64
import json
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Message:
    id: str
    body: str
    visible_at: float = 0.0
    attempts: int = 0
    lease: str | None = None


@dataclass
class StandIn:
    """The queue `queue_id` of `account_id`. `events_url` takes events as the Worker posts them in development."""

    account_id: str = "account"
    queue_id: str = "queue"
    token: str = "queue-token"
    max_retries: int = 3
    now: float = 0.0
    waiting: list[Message] = field(default_factory=list)
    dead: list[Message] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)  # HTTP statuses to give before anything else
    raw_answers: list[bytes] = field(default_factory=list)  # whole answers to give before those, to the byte
    drips: bool = False  # an answer that never comes to its end, a byte now and then
    closing: threading.Event = field(default_factory=threading.Event)
    requests: list[str] = field(default_factory=list)
    url: str = ""
    _made: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def events_url(self) -> str:
        return f"{self.url}/send"

    def send(self, body: Any, *, raw: bool = False, times: int = 1) -> None:
        """Put a message in: a JSON value, or with `raw` a body as it stands."""
        text = body if raw else base64.b64encode(json.dumps(body).encode()).decode()
        with self._lock:
            for _ in range(times):
                self._made += 1
                self.waiting.append(Message(f"m{self._made}", text))

    def send_event(self, bucket: str, key: str, action: str = "PutObject", times: int = 1) -> None:
        event: dict[str, Any] = {"account": "a", "action": action, "bucket": bucket, "object": {"key": key}}
        if not action.startswith("Delete"):
            event["object"] |= {"size": 1, "eTag": "not-to-be-believed"}
        self.send({**event, "eventTime": "2026-11-22T12:00:00.000Z"}, times=times)

    def pull(self, asked: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            random.Random(self._made).shuffle(self.waiting)
            taken = []
            for message in list(self.waiting):
                if message.visible_at > self.now or len(taken) >= min(asked.get("batch_size", 5), 100):
                    continue
                if message.attempts > self.max_retries:
                    self.waiting.remove(message)
                    self.dead.append(message)
                    continue
                message.attempts += 1
                message.lease = f"{message.id}.{message.attempts}"
                message.visible_at = self.now + asked.get("visibility_timeout_ms", 30_000) / 1000
                taken.append(message)
            messages = [
                {"id": m.id, "lease_id": m.lease, "body": m.body, "attempts": m.attempts, "timestamp_ms": 0}
                for m in taken
            ]
            return {"message_backlog_count": len(self.waiting), "messages": messages}

    def acknowledge(self, asked: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            acks = {entry["lease_id"] for entry in asked.get("acks", [])}
            retries = {entry["lease_id"]: entry.get("delay_seconds", 0) for entry in asked.get("retries", [])}
            # A lease that ran out and was given anew is another lease; the real API takes late acks of the last one.
            before = len(self.waiting)
            self.waiting = [message for message in self.waiting if message.lease not in acks]
            for message in self.waiting:
                if message.lease in retries:
                    message.visible_at = self.now + retries[message.lease]
            return {"ackCount": before - len(self.waiting), "retryCount": len(retries), "warnings": {}}


@contextmanager
def queue_stand_in() -> Iterator[StandIn]:
    queue = StandIn()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            queue.requests.append(self.path)
            base = f"/accounts/{queue.account_id}/queues/{queue.queue_id}/messages"
            if self.path == "/send":
                queue.send(body)
                self._answer(200, {})
            elif queue.drips:
                self._drip()
            elif queue.raw_answers:
                self.wfile.write(queue.raw_answers.pop(0))
                self.close_connection = True
            elif queue.answers:
                self._answer(queue.answers.pop(0), {})
            elif self.headers["Authorization"] != f"Bearer {queue.token}":
                self._answer(403, {"success": False, "errors": [{"code": 10000, "message": "Authentication error"}]})
            elif self.path == f"{base}/pull":
                self._answer(200, {"success": True, "errors": [], "messages": [], "result": queue.pull(body)})
            elif self.path == f"{base}/ack":
                self._answer(200, {"success": True, "errors": [], "messages": [], "result": queue.acknowledge(body)})
            else:
                self._answer(404, {"success": False, "errors": [{"code": 11000, "message": "no such queue"}]})

        def _drip(self) -> None:
            self.close_connection = True
            with suppress(OSError):
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
                while not queue.closing.wait(0.05):
                    self.wfile.write(b" ")

        def _answer(self, status: int, said: dict[str, Any]) -> None:
            data = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    queue.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield queue
    finally:
        queue.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
