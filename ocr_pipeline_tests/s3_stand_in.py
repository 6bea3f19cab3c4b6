"""A small S3 server of ours on loopback, for what no emulator does: faults on order, and buckets of a million keys.

It speaks GetObject, HeadObject, PutObject and ListObjectsV2 (prefix, start-after, continuation-token, max-keys,
encoding-type) for any bucket and any signature. Run as a program it serves a bucket of many keys, which the listing
benchmark reads:  python -m ocr_pipeline_tests.s3_stand_in 1000000
"""

from __future__ import annotations

import hashlib
import sys
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from ocr_pipeline.lake.listing import floor
from ocr_pipeline.lake.storage import S3Options

FIRST_DAY = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Fault:
    """An answer to give instead of the right one."""

    status: int
    code: str = ""
    cut_after: int | None = None  # answer rightly, and break off after so many bytes of the body
    methods: tuple[str, ...] = ("GET", "HEAD", "PUT")


@dataclass
class S3StandIn:
    objects: dict[str, bytes] = field(default_factory=dict)
    listed: list[tuple[str, datetime]] = field(default_factory=list)  # further keys, sorted, that are only listed
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)  # method and path with query, as on the wire
    headers: list[dict[str, str]] = field(default_factory=list)  # of the same requests
    url: str = ""

    @property
    def options(self) -> S3Options:
        return S3Options("key", "secret", endpoint_url=self.url)

    def page(self, asked: dict[str, str]) -> str:
        """One answer to ListObjectsV2. Keys are compared as text, which for UTF-8 is the order of their bytes."""
        entries = self.listed or sorted((key, FIRST_DAY) for key in self.objects)
        prefix, size = asked.get("prefix", ""), int(asked.get("max-keys", "1000"))
        after = asked.get("continuation-token") or asked.get("start-after", "")
        start = max(bisect_left(entries, (prefix,)), bisect_right(entries, (after, datetime.max.replace(tzinfo=UTC))))
        found = []
        while start < len(entries) and len(found) <= size and entries[start][0].startswith(prefix):
            found.append(entries[start])
            start += 1
        more = len(found) > size
        name = (lambda key: quote(key, safe="/")) if asked.get("encoding-type") == "url" else (lambda key: key)
        size_of = lambda key: len(self.objects[key]) if key in self.objects else 2_000_000  # noqa: E731
        contents = "".join(
            f"<Contents><Key>{name(key)}</Key><LastModified>{modified:%Y-%m-%dT%H:%M:%S.670Z}</LastModified>"
            f"<ETag>&quot;{hashlib.md5(key.encode()).hexdigest()}&quot;</ETag><Size>{size_of(key)}</Size>"
            "<StorageClass>STANDARD</StorageClass></Contents>"
            for key, modified in found[:size]
        )
        token = f"<NextContinuationToken>{quote(found[size - 1][0])}</NextContinuationToken>" if more else ""
        return (
            '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>b</Name><Prefix>{name(prefix)}</Prefix><MaxKeys>{size}</MaxKeys><EncodingType>url</EncodingType>"
            f"<KeyCount>{len(found[:size])}</KeyCount><IsTruncated>{str(more).lower()}</IsTruncated>{token}{contents}"
            "</ListBucketResult>"
        )


@contextmanager
def s3_stand_in() -> Iterator[S3StandIn]:
    store = S3StandIn()
    with _server(store) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield store
        finally:
            server.shutdown()
            thread.join()


def _server(store: S3StandIn) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # header and body are two packets; else 40 ms a request

        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            store.requests.append((self.command, self.path))
            store.headers.append(dict(self.headers))
            parts = urlsplit(self.path)
            key = unquote(parts.path).removeprefix("/").partition("/")[2]
            fault = None
            if store.faults and self.command in store.faults[0].methods:
                fault = store.faults.pop(0)
            if fault and fault.cut_after is None:
                return self._answer(fault.status, _error(fault.code))
            asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
            if asked.get("list-type") == "2":
                if "continuation-token" in asked:
                    asked["continuation-token"] = unquote(asked["continuation-token"])
                return self._answer(200, store.page(asked).encode())
            if self.command == "PUT":
                store.objects[key] = body
                return self._answer(200, b"", ETag='"put"')
            if key not in store.objects:
                return self._answer(404, _error("NoSuchKey"))
            data = store.objects[key]
            modified = format_datetime(FIRST_DAY, usegmt=True)
            headers = {"ETag": f'"{hashlib.md5(data).hexdigest()}"', "Last-Modified": modified}
            return self._answer(200, data, cut_after=fault.cut_after if fault else None, **headers)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _any

        def _answer(self, status: int, data: bytes, cut_after: int | None = None, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data[:cut_after])
            if cut_after is not None:
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    store.url = f"http://127.0.0.1:{server.server_port}"
    return server


def _error(code: str) -> bytes:
    said = f"<Error><Code>{code}</Code><Message>as told</Message></Error>" if code else ""
    return f'<?xml version="1.0" encoding="UTF-8"?>{said}'.encode() if said else b""


def many_keys(count: int, new: int) -> list[tuple[str, datetime]]:
    """Keys as the Worker makes them, evenly over 300 days, and `new` more in the last minutes of day 301."""
    step = timedelta(days=300) / count
    times = [FIRST_DAY + step * number for number in range(count)]
    last = FIRST_DAY + timedelta(days=301)
    times += [last + timedelta(seconds=number) for number in range(new)]
    return [(f"{floor('inbox/', time)}{number:016d}-document.pdf", time) for number, time in enumerate(times)]


if __name__ == "__main__":
    many = S3StandIn(listed=many_keys(int(sys.argv[1]), 0))
    fresh = many_keys(int(sys.argv[1]), 100)[int(sys.argv[1]) :]
    with _server(many) as serving:
        print(many.url, flush=True)

        def control() -> None:
            # A line on stdin: add the new keys and say how many list requests there were until now.
            for line in sys.stdin:
                if line.strip() == "add":
                    many.listed += fresh
                print(len(many.requests), flush=True)
                many.requests.clear()
            serving.shutdown()

        threading.Thread(target=control, daemon=True).start()
        serving.serve_forever(poll_interval=0.05)
