"""What Dagster loads: wires assets, jobs, sensors, schedules and resources, once. No implementation here."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import dagster as dg

from ocr_pipeline.alerts import alert_on_failure
from ocr_pipeline.assets.pages import render_and_read
from ocr_pipeline.assets.parquet import ocr_parquet
from ocr_pipeline.assets.tables import load_tables
from ocr_pipeline.assets.uploads import uploads
from ocr_pipeline.jobs import forget, index_pages, process_batch, retry_failed
from ocr_pipeline.resources import default_resources
from ocr_pipeline.schedules import forget_daily, index_daily, reconcile
from ocr_pipeline.sensors import upload_sensor
from ocr_pipeline.settings import Settings


def build_defs(settings: Settings | None = None, overrides: Mapping[str, object] | None = None) -> dg.Definitions:
    """A fresh `Definitions`. `overrides` replaces resources by name: the command shares one OCR service, tests too."""
    settings = settings or Settings()
    return dg.Definitions(
        assets=[uploads, render_and_read, ocr_parquet, _with_freshness(load_tables, settings)],
        jobs=[process_batch, retry_failed, forget, index_pages],
        sensors=[upload_sensor(settings), *([alert] if (alert := alert_on_failure(settings)) else [])],
        schedules=[reconcile(settings), index_daily, forget_daily(settings)],
        resources={**default_resources(settings), **(overrides or {})},
        # one process per run: one per step costs 2.5 s each
        executor=dg.in_process_executor,
    )


def _with_freshness(tables: dg.AssetsDefinition, settings: Settings) -> dg.AssetsDefinition:
    if settings.fresh_hours is None:
        return tables
    policy = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=settings.fresh_hours))
    return tables.map_asset_specs(lambda spec: spec.replace_attributes(freshness_policy=policy))


@dg.definitions
def defs() -> dg.Definitions:
    return build_defs()
