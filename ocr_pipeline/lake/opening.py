"""Which store is behind a URL."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from ocr_pipeline.lake.local import LocalStorage
from ocr_pipeline.lake.storage import S3Options, Storage, StorageError


def is_local(url: str) -> bool:
    """Whether the store behind `url` is a folder of this machine: its `Storage.is_local`, without opening it."""
    scheme, separator, _ = url.partition("://")
    return not separator or scheme == "file"


def open_storage(url: str, s3: S3Options | None = None) -> Storage:
    """The store behind `url`: a local folder (path or file:// URL) or "s3://bucket/prefix".

    Nothing is asked of the store yet: a wrong key or bucket shows at the first use.
    """
    scheme, separator, rest = url.partition("://")
    if is_local(url):
        return LocalStorage(Path(unquote(rest) if separator else url))
    if scheme == "s3":
        from ocr_pipeline.lake.s3 import S3Storage  # costs a second of imports

        bucket, _, prefix = rest.partition("/")
        return S3Storage(bucket, prefix.strip("/"), s3 or S3Options())
    raise StorageError(f"cannot store in {url!r}: give a local folder or s3://bucket/prefix")
