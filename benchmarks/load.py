"""How long loads take, against the plainest correct way, in one run: `python benchmarks/load.py --pages 1000000`.

Both ways get the same Parquet files (written by this program, made-up text of about 1.3 KB a page) and the same keyed
tables in a DuckDB file. The plain way connects, runs `INSERT … SELECT FROM read_parquet`, closes, for each batch, which
is correct only because no document comes twice here. Ours is `load_batch`: lock, version check, newest-upload rule,
one transaction. The two take turns, a few batches each, so that a machine that gets slower slows both.
Prints seconds of each, at each tenth of the way, and their ratio; then what one load, one search and one list cost.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import duckdb

from ocr_pipeline.records import (
    Attempt,
    Document,
    DocumentResult,
    DocumentStatus,
    Page,
    PageAttempt,
    PageRegion,
    PageStatus,
    Region,
)
from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.document_list import DocumentFilter, DocumentListing, documents
from ocr_pipeline.warehouse.load import load_batch
from ocr_pipeline.warehouse.parquet import to_bytes
from ocr_pipeline.warehouse.schema import TABLES
from ocr_pipeline.warehouse.search import search
from ocr_pipeline.warehouse.sql import create_table
from ocr_pipeline_tests.warehouse.sample_rows import to_tables

START = datetime(2026, 1, 1, tzinfo=UTC)
PAGES_A_DOCUMENT = 10
VOCABULARY = ["".join(random.Random(n).choices("aeinorstlu", k=3 + n % 8)) for n in range(5000)]


def document(number: int, batch: str, regions: int) -> DocumentResult:
    choose = random.Random(number)
    name = f"inbox/{number}.pdf"
    identity = sha256(name.encode()).hexdigest()[:32]
    uploaded = START + timedelta(seconds=number)
    pages, boxes, attempts = [], [], []
    for page in range(1, PAGES_A_DOCUMENT + 1):
        text = " ".join(choose.choices(VOCABULARY, k=170))
        pages.append(
            Page(
                document_id=identity,
                page_number=page,
                status=PageStatus.OK,
                reason=None,
                detail=None,
                markdown=text,
                engine="vllm",
                backend="rtx4090",
                model="deepseek-ai/DeepSeek-OCR",
                attempts=1,
                prompt_tokens=913,
                completion_tokens=400,
                seconds=choose.random() * 4,
                finish_reason="stop",
                quality=0.9,
                agreement=None,
                width=1240,
                height=1754,
                rotation=0,
                image_uri=f"pages/{batch}/{identity}/{page:04}.jpg",
                image_sha256=sha256(text.encode()).hexdigest(),
                recipe_id="0123456789abcdef",
                batch=batch,
                ingest_date=date(2026, 1, 1),
                processed_at=uploaded,
            )
        )
        for index in range(regions):
            region = Region("text", 0.1, index / 999, 0.9, (index + 1) / 999, text[index * 50 : index * 50 + 100])
            boxes.append(PageRegion(document_id=identity, page_number=page, region_index=index, region=region))
        attempt = Attempt(
            document_id=identity,
            page_number=page,
            attempt=1,
            backend="rtx4090",
            model="deepseek-ai/DeepSeek-OCR",
            choice="default",
            started_at=uploaded,
            seconds=2.0,
            outcome="ok",
            finish_reason="stop",
            prompt_tokens=913,
            completion_tokens=400,
        )
        attempts.append(PageAttempt(recipe_id="0123456789abcdef", attempt=attempt))
    row = Document(
        document_id=identity,
        source_uri=f"s3://docs.example/{name}",
        etag=identity,
        uploaded_at=uploaded,
        size_bytes=1000,
        content_sha256=identity * 2,
        page_count=PAGES_A_DOCUMENT,
        title=f"Document {number}",
        status=DocumentStatus.OK,
        reason=None,
        detail=None,
        batch=batch,
        ingest_date=date(2026, 1, 1),
        markdown_uri=f"markdown/{number}.pdf.md",
        recipe_id="0123456789abcdef",
        deleted_at=None,
        processed_at=uploaded,
    )
    return DocumentResult(document=row, pages=tuple(pages), regions=tuple(boxes), attempts=tuple(attempts))


def write_batch(folder: Path, number: int, documents_a_batch: int, regions: int) -> dict[str, Path]:
    batch = f"batch-{number:05}"
    first = number * documents_a_batch
    tables = to_tables(document(n, batch, regions) for n in range(first, first + documents_a_batch))
    paths = {name: folder / name / "ingest_date=2026-01-01" / f"{batch}.parquet" for name in TABLES}
    for name, table in tables.items():
        paths[name].parent.mkdir(parents=True, exist_ok=True)
        paths[name].write_bytes(to_bytes(name, table))
    return paths


def plain_load(path: Path, files: dict[str, Path]) -> None:
    with contextlib.closing(duckdb.connect(str(path))) as connection:
        connection.begin()
        for name in TABLES:
            hive = "hive_partitioning = true" if name in ("documents", "pages") else "hive_partitioning = false"
            connection.execute(
                f"INSERT INTO ocr.{name} BY NAME SELECT * FROM read_parquet(?, {hive})", [str(files[name])]
            )
        connection.commit()


def our_load(warehouse: Warehouse, files: dict[str, Path], batch: str) -> None:
    load_batch(warehouse, batch, {name: str(files[name]) for name in TABLES})


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def listed(warehouse: Warehouse, name: str) -> DocumentListing:
    with warehouse.read() as connection:
        return documents(connection, DocumentFilter(name=name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=100_000)
    parser.add_argument("--batches", type=int, default=None, help="default: one for 2,000 pages")
    parser.add_argument("--regions", type=int, default=2, help="boxes a page")
    parser.add_argument("--minutes", type=float, default=120, help="stop after this time and report what was done")
    parser.add_argument("--folder", type=Path, default=None, help="scratch folder; default: a temporary one")
    arguments = parser.parse_args()
    batches = arguments.batches or max(1, arguments.pages // 2000)
    documents_a_batch = max(1, arguments.pages // PAGES_A_DOCUMENT // batches)
    deadline = time.monotonic() + 60 * arguments.minutes

    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        plain_path, ours = folder / "plain.duckdb", Warehouse(str(folder / "ours.duckdb"))
        with contextlib.closing(duckdb.connect(str(plain_path))) as connection:
            connection.execute("CREATE SCHEMA ocr")
            for table in TABLES:
                connection.execute(create_table(table, f"ocr.{table}"))
        plain = mine = last_plain = last_mine = 0.0
        done = 0
        for number in range(batches):
            files = write_batch(folder, number, documents_a_batch, arguments.regions)
            if number % 2:
                last_plain = timed(lambda files=files: plain_load(plain_path, files))
            last_mine = timed(lambda files=files, number=number: our_load(ours, files, f"batch-{number:05}"))
            if not number % 2:
                last_plain = timed(lambda files=files: plain_load(plain_path, files))
            plain, mine, done = plain + last_plain, mine + last_mine, number + 1
            for path in files.values():
                path.unlink()
            if done % max(1, batches // 10) == 0:
                print(
                    f"{done:5} batches  plain {plain:8.1f} s  ours {mine:8.1f} s  ratio {mine / plain:.2f}", flush=True
                )
            if time.monotonic() > deadline:
                print(f"stopped after {arguments.minutes} minutes")
                break
        checkpoint = timed(ours.checkpoint)
        with ours.read() as connection, contextlib.closing(duckdb.connect(str(plain_path))) as other:
            for table in TABLES:
                count = f"SELECT count(*) FROM ocr.{table}"
                assert connection.execute(count).fetchone() == other.execute(count).fetchone()
        print(
            json.dumps(
                {
                    "pages": done * documents_a_batch * PAGES_A_DOCUMENT,
                    "batches": done,
                    "plain_seconds": round(plain, 1),
                    "our_seconds": round(mine + checkpoint, 1),
                    "of_which_last_checkpoint": round(checkpoint, 1),
                    "ratio": round((mine + checkpoint) / plain, 2),
                    "last_load_plain": round(last_plain, 2),
                    "last_load_ours": round(last_mine, 2),
                    "search_seconds": round(timed(lambda: search(ours, "einors")), 2),
                    "list_seconds": round(timed(lambda: listed(ours, "77")), 2),
                    "megabytes": ours.path.stat().st_size // 1_000_000 if ours.path else None,
                }
            )
        )


if __name__ == "__main__":
    main()
