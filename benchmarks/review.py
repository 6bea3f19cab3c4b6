"""How long the review app takes to answer over a large warehouse: `python benchmarks/review.py --documents 100000`.

The rows are made by SQL in a DuckDB file (each page 230 words from a vocabulary of 5,000, some 1.7 KB of text, a
hundredth of the documents with a failed page), the app is asked over a socket on 127.0.0.1, a new request each time.
Prints seconds of each screen (best, median, worst; CPU of app and client together, the best), and JSON with the same.
The first search or list after a second of quiet opens the file again: "cold". `--keep FOLDER` keeps the file for a
second look; a run that finds it there does not make it again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import httpx
import uvicorn

from ocr_pipeline.lake.opening import open_storage
from ocr_pipeline.review.app import build_app
from ocr_pipeline.warehouse.connection import Warehouse

WORDS_A_PAGE = 230
VOCABULARY = """
    CREATE TEMP TABLE vocabulary AS
    SELECT list(word ORDER BY n) AS words FROM (
        SELECT n, CASE WHEN n = 0 THEN 'invoice' WHEN n = 1 THEN 'total' WHEN n = 4998 THEN 'zirconium'
            ELSE substr(translate(md5(n::VARCHAR), '0123456789', 'ghijklmnop'), 1, 3 + (n % 8)::INTEGER) END AS word
        FROM range(5000) t(n)
    )
"""
# Words are drawn with a cube, so that the first of the vocabulary are common (the first 2 on nearly every page), the
# last rare (on 1 or 2 pages of 100), as in a language.
DOCUMENTS = """
    INSERT INTO ocr.documents BY NAME
    SELECT substr(sha256(i::VARCHAR), 1, 24) AS document_id,
        '{lake}/inbox/folder-' || i % 200 || '/file-' || i || '.pdf' AS source_uri, 'e' || i AS etag,
        TIMESTAMPTZ '2026-01-01 00:00:00+00' + to_minutes(i * 3) AS uploaded_at,
        (hash(i) % 5000000)::BIGINT AS size_bytes, {pages} AS page_count, 'Report number ' || i AS title,
        CASE WHEN i % 100 = 0 THEN 'partial' ELSE 'ok' END AS status,
        CASE WHEN i % 100 = 0 THEN 'repetition' END AS reason,
        'batch-' || i // 200 AS batch, DATE '2026-01-01' AS ingest_date, 'r1' AS recipe_id,
        TIMESTAMPTZ '2026-01-01 00:01:00+00' + to_minutes(i * 3) AS processed_at
    FROM range({documents}) t(i)
"""
PAGES = """
    INSERT INTO ocr.pages BY NAME
    SELECT substr(sha256(i::VARCHAR), 1, 24) AS document_id, p::INTEGER AS page_number,
        CASE WHEN i % 100 = 0 AND p = 1 THEN 'failed' ELSE 'ok' END AS status,
        CASE WHEN i % 100 = 0 AND p = 1 THEN 'repetition' END AS reason,
        (
            SELECT string_agg(
                words[1 + (5000 * pow((hash(i, p, k) % 100000) / 100000.0, 3))::INTEGER], ' '
            ) FROM vocabulary, range({words}) r(k)
        ) AS markdown,
        'vllm' AS engine, CASE WHEN hash(i) % 3 = 0 THEN 'dgx-spark' ELSE 'rtx4090' END AS backend, 'm' AS model,
        1 AS attempts, 913 AS prompt_tokens, 700 AS completion_tokens, 1 + (hash(i, p) % 3000) / 1000.0 AS "seconds",
        'stop' AS finish_reason, 0.8 + (hash(p, i) % 200) / 1000.0 AS quality,
        0.7 + (hash(p, i) % 300) / 1000.0 AS agreement, 1240 AS width, 1754 AS height, 0 AS rotation,
        sha256(i || '-' || p) AS image_sha256, 'r1' AS recipe_id, 'batch-' || i // 200 AS batch,
        DATE '2026-01-01' AS ingest_date, TIMESTAMPTZ '2026-01-01 00:00:30+00' + to_minutes(i * 3) AS processed_at
    FROM range({documents}) t(i), range(1, {pages} + 1) s(p)
"""
ATTEMPTS = """
    INSERT INTO ocr.attempts BY NAME
    SELECT document_id, page_number, recipe_id, 1 AS attempt, backend, model, 'shortest wait' AS choice,
        processed_at AS started_at, "seconds", prompt_tokens, completion_tokens, finish_reason,
        coalesce(reason, 'ok') AS outcome
    FROM ocr.pages
"""
SCREENS = {
    "list, first page, cold": "/documents",
    "list, first page": "/documents",
    "list, by name, 1,000 pages on": "/documents?sort=source_uri&order=asc&after={place}",
    "list, 100 screens on and back": "/documents?sort=source_uri&order=asc&before={place}",
    "list, worst quality first": "/documents?sort=quality",
    "list, longest time first": "/documents?sort=seconds",
    "list, by backend": "/documents?sort=backend",
    "list, most failed first": "/documents?sort=bad_pages",
    "list, a backend, low quality": "/documents?backend=dgx-spark&quality_below=0.85",
    "list, a part of a name": "/documents?name=file-4711",
    "list, a reason": "/documents?reason=repetition",
    "pages, worst agreement first": "/pages?sort=agreement",
    "pages, failed": "/pages?status=failed",
    "search, a rare word, cold": "/search?q=zirconium",
    "search, a rare word": "/search?q=zirconium",
    "search, a common word": "/search?q=invoice",
    "search, two common words": "/search?q=invoice+total",
    "search, six common words": "/search?q=invoice+total+a+b+c+d",
    "search, no page has it": "/search?q=unheard-of",
    "one page": "/documents/{document}/pages/1",
    "overview": "/overview",
}


def fill(warehouse: Warehouse, lake: str, documents: int, pages: int, words: int) -> None:
    def work(connection: duckdb.DuckDBPyConnection) -> None:
        connection.execute(VOCABULARY)
        connection.execute(DOCUMENTS.format(lake=lake, documents=documents, pages=pages))
        connection.execute(PAGES.format(documents=documents, pages=pages, words=words))
        connection.execute(ATTEMPTS)

    warehouse.run(work)
    warehouse.checkpoint()


@contextmanager
def served(folder: Path, warehouse: Warehouse) -> Iterator[str]:
    config = uvicorn.Config(build_app(open_storage(str(folder / "lake")), warehouse), port=0, log_level="warning")
    listening = config.bind_socket()
    listening.listen()
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--pages", type=int, default=1, help="a document")
    parser.add_argument("--words", type=int, default=WORDS_A_PAGE, help="a page")
    parser.add_argument("--times", type=int, default=5, help="each screen is asked")
    parser.add_argument("--keep", type=Path, help="folder of the warehouse; made anew only where it has none")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ocr_pipeline-") as scratch:
        folder = arguments.keep or Path(scratch)
        warehouse = Warehouse(str(folder / "warehouse.duckdb"))
        if not (folder / "warehouse.duckdb").exists():
            fill(warehouse, str(folder / "lake"), arguments.documents, arguments.pages, arguments.words)
        with warehouse.read() as connection:
            counted = connection.execute("SELECT count(*), sum(length(markdown)) FROM ocr.pages").fetchone()
            place = connection.execute(
                "SELECT source_uri, document_id FROM ocr.documents ORDER BY ALL LIMIT 1 OFFSET ?",
                [min(50_000, arguments.documents - 1)],
            ).fetchone()
        assert counted
        assert place
        figures = {}
        with served(folder, warehouse) as url, httpx.Client(base_url=url, timeout=120) as client:
            client.get("/static/review.css")
            for name, path in SCREENS.items():
                took, cpu = [], []
                address = path.format(place=json.dumps(list(place)), document=place[1])
                for _ in range(arguments.times):
                    if name.endswith("cold"):
                        time.sleep(1.5)  # longer than the app keeps the file open
                    started, used = time.perf_counter(), time.process_time()
                    answer = client.get(address)
                    took.append(time.perf_counter() - started)
                    cpu.append(time.process_time() - used)
                    answer.raise_for_status()
                figures[name] = {
                    "best": round(min(took), 3),
                    "median": round(statistics.median(took), 3),
                    "worst": round(max(took), 3),
                    "cpu": round(min(cpu), 3),
                    "kilobytes": len(answer.content) // 1000,
                }
    print(f"{arguments.documents:,} documents, {counted[0]:,} pages, {counted[1] / 1e6:,.0f} MB of text")
    print(f"{'screen':32}{'best':>8}{'median':>8}{'worst':>8}{'CPU':>8}  seconds")
    for name, figure in figures.items():
        print(f"{name:32}{figure['best']:8.3f}{figure['median']:8.3f}{figure['worst']:8.3f}{figure['cpu']:8.3f}")
    result = {"documents": arguments.documents, "pages": counted[0], "text_bytes": counted[1], "seconds": figures}
    print(json.dumps(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
