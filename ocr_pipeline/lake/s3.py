"""R2, or any other S3 store, as object storage, through s3fs.

Here belong the client's settings, the calls, and which faults are tried again. Not here: what a fault means to people
(`s3_faults.py`).

The calls go through s3fs's client (`_call_s3`) and not through its file interface where that one cannot carry a key
unchanged (it cuts "?versionId=…" off), has no StartAfter, or does not say which version was read.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import s3fs
from aiobotocore.session import AioSession  # type: ignore[import-untyped]
from aiohttp import ClientError as HttpClientError
from botocore.exceptions import (  # type: ignore[import-untyped]
    BotoCoreError,
    ClientError,
    HTTPClientError,
    IncompleteReadError,
)
from botocore.handlers import add_expect_header  # type: ignore[import-untyped]
from botocore.utils import parse_timestamp  # type: ignore[import-untyped]
from fsspec.asyn import sync

from ocr_pipeline.lake import s3_faults
from ocr_pipeline.lake.source_file import SourceFile, open_source
from ocr_pipeline.lake.storage import (
    PARALLEL,
    KeyRefused,
    ObjectInfo,
    ObjectMissing,
    ObjectTooLarge,
    S3Options,
    Storage,
    StorageError,
    Tell,
    climbs,
    is_hidden,
    parallel_map,
)

T = TypeVar("T")

log = logging.getLogger(__name__)

PART_BYTES = 16 * 2**20
"""Of a multipart upload. R2 wants all parts but the last equal; 10,000 parts of it are 156 GiB."""

PARTS_AT_ONCE = 4
PAGE_KEYS = 1000  # of a listing: the most that S3 gives
PIECE_BYTES = 2**20
CONNECT_SECONDS = 10
READ_SECONDS = 60  # between two bytes
CLIENT_ATTEMPTS = 5  # botocore's
ATTEMPTS = 4
"""Ours, for what botocore's five do not cover: HTTP 429 (R2: more than one write a second to one key) and bodies
that break off."""

R2_HOST = ".r2.cloudflarestorage.com"

BROKEN_OFF = (HttpClientError, HTTPClientError, IncompleteReadError, TimeoutError, ConnectionError)


class Unreachable(Exception):
    """No answer after all of botocore's attempts; `cause` says which way."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


def client_options(options: S3Options) -> dict[str, Any]:
    """The arguments of s3fs.S3FileSystem that R2 needs. Pure."""
    return {
        "key": options.access_key_id,
        "secret": options.secret_access_key,
        "endpoint_url": endpoint(options),
        "client_kwargs": {"region_name": options.region},
        "config_kwargs": {
            "s3": {"addressing_style": "path"},
            "signature_version": "s3v4",
            # botocore would else send "aws-chunked" bodies with a checksum trailer over https, which R2 refuses.
            # No plain-http test server can show it: a unit test asserts the setting.
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
            "max_pool_connections": 2 * PARALLEL,
            "retries": {"max_attempts": CLIENT_ATTEMPTS, "mode": "standard"},
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": READ_SECONDS,
        },
        "fixed_upload_size": True,
        "default_block_size": 8 * 2**20,
        # The cache is shared by all instances with the same arguments, and hides objects that others write.
        "use_listings_cache": False,
        "skip_instance_cache": True,
    }


@cache
def session(process: int) -> AioSession:
    """A botocore session that looks at nobody's AWS profile, does not wait for "100 Continue", and reads times fast.

    botocore asks for "100 Continue" before each body, however small: a round trip more a write, and a hang for ever on
    a server that never says it (workerd; measured). Its parser of times takes 87 of the 113 ms CPU that a page of
    1,000 keys costs (measured). One a process: a client costs 0.11 s CPU with a new session, which reads botocore's
    description of S3 from disk, and 0.04 s with a known one.
    """
    nothing: tuple[Any, ...] = (None, [], None, None)
    no_file: tuple[Any, ...] = (None, [], os.devnull, None)
    made = AioSession(session_vars={"profile": nothing, "config_file": no_file, "credentials_file": no_file})
    made.unregister("before-call.s3", add_expect_header)
    made.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_time)
    return made


def _time(value: Any) -> datetime:
    """ISO 8601 as in a listing, else what botocore knows (the HTTP date of a header)."""
    try:
        return datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return parse_timestamp(value)  # type: ignore[no-any-return]


def endpoint(options: S3Options) -> str:
    """The address of the store: the one given, else R2's for the account and jurisdiction."""
    if options.endpoint_url:
        if not options.endpoint_url.startswith(("http://", "https://")):
            raise StorageError("R2_ENDPOINT_URL must start with https:// (or http:// for a store on this machine)")
        parts = urlsplit(options.endpoint_url)
        if (parts.hostname or "").endswith(R2_HOST) and parts.path.strip("/"):
            raise StorageError(
                f"R2_ENDPOINT_URL ends in {parts.path!r}: R2's dashboard shows the bucket there; leave it off "
                f"({parts.scheme}://{parts.netloc}), the bucket's place is OCR_LAKE"
            )
        return options.endpoint_url.rstrip("/")
    if not options.account_id:
        raise StorageError("the lake is on S3: set R2_ACCOUNT_ID (or R2_ENDPOINT_URL for another store than R2)")
    for name, value in (("R2_ACCOUNT_ID", options.account_id), ("R2_JURISDICTION", options.jurisdiction or "eu")):
        if not value.replace("-", "").isalnum() or not value.isascii():
            raise StorageError(f"{name} holds something else than letters and digits: copy it from the R2 dashboard")
    jurisdiction = f".{options.jurisdiction}" if options.jurisdiction else ""
    return f"https://{options.account_id}{jurisdiction}{R2_HOST}"


class S3Storage(Storage):
    """The objects below `prefix` of one bucket. See `Storage` for the methods."""

    is_local = False

    def __init__(self, bucket: str, prefix: str, options: S3Options) -> None:
        if not bucket:
            raise StorageError("the lake's URL names no bucket: write s3://bucket/prefix")
        if not options.access_key_id or not options.secret_access_key:
            # Without both, botocore would look in files, in the environment and on the network for others.
            raise StorageError("the lake is on S3: set R2_ACCESS_KEY_ID and R2_SECRET_ACCESS_KEY")
        self.bucket = bucket
        self.prefix = f"{prefix}/" if prefix else ""
        self.uri = f"s3://{bucket}/{prefix}".rstrip("/")
        self._options = options
        self._client_options = client_options(options)
        self._warned: set[str] = set()
        self._lock = threading.Lock()
        self._filesystem: tuple[int, s3fs.S3FileSystem] | None = None

    @property
    def filesystem(self) -> s3fs.S3FileSystem:
        """The fsspec file system, for DuckDB and pyarrow; `uri_of` is a path on it. Made anew after a fork."""
        with self._lock:
            if self._filesystem is None or self._filesystem[0] != os.getpid():
                filesystem = s3fs.S3FileSystem(**self._client_options, session=session(os.getpid()))
                filesystem.retries = 1  # botocore and `_calling` do it; both on top would be 5 x 5 attempts
                self._filesystem = (os.getpid(), filesystem)
            return self._filesystem[1]

    def uri_of(self, key: str) -> str:
        return f"s3://{self.bucket}/{self.prefix}{key}"

    def read(self, key: str) -> bytes:
        async def read() -> bytes:
            async with self._body(key) as (_, body):
                data: bytes = await body.read()
                return data

        return self._run(read, key, reads=True)

    def download(self, key: str, path: Path, max_bytes: int | None = None) -> ObjectInfo:
        async def download() -> ObjectInfo:
            async with self._body(key) as (answer, body):
                info = self._info(key, answer, answer["ContentLength"])
                if max_bytes is not None and info.size > max_bytes:
                    raise ObjectTooLarge(self.uri_of(key), info.size, max_bytes)
                copied = 0
                with open(path, "wb") as file:
                    while piece := await body.read(PIECE_BYTES):
                        await asyncio.to_thread(file.write, piece)  # a slow disk must not hold up other requests
                        copied += len(piece)
                if copied != info.size:
                    raise IncompleteReadError(actual_bytes=copied, expected_bytes=info.size)
                return info

        try:
            return self._run(download, key, reads=True)
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def write(self, key: str, data: bytes) -> None:
        self._run(lambda: self._call("put_object", Key=self._key(key), Body=data), key)

    def create(self, key: str, data: bytes) -> bool:
        async def create() -> bool:
            try:
                await self._call("put_object", Key=self._key(key), Body=data, IfNoneMatch="*")
            except Exception as error:
                # s3fs makes OSError(22) or FileExistsError of it; the cause is the answer itself.
                # 409: two conditional writes met (AWS says so; the other may have failed, so it is asked again).
                if s3_faults.status(error) == 412:
                    return False
                raise
            return True

        return self._run(create, key)

    def upload(self, key: str, path: Path) -> None:
        with open_source(path) as file:

            async def upload() -> None:
                file.rewind()  # for the attempts after the first
                first = await asyncio.to_thread(file.read, PART_BYTES)
                if len(first) < PART_BYTES:
                    await self._call("put_object", Key=self._key(key), Body=first)
                else:
                    await self._upload_parts(self._key(key), first, file)

            self._run(upload, key)

    def stat(self, key: str) -> ObjectInfo | None:
        async def stat() -> ObjectInfo:
            answer = await self._call("head_object", Key=self._key(key))
            return self._info(key, answer, answer["ContentLength"])

        try:
            return self._run(stat, key, reads=True)
        except ObjectMissing:
            return None

    def list(self, prefix: str, start_after: str | None = None, tell: Tell | None = None) -> Iterator[ObjectInfo]:
        asked: dict[str, Any] = {"Prefix": self.prefix + prefix, "MaxKeys": PAGE_KEYS}
        if start_after is not None:
            asked["StartAfter"] = self.prefix + start_after
        while True:
            page = self._run(partial(self._call, "list_objects_v2", **asked), prefix)
            for entry in page.get("Contents", ()):
                key = entry["Key"][len(self.prefix) :]
                if is_hidden(key):
                    self._warn(key)
                # An empty object whose name ends with a slash is the mark that consoles leave for a folder.
                elif entry["Size"] or not key.endswith("/"):
                    yield self._info(key, entry, entry["Size"])
            if not page.get("IsTruncated"):
                return
            asked.pop("StartAfter", None)
            asked["ContinuationToken"] = page["NextContinuationToken"]

    def _warn(self, key: str) -> None:
        """Say it once a process: the sensor lists every few seconds."""
        if key not in self._warned and len(self._warned) < 1000:
            self._warned.add(key)
            log.warning("%r in %s is left alone: a part of its name starts with a dot; rename it", key, self.uri)

    def remove_leftovers(self, prefix: str, before: datetime) -> int:
        return 0  # parts of uploads that were broken off: R2 removes them after seven days

    def delete(self, keys: Iterable[str]) -> None:
        # One by one, which R2 does not bill: DeleteObjects wants a checksum that stores disagree on, and carries the
        # keys in XML, which cannot hold every character.
        def work(key: str) -> None:
            self._run(lambda: self._call("delete_object", Key=self._key(key)), key)

        for _ in parallel_map(work, keys):
            pass

    # ------------------------------------------------------------------------------------------------------- calls

    def _key(self, key: str) -> str:
        if not key:
            raise KeyRefused("an object needs a key")
        if climbs(key):
            raise KeyRefused(f"the key {key!r} has a part '.' or '..', which URLs do not carry: rename the object")
        try:
            size = len((self.prefix + key).encode())
        except UnicodeEncodeError:
            raise KeyRefused(f"the key {key!r} is not valid Unicode: rename it") from None
        if size > 1024:
            raise KeyRefused(f"the key {key[:80]!r}… has {size} bytes with its prefix; S3 takes 1024: shorten it")
        return self.prefix + key

    async def _call(self, method: str, **arguments: Any) -> Any:
        try:
            return await self.filesystem._call_s3(method, Bucket=self.bucket, **arguments)
        except HTTPClientError as error:
            # botocore has tried it six times. On top of that, a store that takes requests and never answers would
            # be waited for 24 times a minute.
            raise Unreachable(error) from error

    @asynccontextmanager
    async def _body(self, key: str) -> AsyncIterator[tuple[dict[str, Any], Any]]:
        answer = await self._call("get_object", Key=self._key(key))
        async with answer["Body"] as body:
            yield answer, body

    async def _upload_parts(self, key: str, first: bytes, file: SourceFile) -> None:
        upload = (await self._call("create_multipart_upload", Key=key))["UploadId"]
        try:
            parts: list[dict[str, Any]] = []
            bodies = [first, *await asyncio.to_thread(_read_parts, file, PARTS_AT_ONCE - 1)]
            while bodies:
                sending = [
                    self._call("upload_part", Key=key, UploadId=upload, PartNumber=len(parts) + number, Body=body)
                    for number, body in enumerate(bodies, 1)
                ]
                # all of them, also after one has failed: a part that arrives after the abort stays in the bucket
                answers = await asyncio.gather(*sending, return_exceptions=True)
                bodies.clear()  # before the next are read: 64 MiB less in memory
                for answer in answers:
                    if isinstance(answer, BaseException):
                        raise answer
                    parts.append({"PartNumber": len(parts) + 1, "ETag": answer["ETag"]})
                bodies = await asyncio.to_thread(_read_parts, file, PARTS_AT_ONCE)
            await self._call("complete_multipart_upload", Key=key, UploadId=upload, MultipartUpload={"Parts": parts})
        except BaseException:
            # What a killed process leaves behind the store removes itself: R2 after seven days.
            with suppress(Exception):
                await self._call("abort_multipart_upload", Key=key, UploadId=upload)
            raise

    def _run(self, work: Callable[[], Awaitable[T]], key: str, *, reads: bool = False) -> T:
        """Do `work` on fsspec's loop, again after faults that pass, and turn faults into `StorageError`."""

        async def attempts() -> T:
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    return await work()
                except (*BROKEN_OFF, OSError, ClientError) as error:
                    passes = isinstance(error, BROKEN_OFF) or s3_faults.status(error) in (409, 429)
                    if not passes or attempt == ATTEMPTS:
                        raise
                    # 1 s is R2's limit of writes to one key.
                    await asyncio.sleep(random.uniform(0.5, 1.0) * 2 ** (attempt - 1))  # noqa: S311
            raise AssertionError("unreachable")

        try:
            result: T = sync(self.filesystem.loop, attempts)
            return result
        except StorageError:
            raise
        except Unreachable as error:
            raise self._storage_error(error.cause, key) from error.cause
        except (BotoCoreError, ClientError, HttpClientError, OSError) as error:
            if reads and s3_faults.is_missing(error):
                raise ObjectMissing(self.uri_of(key)) from None
            raise self._storage_error(error, key) from error

    def _storage_error(self, error: Exception, key: str) -> StorageError:
        return s3_faults.storage_error(error, self.uri_of(key), self.bucket, self._client_options["endpoint_url"])

    @staticmethod
    def _info(key: str, entry: dict[str, Any], size: int) -> ObjectInfo:
        # R2's listing says milliseconds and its HEAD whole seconds; one upload must have one time
        modified: datetime = entry["LastModified"].astimezone(UTC).replace(microsecond=0)
        return ObjectInfo(key, entry["ETag"].strip('"'), size, modified)


def _read_parts(file: SourceFile, most: int) -> list[bytes]:
    return list(islice(iter(partial(file.read, PART_BYTES), b""), most))
