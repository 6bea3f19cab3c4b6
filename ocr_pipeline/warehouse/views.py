"""The views people look at, as SQL text: what is there, what failed, what it cost, how fast it was.

Here belong view definitions, each with the meaning of its columns. They are made by `migrations.py`, again where their
text changed. Hours and days are UTC's. They use nothing that only one of DuckDB and MotherDuck has.
"""

# ruff: noqa: S608  the names of tables put into SQL here are ours; values are parameters

from __future__ import annotations

from ocr_pipeline.records import PageStatus

HOURS_A_MONTH = 730

BAD_PAGES = tuple(status.value for status in PageStatus if status.is_bad)
"""Statuses of pages whose text is missing. In an f-string it is the list that SQL's IN takes."""

CURRENT_DOCUMENTS = """
CREATE OR REPLACE VIEW ocr.current_documents AS
SELECT * EXCLUDE (deleted_at) FROM ocr.documents WHERE deleted_at IS NULL
"""
"""Documents whose upload is still there."""

CURRENT_PAGES = """
CREATE OR REPLACE VIEW ocr.current_pages AS
SELECT p.*, d.source_uri, d.title
FROM ocr.pages p JOIN ocr.documents d ON d.document_id = p.document_id
WHERE d.deleted_at IS NULL
"""
"""Their pages, with where they are from."""

FAILED_PAGES = f"""
CREATE OR REPLACE VIEW ocr.failed_pages AS
WITH failed AS (
    SELECT d.document_id, d.source_uri, p.page_number, p.status, p.reason, p.detail, p.backend, p.batch, p.processed_at
    FROM ocr.pages p JOIN ocr.documents d ON d.document_id = p.document_id
    WHERE d.deleted_at IS NULL AND p.status IN {BAD_PAGES}
    UNION ALL
    SELECT document_id, source_uri, NULL, status, reason, detail, NULL, batch, processed_at
    FROM ocr.documents
    WHERE deleted_at IS NULL AND status = 'rejected'
)
SELECT *, 'ocr-pipeline retry --reason ' || reason AS run_again FROM failed
"""
"""Pages without text, and documents rejected whole (`page_number` is NULL): why, and how to run them again."""

_BUSY = """
-- Requests overlap, so a backend's time is not the sum of theirs: stretches in which at least one was open, joined.
ordered AS (
    SELECT *, max(ended_at) OVER (
        PARTITION BY {keys} ORDER BY started_at, ended_at ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ) AS open_until
    FROM sent
),
gaps AS (
    SELECT *, greatest(0.0, epoch(ended_at) - epoch(greatest(started_at, coalesce(open_until, started_at)))) AS busy
    FROM ordered
)
"""

BACKEND_SPEED = f"""
CREATE OR REPLACE VIEW ocr.backend_speed AS
WITH sent AS (
    SELECT *,
        started_at + to_microseconds(CAST(round(greatest(seconds, 0) * 1e6) AS BIGINT)) AS ended_at,
        date_trunc('hour', started_at AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' AS hour
    FROM ocr.attempts
),
{_BUSY.format(keys="backend, hour")}
SELECT
    backend,
    hour,
    count(*) AS requests,
    count(*) FILTER (outcome = 'ok') AS pages,
    count(*) FILTER (outcome <> 'ok') AS faults,
    round(sum(busy), 3) AS busy_seconds,
    round(count(*) FILTER (outcome = 'ok') / nullif(sum(busy), 0), 3) AS pages_per_second,
    round(coalesce(sum(completion_tokens) FILTER (outcome = 'ok'), 0) / nullif(sum(busy), 0), 1) AS tokens_per_second,
    round(median(seconds) FILTER (outcome = 'ok'), 3) AS median_seconds,
    round(quantile_cont(seconds, 0.95) FILTER (outcome = 'ok'), 3) AS p95_seconds,
    round(quantile_cont(seconds, 0.99) FILTER (outcome = 'ok'), 3) AS p99_seconds
FROM gaps
GROUP BY backend, hour
"""
"""Each backend by the hour a request was sent: answered pages and their tokens per second in which it had something to
do (`busy_seconds`), and what one answer took."""

BACKEND_COST = f"""
CREATE OR REPLACE VIEW ocr.backend_cost AS
WITH sent AS (
    SELECT *,
        started_at + to_microseconds(CAST(round(greatest(seconds, 0) * 1e6) AS BIGINT)) AS ended_at,
        date_trunc('month', started_at AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' AS month
    FROM ocr.attempts
),
{_BUSY.format(keys="backend, month")},
used AS (
    SELECT backend, month, count(*) FILTER (outcome = 'ok') AS pages, sum(seconds) AS request_seconds,
        sum(busy) AS busy_seconds
    FROM gaps
    GROUP BY backend, month
)
SELECT
    u.backend,
    u.month,
    u.pages,
    u.request_seconds,
    u.busy_seconds,
    c.power_usd_per_month + c.hardware_usd / c.hardware_months AS usd_per_month,
    u.busy_seconds / ({HOURS_A_MONTH} * 3600) * usd_per_month AS usd_busy,
    1000 * usd_busy / nullif(u.pages, 0) AS usd_per_1000_pages_busy,
    1000 * usd_per_month / nullif(u.pages, 0) AS usd_per_1000_pages_owned
FROM used u LEFT JOIN ocr.backend_costs c ON c.backend = u.backend
"""
"""What pages cost, by backend and month, in US dollars.

`usd_per_month` = power a month + hardware price / months it is written off over (table `backend_costs`, from the
settings; NULL where no price is set). A month has `HOURS_A_MONTH`.
`usd_per_1000_pages_busy`: only the hours in which the machine worked; what a page would cost if it worked all month.
`usd_per_1000_pages_owned`: the whole month's price over the pages made in it, idle hours too.
"""

DOCUMENT_COST = """
CREATE OR REPLACE VIEW ocr.document_cost AS
SELECT
    a.document_id,
    d.source_uri,
    a.backend,
    count(*) AS requests,
    count(DISTINCT a.page_number) AS pages,
    sum(a.seconds) AS request_seconds,
    sum(a.seconds / nullif(c.request_seconds, 0) * c.usd_busy) AS usd
FROM ocr.attempts a
JOIN ocr.backend_cost c
    ON c.backend = a.backend AND c.month = date_trunc('month', a.started_at AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'
LEFT JOIN ocr.documents d ON d.document_id = a.document_id
GROUP BY a.document_id, d.source_uri, a.backend
"""
"""What a document cost, by backend: its share of the request seconds of a month times what the backend's busy time of
that month cost. All documents add up to `usd_busy`. Earlier uploads of a document are in it: they were paid for."""

AGREEMENT = """
CREATE OR REPLACE VIEW ocr.agreement AS
SELECT
    p.backend,
    CAST(p.processed_at AT TIME ZONE 'UTC' AS DATE) AS day,
    count(*) AS pages,
    round(avg(p.agreement), 4) AS mean_agreement,
    round(median(p.agreement), 4) AS median_agreement,
    round(quantile_cont(p.agreement, 0.05), 4) AS p5_agreement,
    count(*) FILTER (p.agreement < 0.8) AS pages_below_80_percent
FROM ocr.current_pages p
WHERE p.agreement IS NOT NULL AND p.status = 'ok'
GROUP BY p.backend, day
"""
"""How well OCR agrees with the PDFs' own text layers, by backend and day, over the pages that have one."""

VIEWS: tuple[str, ...] = (
    CURRENT_DOCUMENTS,
    CURRENT_PAGES,
    FAILED_PAGES,
    BACKEND_SPEED,
    BACKEND_COST,
    DOCUMENT_COST,
    AGREEMENT,
)
"""In the order in which they can be made."""
