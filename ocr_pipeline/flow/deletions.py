"""What a batch says of deletions, as marks for the warehouse: uploads that are gone, or there again. Pure."""

from __future__ import annotations

from ocr_pipeline.lake import keys
from ocr_pipeline.records import Batch, Deletion, Upload


def marks(batch: Batch) -> dict[str, Deletion]:
    """By document id. Empty for a batch of uploads and nothing else.

    A deletion hides the uploads that were known when it was seen. Lists of older versions do not name them: there it
    hides everything up to the time of the deletion.
    """
    if batch.created_at is None:
        return {}
    found = {keys.document_id(key): Deletion(batch.created_at, batch.created_at) for key in batch.deleted}
    versions: dict[str, list[Upload]] = {}
    for upload in batch.gone:
        versions.setdefault(upload.key, []).append(upload)
    for key, known in versions.items():
        newest = max(upload.last_modified for upload in known)
        etags = tuple(sorted({upload.etag for upload in known if upload.last_modified == newest}))
        found[keys.document_id(key)] = Deletion(batch.created_at, newest, etags)
    if batch.returned:
        found |= {keys.document_id(upload.key): Deletion(batch.created_at, None) for upload in batch.uploads}
    return found
