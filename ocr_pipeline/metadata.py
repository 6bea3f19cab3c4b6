"""What people see of a batch in Dagster's UI: tables, numbers that plot over partitions, a picture, an excerpt.

Pure functions of a batch and what was made of it. Metadata is kept in Dagster's event log: each entry is bounded.
No secret and no key of a store ever stands here.
"""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from urllib.parse import quote

import dagster as dg
from PIL import Image

from ocr_pipeline.flow.loading import Loaded
from ocr_pipeline.flow.progress import StreamCounts
from ocr_pipeline.flow.published import Manifest
from ocr_pipeline.lake import keys
from ocr_pipeline.lake.storage import ObjectMissing, Storage
from ocr_pipeline.records import Batch, DocumentResult

MAX_ROWS = 200  # documents listed; a batch has at most that many by default
EXCERPT = 2000  # characters
THUMBNAIL = (360, 480)  # pixels; about 15 kB as JPEG

Metadata = Mapping[str, dg.MetadataValue | str | int | float]


def of_rendering(lake: Storage, batch: Batch, counts: StreamCounts) -> Metadata:
    found: dict[str, dg.MetadataValue | str | int | float] = {
        "documents": counts.documents,
        "rejected": counts.rejected,
        "pages": counts.pages,
        "render_seconds": round(counts.render_seconds, 2),
    }
    picture = _first_page(lake, batch)
    if picture:
        found["first_page"] = dg.MetadataValue.md(picture)
    return found


def of_reading(lake: Storage, batch: Batch, counts: StreamCounts, recipe_id: str) -> Metadata:
    failed = sum(pages for status, pages in counts.by_status.items() if status.is_bad)
    found: dict[str, dg.MetadataValue | str | int | float] = {
        "pages": counts.pages,
        "pages_asked": counts.asked,
        "seconds": round(counts.seconds, 2),
        "pages_per_second": round(counts.pages / counts.seconds, 3) if counts.seconds else 0.0,
        "failed_share": round(failed / counts.pages, 4) if counts.pages else 0.0,
        "recipe_id": recipe_id,
        "pages_by_status": dg.MetadataValue.json({str(status): pages for status, pages in counts.by_status.items()}),
    }
    excerpt = _excerpt(lake, batch)
    if excerpt:
        found["excerpt"] = dg.MetadataValue.md(excerpt)
    return found


def of_parquet(results: Sequence[DocumentResult], manifest: Manifest, review_url: str | None) -> Metadata:
    statuses = Counter(str(page.status) for result in results for page in result.pages)
    found: dict[str, dg.MetadataValue | str | int | float] = {
        "documents": dg.MetadataValue.table(
            records=[_record(result, review_url) for result in results[:MAX_ROWS]]
            or [dg.TableRecord({"document": "none"})]
        ),
        "document_count": len(results),
        "page_count": sum(len(result.pages) for result in results),
        "pages_by_status": dg.MetadataValue.json(dict(statuses)),
        "dagster/partition_row_count": sum(file.rows for file in manifest.tables.values()),
        "bytes": sum(file.bytes for file in manifest.tables.values()),
        "files": dg.MetadataValue.md(
            "\n".join(f"- `{file.key}`: {file.rows} rows" for file in manifest.tables.values())
        ),
    }
    return found


def of_review(review_url: str | None, batch: str) -> Metadata:
    """Links to the batch's pages and to those of them that failed, where the review app has an address."""
    if not review_url:
        return {}
    pages = f"{review_url}/pages?batch={quote(batch, safe='')}"
    return {
        "review": dg.MetadataValue.url(pages),
        "review_failed": dg.MetadataValue.url(f"{pages}&status=failed%2Cskipped"),
    }


def of_table(loaded: Loaded, name: str) -> Metadata:
    return {
        "dagster/partition_row_count": loaded.rows.get(name, 0),
        "superseded_documents": loaded.superseded,
        "load_seconds": round(loaded.seconds, 3),
    }


def _record(result: DocumentResult, review_url: str | None) -> dg.TableRecord:
    document = result.document
    failed = sum(page.status.is_bad for page in result.pages)
    record: dict[str, str | int | float | bool] = {
        "document": document.source_uri.rsplit("/", 1)[-1][:200],
        "status": document.status.value,
        "reason": document.reason.value if document.reason else "",
        "pages": document.page_count,
        "failed": failed,
        "detail": (document.detail or "")[:200],
    }
    if review_url:
        record["review"] = f"{review_url}/documents/{document.document_id}"
    return dg.TableRecord(record)


def _first_page(lake: Storage, batch: Batch) -> str | None:
    """The first page of the first document that opened, small, as a data URI that the UI shows."""
    for upload in batch.uploads[:20]:
        # the images are listed, not looked up: the record of a long document is megabytes
        listed = lake.list(keys.pages_of_document(batch.name, keys.document_id(upload.key)))
        image_key = next((info.key for info in listed if keys.is_page_image(info.key)), None)
        if image_key is None:
            continue
        try:
            with Image.open(io.BytesIO(lake.read(image_key))) as image:
                image.draft("RGB", THUMBNAIL)
                image.thumbnail(THUMBNAIL)
                out = io.BytesIO()
                image.convert("RGB").save(out, "JPEG", quality=60)
        except (OSError, ObjectMissing):
            continue
        number = int(PurePosixPath(image_key).stem)
        return f"![page {number}](data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()})"
    return None


def _excerpt(lake: Storage, batch: Batch) -> str | None:
    for upload in batch.uploads[:20]:
        try:
            text = lake.read(keys.markdown(upload.key))[: 4 * EXCERPT].decode("utf-8", "replace")[:EXCERPT]
        except ObjectMissing:
            continue
        # model output: shown as text, not as markup
        fence = "`" * 8
        return f"{fence}text\n{text}\n{fence}"
    return None
