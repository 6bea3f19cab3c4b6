"""Images out of the lake, and nothing else out of it: page images by their row, figures by document, page and region.

Here belongs the one place where a URI of the tables becomes a key. The rows are data, not orders: a URI counts only
when it lies in this lake, below `pages/`, and what is read is served only when it is a JPEG.
"""

from __future__ import annotations

from ocr_pipeline.lake import keys
from ocr_pipeline.lake.storage import ObjectMissing, Storage, StorageError, is_hidden

MAX_BYTES = 64 * 2**20
_JPEG = b"\xff\xd8\xff"


class NoImage(Exception):
    """why there is no image to show, in words."""


def page_image(lake: Storage, uri: str | None) -> bytes:
    """The JPEG at this URI. Raises NoImage."""
    if not uri:
        raise NoImage("this page has no image: it was never drawn")
    key = key_in(lake, uri)
    if key is None or not key.startswith(keys.PAGES) or is_hidden(key):
        raise NoImage("the image of this page is not in this lake")
    return _jpeg(lake, key)


def figure(lake: Storage, source_uri: str, page: int, region: int) -> bytes:
    """The JPEG of a figure that was cut out of a page. Raises NoImage."""
    upload = key_in(lake, source_uri)
    if upload is None:
        raise NoImage("this document is not in this lake")
    key = keys.figure(upload, page, region)
    if is_hidden(key):
        raise NoImage("the figure's key cannot stand in a lake")
    return _jpeg(lake, key)


def key_in(lake: Storage, uri: str) -> str | None:
    """The key of what `lake.uri_of(key)` gave; None for a URI outside of the lake."""
    root = lake.uri_of("")
    return uri[len(root) :] if uri.startswith(root) and len(uri) > len(root) else None


def _jpeg(lake: Storage, key: str) -> bytes:
    try:
        info = lake.stat(key)
        if info is None:
            raise NoImage("the image is no longer in the lake")
        if info.size > MAX_BYTES:
            raise NoImage("the image is larger than 64 MB")
        data = lake.read(key)
    except ObjectMissing:
        raise NoImage("the image is no longer in the lake") from None
    except StorageError:
        raise NoImage("the lake cannot be read: see `ocr-pipeline doctor`") from None
    if not data.startswith(_JPEG):
        raise NoImage("what is stored there is no JPEG")
    return data
