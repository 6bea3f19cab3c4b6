"""Whether a lake can be worked with: what doctor asks of it. Writes one small object and takes it away again."""

from __future__ import annotations

from ocr_pipeline.lake import keys
from ocr_pipeline.lake.storage import ObjectMissing, Storage, StorageError

BYTES = b"ocr-pipeline doctor"


def check(storage: Storage, inbox: str) -> None:
    """Raises StorageError, with the mend, where the lake does not write, read, list and delete as it must."""
    storage.write(keys.PROBE, BYTES)
    try:
        read = storage.read(keys.PROBE)
    except ObjectMissing:
        read = b""
    if read != BYTES:
        raise StorageError(
            f"{storage.uri} took an object and gives back another: is R2_ENDPOINT_URL the address of an S3 store, and "
            "not a web page or a proxy's?"
        )
    if keys.PROBE not in [info.key for info in storage.list(keys.PROBE)]:
        raise StorageError(
            f"{storage.uri} took an object and does not list it: check R2_ENDPOINT_URL (without the bucket), OCR_LAKE, "
            "and the token's right to list"
        )
    next(storage.list(inbox), None)
    storage.delete([keys.PROBE])
