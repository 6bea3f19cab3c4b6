"""The start of the graph: what people put into the inbox. External: the pipeline never changes it."""

import dagster as dg

from ocr_pipeline.partitions import BATCHES

uploads = dg.AssetSpec(
    "uploads",
    partitions_def=BATCHES,
    group_name="ocr",
    kinds={"pdf"},
    description="PDFs in the inbox. The sensor cuts what is new into frozen batch lists; a batch is a partition.",
)
