"""The job that takes one batch all the way, used by sensor, schedule, backfill and command."""

from __future__ import annotations

import dagster as dg

SENSOR = "upload_sensor"

process_batch = dg.define_asset_job(
    "process_batch",
    selection=dg.AssetSelection.all() - dg.AssetSelection.assets("uploads"),
    description="From the uploads of one batch to rows in the warehouse.",
)
