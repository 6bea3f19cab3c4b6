"""Results as the flow hands them over, made from a few numbers: the same numbers always make the same rows."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from typing import Any

import pyarrow as pa

from ocr_pipeline.records import (
    Attempt,
    Document,
    DocumentResult,
    DocumentStatus,
    Page,
    PageAttempt,
    PageRegion,
    PageStatus,
    Reason,
    Region,
)
from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.rows import to_table
from ocr_pipeline.warehouse.schema import TABLES

DAY_ONE = datetime(2026, 11, 1, 8, 0, tzinfo=UTC)
RECIPE = "r1"
WORDS = ("invoice", "total", "amount", "page", "figure", "table", "the", "and", "model", "river", "paper", "engine")


def document_id(name: str) -> str:
    return sha256(name.encode()).hexdigest()[:32]


def instant(minutes: float) -> datetime:
    return DAY_ONE + timedelta(minutes=minutes)


def text(seed: str, words: int) -> str:
    random_words = random.Random(seed)
    return " ".join(random_words.choices(WORDS, k=words))


def to_tables(results: Iterable[DocumentResult]) -> dict[str, pa.Table]:
    """The rows of a batch as Arrow tables, as its files hold them; all four are there."""
    rows: dict[str, list[Any]] = {name: [] for name in TABLES}
    for one in results:
        rows["documents"].append(one.document)
        rows["pages"].extend(one.pages)
        rows["regions"].extend(one.regions)
        rows["attempts"].extend(one.attempts)
    return {name: to_table(name, records) for name, records in rows.items()}


def result(
    name: str,
    *,
    batch: str,
    uploaded: float = 0.0,
    pages: int = 2,
    regions: int = 2,
    statuses: dict[int, tuple[PageStatus, Reason]] | None = None,
    markdown: dict[int, str] | None = None,
    rejected: Reason | None = None,
    recipe_id: str = RECIPE,
    backend: str = "rtx4090",
    asked: float | None = None,
    deleted_at: datetime | None = None,
    words: int = 30,
    seconds: float = 2.0,
) -> DocumentResult:
    """One document `name` of `batch`, uploaded that many minutes after DAY_ONE and asked of the backend `asked` minutes
    after it. A page's text is made from the document, the upload, the batch and its number."""
    identity = document_id(name)
    statuses = statuses or {}
    markdown = markdown or {}
    pages = 0 if rejected else pages
    done = instant(asked if asked is not None else uploaded + 5)
    page_rows, region_rows, attempt_rows = [], [], []
    for number in range(1, pages + 1):
        status, reason = statuses.get(number, (PageStatus.OK, None))
        failed = status.is_bad
        seed = f"{name} {uploaded} {batch} {number} {recipe_id}"
        page_rows.append(
            Page(
                document_id=identity,
                page_number=number,
                status=status,
                reason=reason,
                detail="it said no" if reason else None,
                markdown="" if failed else markdown.get(number, text(seed, words)),
                engine=None if failed else "vllm",
                backend=None if failed else backend,
                model=None if failed else "deepseek-ai/DeepSeek-OCR",
                attempts=1,
                prompt_tokens=913,
                completion_tokens=None if failed else words * 2,
                seconds=seconds,
                finish_reason="stop",
                quality=None if failed else 0.9,
                agreement=None if failed else round(random.Random(seed).random(), 3),
                width=1240,
                height=1754,
                rotation=0,
                image_uri=f"pages/{batch}/{identity}/{number:04}.jpg",
                image_sha256=sha256(seed.encode()).hexdigest(),
                recipe_id=recipe_id,
                batch=batch,
                ingest_date=date(2026, 11, 1),
                processed_at=done,
            )
        )
        region_rows += [
            PageRegion(
                document_id=identity,
                page_number=number,
                region_index=index,
                region=Region("text", 0.1, round(index / 999, 6), 0.9, round((index + 1) / 999, 6), text(seed, 8)),
            )
            for index in range(0 if failed else regions)
        ]
        attempt_rows.append(
            PageAttempt(
                recipe_id=recipe_id,
                attempt=Attempt(
                    document_id=identity,
                    page_number=number,
                    attempt=1,
                    backend=backend,
                    model="deepseek-ai/DeepSeek-OCR",
                    choice="default",
                    started_at=done + timedelta(seconds=number),
                    seconds=seconds,
                    outcome=str(reason) if reason else "ok",
                    finish_reason="stop",
                    prompt_tokens=913,
                    completion_tokens=words * 2,
                    score=0.9,
                    text="raw",
                ),
            )
        )
    bad = sum(page.status.is_bad for page in page_rows)
    status = DocumentStatus.OK if not bad else DocumentStatus.FAILED if bad == pages else DocumentStatus.PARTIAL
    return DocumentResult(
        document=Document(
            document_id=identity,
            source_uri=f"s3://docs.example/inbox/{name}",
            etag=f"etag-{name}-{uploaded}",
            uploaded_at=instant(uploaded),
            size_bytes=1000,
            content_sha256=None if rejected else sha256(f"{name} {uploaded}".encode()).hexdigest(),
            page_count=pages,
            title=None if rejected else f"Title of {name}",
            status=DocumentStatus.REJECTED if rejected else status,
            reason=rejected,
            detail="not to be opened" if rejected else None,
            batch=batch,
            ingest_date=date(2026, 11, 1),
            markdown_uri=None if rejected else f"markdown/{name}.md",
            recipe_id=recipe_id,
            deleted_at=deleted_at,
            processed_at=done,
        ),
        pages=tuple(page_rows),
        regions=tuple(region_rows),
        attempts=tuple(attempt_rows),
    )


def contents(warehouse: Warehouse) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table that loads write, in one order."""
    with warehouse.read() as connection:
        return {
            table: connection.execute(f"SELECT * FROM ocr.{table} ORDER BY ALL").fetchall()
            for table in (*TABLES, "deletions")
        }
