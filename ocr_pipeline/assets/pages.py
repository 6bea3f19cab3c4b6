"""Second and third hop: page images and their text, made by one step as a stream.

One step, since OCR of page 1 begins before page 2 is drawn and memory must not grow with a document's length; two
assets, since either can be made again alone (`ocr_markdown` alone reads the page images that are in the lake).
"""

from collections.abc import Iterator

import dagster as dg

from ocr_pipeline import metadata
from ocr_pipeline.flow.memory import release_free_memory
from ocr_pipeline.flow.service import OcrService
from ocr_pipeline.lake import batches
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.partitions import BATCHES
from ocr_pipeline.settings import Settings

RENDERED = dg.AssetKey("rendered_pages")
MARKDOWN = dg.AssetKey("ocr_markdown")


@dg.multi_asset(
    name="render_and_read",
    specs=[
        dg.AssetSpec(
            RENDERED,
            deps=["uploads"],
            partitions_def=BATCHES,
            skippable=True,
            group_name="ocr",
            kinds={"python", "jpeg"},
            description="One JPEG per page, drawn by poppler or PDFium within limits, and one record per document.",
        ),
        dg.AssetSpec(
            MARKDOWN,
            deps=[RENDERED],
            partitions_def=BATCHES,
            skippable=True,
            group_name="ocr",
            kinds={"python", "markdown"},
            description="One transcript per page image and recipe, made only once, and one markdown file per document.",
        ),
    ],
    can_subset=True,
)
def render_and_read(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Storage],
    ocr: dg.ResourceParam[OcrService],
    settings: dg.ResourceParam[Settings],
    run_stamp: dg.ResourceParam[None],
) -> Iterator[dg.MaterializeResult[None]]:
    batch = batches.read(lake, context.partition_key)
    selected = context.selected_asset_keys
    counts = ocr.run(batch, render=RENDERED in selected, read=MARKDOWN in selected)
    release_free_memory()
    # in a fixed order: `selected_asset_keys` is a set, and yielding in its order fails some runs
    if RENDERED in selected:
        yield dg.MaterializeResult(asset_key=RENDERED, metadata=metadata.of_rendering(lake, batch, counts))
    if MARKDOWN in selected:
        yield dg.MaterializeResult(
            asset_key=MARKDOWN,
            metadata={
                **metadata.of_reading(lake, batch, counts, ocr.recipe_id),
                **metadata.of_review(settings.review_url, batch.name),
            },
        )
