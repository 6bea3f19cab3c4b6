"""Asset checks: the ledger in the UI. Pure functions of a batch and its rows; the steps yield what they return."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import dagster as dg

from ocr_pipeline.flow.loading import Loaded
from ocr_pipeline.lake import keys
from ocr_pipeline.records import Batch, DocumentResult, DocumentStatus

LEDGER = dg.AssetCheckSpec(
    "ledger_balances",
    asset="ocr_parquet",
    # a failed check that does not block leaves the run successful
    blocking=True,
    description="Each upload of the batch is a document; each page of each document that opened is exactly one row.",
)
NOTHING_FAILED = dg.AssetCheckSpec(
    "nothing_failed",
    asset="ocr_parquet",
    description="Every page has its text and no document was rejected. Only a warning: the rest of the batch is there.",
)
TABLES_AGREE = dg.AssetCheckSpec(
    "parquet_and_tables_agree",
    asset="documents",
    blocking=True,
    description="The warehouse holds what the batch's Parquet files say, apart from documents with a newer upload.",
)


def imbalances(batch: Batch, results: Sequence[DocumentResult]) -> list[str]:
    """What is wrong with the ledger, one line each; empty when it balances."""
    found = []
    listed = Counter(keys.document_id(upload.key) for upload in batch.uploads)
    documents = Counter(result.document.document_id for result in results)
    if set(listed) != set(documents):
        missing, surplus = set(listed) - set(documents), set(documents) - set(listed)
        found.append(f"{len(missing)} uploads have no document, {len(surplus)} documents have no upload")
    for result in results:
        document = result.document
        expected = 0 if document.status is DocumentStatus.REJECTED else document.page_count
        numbers = sorted(page.page_number for page in result.pages)
        if numbers != list(range(1, expected + 1)):
            # by its id, which `ocr-pipeline status` takes: Dagster keeps checks' records when a purge deletes the run
            found.append(f"document {document.document_id}: {expected} pages in the PDF, {len(numbers)} rows")
    return found


def ledger(batch: Batch, results: Sequence[DocumentResult]) -> dg.AssetCheckResult:
    found = imbalances(batch, results)
    return dg.AssetCheckResult(
        check_name=LEDGER.name,
        asset_key=LEDGER.asset_key,
        passed=not found,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={
            "documents": len(results),
            "pages": sum(len(result.pages) for result in results),
            "imbalances": dg.MetadataValue.md("\n".join(f"- {line}" for line in found[:50]) or "none"),
        },
    )


def nothing_failed(results: Sequence[DocumentResult]) -> dg.AssetCheckResult:
    rejected = [r for r in results if r.document.status is DocumentStatus.REJECTED]
    bad = Counter(str(page.reason or page.status) for result in results for page in result.pages if page.status.is_bad)
    return dg.AssetCheckResult(
        check_name=NOTHING_FAILED.name,
        asset_key=NOTHING_FAILED.asset_key,
        passed=not rejected and not bad,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "rejected_documents": len(rejected),
            "failed_pages": sum(bad.values()),
            "reasons": dict(bad + Counter(str(r.document.reason) for r in rejected)),
        },
    )


def tables_agree(loaded: Loaded) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=TABLES_AGREE.name,
        asset_key=TABLES_AGREE.asset_key,
        passed=not loaded.differences,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={"differences": loaded.differences or "none", "superseded_documents": loaded.superseded},
    )
