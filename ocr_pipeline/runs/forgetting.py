"""Forgetting what Dagster keeps of some batches: their runs, with the events and logs in which documents stand.

The metadata of a batch's events shows names, a page's picture and an excerpt of the text. Dagster can delete a run with
its events and cannot take one document out of them, so the runs of the whole batch go. In their place stands one bare
event an asset, so that the batch still counts as loaded and nobody runs it again: it would cost no OCR and bring
nothing back, but the UI would show it as never made.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Collection
from pathlib import Path

import dagster as dg
from dagster import AssetRecordsFilter, RunsFilter

from ocr_pipeline.runs.history import PARTITION_TAG

PURGED = "purged"
"""The one entry of the bare event's metadata."""

_MOST = 1_000  # events of one asset and batch that are looked at, newest first


def forget_batches(instance: dg.DagsterInstance, names: Collection[str]) -> int:
    """Deletes every run of the batches, with events and logs; returns how many. No run of them may be at work."""
    runs = runs_of(instance, names)
    # The bare events come first: if this process dies half-way, the batch must not look as if it was never loaded.
    # Besides, Dagster keeps a separate copy of an asset's last event, which only a newer event replaces.
    for asset, name in sorted(_made(instance, names)):
        instance.report_runless_asset_event(
            dg.AssetMaterialization(
                dg.AssetKey.from_user_string(asset),
                partition=name,
                metadata={PURGED: "a document of this batch was purged, and with it the batch's runs"},
            )
        )
    for run_id in runs:
        instance.compute_log_manager.delete_logs(prefix=[run_id])
        instance.delete_run(run_id)
    _reclaim_space(instance, runs)
    return len(runs)


def runs_of(instance: dg.DagsterInstance, names: Collection[str]) -> set[str]:
    """Ids of the runs that worked on the batches, by their tags and by the events they left."""
    found: set[str] = set()
    for name in names:
        found.update(run.run_id for run in instance.get_runs(RunsFilter(tags={PARTITION_TAG: name})))
        for asset in instance.get_asset_keys():
            found.update(record.run_id for record in _events(instance, asset, name))
    return found - {""}  # events without a run: the sensor's, which only count, and ours


def _made(instance: dg.DagsterInstance, names: Collection[str]) -> set[tuple[str, str]]:
    """(asset, batch) of what runs have materialised."""
    return {
        (asset.to_user_string(), name)
        for asset in instance.get_asset_keys()
        for name in names
        if any(record.run_id for record in _events(instance, asset, name))
    }


def _events(instance: dg.DagsterInstance, asset: dg.AssetKey, name: str) -> list[dg.EventLogRecord]:
    wanted = AssetRecordsFilter(asset_key=asset, asset_partitions=[name])
    return list(instance.fetch_materializations(wanted, limit=_MOST).records)


def _reclaim_space(instance: dg.DagsterInstance, runs: Collection[str]) -> None:
    """SQLite keeps the bytes of deleted events in free parts of its files: each run's file goes, the common one is
    written anew. On Postgres its own vacuum does that."""
    place = getattr(instance.event_log_storage, "path_for_shard", None)
    if place is None:
        return
    for run_id in runs:
        for ending in ("", "-wal", "-shm"):
            Path(place(run_id) + ending).unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(place("index"), timeout=30)) as connection:
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
