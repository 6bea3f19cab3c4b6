"""An S3 store on loopback (moto's) that counts each request by what R2 charges for it and by what it is about."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from threading import Lock, Thread
from typing import Any
from urllib.parse import parse_qs

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from ocr_pipeline.lake.s3 import S3Storage
from ocr_pipeline.lake.storage import S3Options

BUCKET = "lake"


@dataclass
class Store:
    """The running store. Counts are by `(class, kind)`: class "A", "B" or "free" (R2's price list), kind of key."""

    options: S3Options
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    def of_class(self, name: str) -> int:
        return sum(count for (group, _), count in self.counts.items() if group == name)


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: Any) -> None: ...


@contextmanager
def counting_store() -> Iterator[Store]:
    application = DomainDispatcherApplication(create_backend_app)
    lock = Lock()

    def counted(environ: dict[str, Any], start: Any) -> Any:
        what = classified(environ["REQUEST_METHOD"], environ["PATH_INFO"], environ.get("QUERY_STRING", ""))
        with lock:
            store.counts[what] += 1
        return application(environ, start)

    server = make_server("127.0.0.1", 0, counted, threaded=True, request_handler=_Quiet)
    store = Store(S3Options("moto", "moto-secret", endpoint_url=f"http://127.0.0.1:{server.server_port}"))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        # in region "auto" moto makes no bucket
        admin = S3Storage(BUCKET, "", replace(store.options, region="us-east-1"))
        admin.filesystem.call_s3("create_bucket", Bucket=BUCKET)
        store.counts.clear()
        yield store
    finally:
        server.shutdown()
        server.server_close()


def classified(method: str, path: str, query: str) -> tuple[str, str]:
    """R2's class of a request and the kind of its key. Deletes are free; lists and all writes are class A."""
    asked = parse_qs(query, keep_blank_values=True)
    key = path.strip("/").partition("/")[2]
    if method == "DELETE" or (method == "POST" and "delete" in asked):
        return "free", "delete"
    if method == "GET" and ("list-type" in asked or not key):
        return "A", f"list {kind(asked.get('prefix', [''])[0])}"
    verb = {"GET": "read", "HEAD": "look at", "PUT": "write", "POST": "write"}.get(method, method)
    return ("B" if method in ("GET", "HEAD") else "A"), f"{verb} {kind(key)}"


def kind(key: str) -> str:
    """`pages/<batch>/<document>/0001.jpg` -> `pages/*.jpg`; names that are the pipeline's own stay."""
    folder, _, rest = key.partition("/")
    name = rest.rpartition("/")[2]
    if not name:
        return f"{folder}/"
    if name in ("rendered.json", "reading.json"):
        return f"{folder}/{name}"
    return f"{folder}/*{re.sub(r'.*(?=[.])', '', name)}"
