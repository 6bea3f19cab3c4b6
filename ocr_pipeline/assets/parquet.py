"""Fourth hop: the batch's rows as Parquet in the lake, one file per table, published together by a manifest."""

from collections.abc import Iterator

import dagster as dg

from ocr_pipeline import checks, metadata
from ocr_pipeline.flow import published
from ocr_pipeline.flow.memory import release_free_memory
from ocr_pipeline.flow.publishing import publish
from ocr_pipeline.lake import batches
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.partitions import BATCHES
from ocr_pipeline.settings import Settings


@dg.asset(
    deps=["ocr_markdown"],
    partitions_def=BATCHES,
    group_name="ocr",
    kinds={"python", "parquet"},
    check_specs=[checks.LEDGER, checks.NOTHING_FAILED],
)
def ocr_parquet(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Storage],
    settings: dg.ResourceParam[Settings],
    run_stamp: dg.ResourceParam[None],
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Documents, pages, regions and attempts of the batch: `tables/<table>/ingest_date=…/<batch>.parquet`."""
    batch = batches.read(lake, context.partition_key)
    files = publish(lake, batch)
    release_free_memory()
    # the ledger is that of the files, as everyone reads them, not that of what they were made from
    results = published.outcomes(lake, batch)
    review_url = settings.review_url
    yield dg.MaterializeResult(
        metadata={**metadata.of_parquet(results, files, review_url), **metadata.of_review(review_url, batch.name)}
    )
    yield checks.ledger(batch, results)
    yield checks.nothing_failed(results)
    del results
    release_free_memory()
