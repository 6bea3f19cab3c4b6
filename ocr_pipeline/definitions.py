"""What Dagster loads: wires assets, jobs, sensors, schedules and resources, once. No implementation here."""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from ocr_pipeline.assets.pages import render_and_read
from ocr_pipeline.assets.parquet import ocr_parquet
from ocr_pipeline.assets.tables import load_tables
from ocr_pipeline.assets.uploads import uploads
from ocr_pipeline.jobs import process_batch
from ocr_pipeline.resources import default_resources
from ocr_pipeline.schedules import reconcile
from ocr_pipeline.sensors import upload_sensor
from ocr_pipeline.settings import Settings


def build_defs(settings: Settings | None = None, overrides: Mapping[str, object] | None = None) -> dg.Definitions:
    """A fresh `Definitions`. `overrides` replaces resources by name: the command shares one OCR service, tests too."""
    settings = settings or Settings()
    return dg.Definitions(
        assets=[uploads, render_and_read, ocr_parquet, load_tables],
        jobs=[process_batch],
        sensors=[upload_sensor(settings)],
        schedules=[reconcile],
        resources={**default_resources(settings), **(overrides or {})},
        # one process a run: a process a step costs 2.5 s each
        executor=dg.in_process_executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    return build_defs()
