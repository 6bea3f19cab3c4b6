"""What an R2 event notification says, as it comes out of a Cloudflare Queue. Pure.

An event only names a key to look at: events come twice, late and out of order, so what is there now is asked of the
store. Format: Cloudflare's documentation, "R2 event notifications", and "Queues, pull consumers".
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ocr_pipeline.lake.storage import is_hidden

KEY_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Event:
    """A key in a bucket that something happened to."""

    bucket: str
    key: str
    size: int | None = None  # bytes, as the event says; None for deletions


def decode(message: Mapping[str, Any]) -> Event | None:
    """The event in a pulled message; None for what is none.

    The body of a JSON message arrives as base64, of a text message plain; both are tried.
    """
    body = message.get("body")
    if not isinstance(body, str):
        return None
    for text in (_from_base64(body), body):
        try:
            said = json.loads(text) if text is not None else None
        except (ValueError, RecursionError):
            continue
        if isinstance(said, dict):
            return _event(said)
    return None


def upload_key(event: Event, bucket: str, lake_prefix: str, inbox: str) -> str | None:
    """The lake key that the event is about; None when it is about no upload of this lake.

    `lake_prefix`: the lake's place in the bucket, "" or with a slash at its end; `inbox` likewise, below it.
    """
    if event.bucket != bucket or not event.key.startswith(lake_prefix + inbox):
        return None
    key = event.key[len(lake_prefix) :]
    # an empty object whose name ends with a slash is the mark that consoles leave for a folder
    return None if is_hidden(key) or (key.endswith("/") and not event.size) else key


def _event(said: Mapping[str, Any]) -> Event | None:
    thing = said.get("object")
    key = thing.get("key") if isinstance(thing, dict) else None
    bucket = said.get("bucket")
    # its action ("PutObject", "DeleteObject", …) tells an event from other JSON, and is not looked at further
    if not (isinstance(key, str) and isinstance(bucket, str) and isinstance(said.get("action"), str) and key):
        return None
    try:
        size = thing.get("size") if isinstance(thing, dict) else None
        size = size if isinstance(size, int) else None
        return Event(bucket, key, size) if len(key.encode()) <= KEY_BYTES else None
    except UnicodeEncodeError:
        return None


def _from_base64(body: str) -> str | None:
    try:
        return base64.b64decode(body, validate=True).decode()
    except (binascii.Error, ValueError):
        return None
