"""Retention as Dagster runs it: when it is on, what it deletes, and when it refuses."""

from __future__ import annotations

from datetime import timedelta

import dagster as dg
import pytest

from ocr_pipeline.definitions import build_defs
from ocr_pipeline.jobs import forget
from ocr_pipeline.lake import keys
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.schedules import forget_daily, index_daily
from ocr_pipeline.settings import Settings
from ocr_pipeline.warehouse import search_index
from ocr_pipeline_tests.dagster.conftest import Put, RunBatch
from ocr_pipeline_tests.pdfs import numbered

pytestmark = pytest.mark.parametrize("settings", ["local"], indirect=True)


def forgetting(settings: Settings, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    return build_defs(settings).resolve_job_def("forget").execute_in_process(instance=instance)


def said(result: dg.ExecuteInProcessResult, instance: dg.DagsterInstance) -> str:
    assert result.success
    return "\n".join(entry.user_message for entry in instance.all_logs(result.run_id))


def test_forgetting_goes_by_itself_only_where_something_is_to_be_forgotten(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_bucket = settings.model_copy(update={"lake": "s3://docs"})
    assert forget_daily(on_a_bucket).default_status is dg.DefaultScheduleStatus.STOPPED
    assert forget_daily(settings).default_status is dg.DefaultScheduleStatus.RUNNING  # leftovers of killed runs
    monkeypatch.setenv("OCR_KEEP_RECIPES_DAYS", "30")
    assert forget_daily(Settings()).default_status is dg.DefaultScheduleStatus.RUNNING
    assert forget_daily(Settings()).job_name == forget.name


def test_a_lake_that_has_published_nothing_loses_no_transcript(
    settings: Settings,
    lake: Storage,
    instance: dg.DagsterInstance,
    put: Put,
    run: RunBatch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OCR_KEEP_RECIPES_DAYS", "1")
    assert run(put({"a.pdf": numbered(2)})).success
    assert "0 transcripts of old recipes deleted" in said(forgetting(Settings(), instance), instance)
    lake.delete([info.key for prefix in (keys.MANIFESTS, keys.BATCHES) for info in lake.list(prefix)])
    assert "has published a text: no transcript is deleted" in said(forgetting(Settings(), instance), instance)
    assert len(list(lake.list(keys.TRANSCRIPTS))) == 2


def test_the_index_is_made_daily_only_of_many_pages_and_says_what_it_lacks(
    settings: Settings, instance: dg.DagsterInstance, put: Put, run: RunBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert index_daily.default_status is dg.DefaultScheduleStatus.RUNNING
    assert run(put({"a.pdf": numbered(2)})).success
    job = build_defs(settings).resolve_job_def(index_daily.job_name)
    assert "fewer than 100000 pages" in said(job.execute_in_process(instance=instance), instance)
    monkeypatch.setattr(search_index, "WORTH_FROM", 2)
    made = said(job.execute_in_process(instance=instance), instance)
    # whether the extension is there is this machine's matter; one of the two is said
    assert ("the full-text index knows 2 pages" in made) != ("extension fts is not installed" in made)


def test_tables_are_stale_in_dagster_only_where_a_limit_is_set(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def policies(settings: Settings) -> dict[str, object]:
        specs = build_defs(settings).resolve_all_asset_specs()
        return {spec.key.to_user_string(): spec.freshness_policy for spec in specs}

    assert set(policies(settings).values()) == {None}
    monkeypatch.setenv("OCR_FRESH_HOURS", "6")
    found = policies(Settings())
    assert {name for name, policy in found.items() if policy} == {"documents", "pages", "regions", "attempts"}
    assert found["pages"] == dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=6))
