"""Last hop: the batch's rows in the warehouse, all four tables in one transaction."""

from collections.abc import Iterator

import dagster as dg

from ocr_pipeline import checks, metadata, wiring
from ocr_pipeline.flow import loading
from ocr_pipeline.flow.memory import release_free_memory
from ocr_pipeline.lake import batches
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.partitions import BATCHES
from ocr_pipeline.settings import Settings
from ocr_pipeline.warehouse.connection import Warehouse

DESCRIPTIONS = {
    "documents": "One row per document: where it came from, how it ended, and why.",
    "pages": "One row per page: its markdown, status and reason, which backend read it, how well and how fast.",
    "regions": "One row per labelled box on a page, in fractions of the page.",
    "attempts": "One row per request sent, answered or not, with the reason that backend was chosen.",
}


@dg.multi_asset(
    name="load_tables",
    specs=[
        dg.AssetSpec(
            name,
            deps=["ocr_parquet"],
            partitions_def=BATCHES,
            group_name="warehouse",
            kinds={"duckdb", "table"},
            description=description,
        )
        for name, description in DESCRIPTIONS.items()
    ],
    check_specs=[checks.TABLES_AGREE],
)
def load_tables(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Storage],
    warehouse: dg.ResourceParam[Warehouse],
    settings: dg.ResourceParam[Settings],
    run_stamp: dg.ResourceParam[None],
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    batch = batches.read(lake, context.partition_key)
    loaded = loading.load(lake, warehouse, batch, on_r2=wiring.let_motherduck_read_r2(settings, warehouse))
    wiring.set_prices(settings, warehouse)
    release_free_memory()
    # First: a batch that is not in the tables as its files say must not count as loaded, so that it is loaded again.
    yield checks.tables_agree(loaded)
    if loaded.differences:
        raise dg.Failure(
            f"batch {batch.name}: the warehouse does not hold what its Parquet files say ({loaded.differences}): load "
            "the batch again, or run `ocr-pipeline rebuild-warehouse`"
        )
    review = metadata.of_review(settings.review_url, batch.name)
    for name in DESCRIPTIONS:
        yield dg.MaterializeResult(
            asset_key=name, metadata={**metadata.of_table(loaded, name), **(review if name == "pages" else {})}
        )
