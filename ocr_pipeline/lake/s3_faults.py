"""What a fault of an S3 store means, in words that say what to do.

Pure: from an exception of botocore, s3fs or aiohttp to a `StorageError`. No secret is ever part of a message: botocore
puts none in its own, and we quote only the store's code and first line.
"""

from __future__ import annotations

import errno
from typing import Any

from botocore.exceptions import ClientError  # type: ignore[import-untyped]

from ocr_pipeline.lake.storage import StorageError

MENDS = {
    "InvalidAccessKeyId": "it does not know the access key: check R2_ACCESS_KEY_ID, and that the token belongs to this "
    "account and jurisdiction",
    "SignatureDoesNotMatch": "the secret does not fit the access key: check R2_SECRET_ACCESS_KEY (no spaces or quotes)",
    "AccessDenied": "the token lacks the right: give it Object Read & Write on this bucket",
    "Unauthorized": "it does not accept the token: make a new one with Object Read & Write on this bucket",
    "ExpiredToken": "the token has expired: make a new one",
    "NoSuchBucket": "there is no such bucket: check OCR_LAKE, and R2_JURISDICTION, since an eu bucket is seen only "
    "through the eu endpoint",
    "InvalidBucketName": "the bucket's name is not valid: check OCR_LAKE",
    "RequestTimeTooSkewed": "the clock of this machine is off by more than 15 minutes: set it "
    "(timedatectl set-ntp true)",
    "AuthorizationHeaderMalformed": "the region is wrong: set R2_REGION to the bucket's (auto for R2)",
    "PermanentRedirect": "the bucket is elsewhere: set R2_ENDPOINT_URL and R2_REGION to the bucket's",
    "EntityTooLarge": "the object is too large for the store",
    "SlowDown": "it asks to slow down, even after several attempts: lower the load, or try later",
    "TooManyRequests": "it asks to slow down, even after several attempts: R2 takes one write a second to one key",
    "NotImplemented": "it does not know this request: is R2_ENDPOINT_URL the address of an S3 store?",
}
"""By the store's error code."""

BY_STATUS = {
    401: MENDS["Unauthorized"],
    403: "it refuses (403): check R2_ACCESS_KEY_ID and R2_SECRET_ACCESS_KEY, the token's right on this bucket, "
    "and this machine's clock",
    429: MENDS["TooManyRequests"],
    404: "it knows no such address: check R2_ENDPOINT_URL and the bucket in OCR_LAKE",
    500: "it failed, even after several attempts: try later",
    502: "it failed, even after several attempts: try later",
    503: "it is not available, even after several attempts: try later",
}
"""By HTTP status, where the code says nothing: answers to HEAD have no body."""


LOCAL = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO)
"""What the local file at the other end of a copy can raise."""


def storage_error(error: Exception, uri: str, bucket: str, endpoint: str) -> StorageError:
    """The `StorageError` for what happened on a request for `uri`."""
    answer = _answer(error)
    if answer is None:
        if isinstance(error, OSError) and error.errno in LOCAL:
            return StorageError(f"{error.filename or 'the local disk'}: {error.strerror} (while copying {uri})")
        return StorageError(f"cannot reach the store {endpoint} for {uri}: {_first_line(error)}; {_unreachable(error)}")
    code = str(answer.get("Error", {}).get("Code", ""))
    http = _http(answer)
    mend = MENDS.get(code) or BY_STATUS.get(http)
    if mend is None:
        message = str(answer.get("Error", {}).get("Message", ""))[:200]
        mend = f"it answers {http} {code}: {message or 'no reason given'}"
    where = f"the bucket {bucket!r}" if code in ("NoSuchBucket", "InvalidBucketName") else uri
    return StorageError(f"the store {endpoint}, asked for {where}: {mend}")


def is_missing(error: BaseException) -> bool:
    """Whether a request to read was answered: there is no such object. An answer to HEAD names no code."""
    answer = _answer(error)
    code = str(answer.get("Error", {}).get("Code", "")) if answer else ""
    return code == "NoSuchKey" or (status(error) == 404 and code in ("404", "NotFound", ""))


def status(error: BaseException) -> int:
    """The HTTP status that the store answered with; 0 where there was no answer."""
    answer = _answer(error)
    return _http(answer) if answer else 0


def _answer(error: BaseException | None) -> dict[str, Any] | None:
    """The store's answer behind an exception; s3fs turns it into an OSError and keeps it as the cause."""
    while error is not None:
        if isinstance(error, ClientError):
            return dict(error.response)
        error = error.__cause__
    return None


def _http(answer: dict[str, Any]) -> int:
    return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _unreachable(error: Exception) -> str:
    name = type(error).__name__
    if "HANDSHAKE_FAILURE" in str(error):
        return (
            "it ends the TLS handshake, as R2 does for an account that it does not know: check R2_ACCOUNT_ID and "
            "R2_JURISDICTION, or R2_ENDPOINT_URL"
        )
    if name in ("SSLError", "ClientConnectorCertificateError"):
        return "its certificate is not accepted: check R2_ENDPOINT_URL and this machine's CA certificates and clock"
    if "Timeout" in name:
        return "it does not answer in time: check the network, a firewall or a proxy"
    if name == "ProfileNotFound":
        return "botocore reads AWS_PROFILE: unset it"
    return "check R2_ENDPOINT_URL or R2_ACCOUNT_ID, and the network"
