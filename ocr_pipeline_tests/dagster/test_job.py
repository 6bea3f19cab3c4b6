"""One batch through Dagster: assets, checks, metadata, and the rows at the end."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from ocr_pipeline import samples, wiring
from ocr_pipeline.definitions import build_defs
from ocr_pipeline.resources import WarehouseResource
from ocr_pipeline.settings import Settings
from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline_tests.dagster.conftest import Put, RunBatch
from ocr_pipeline_tests.pdfs import numbered
from ocr_pipeline_tests.simulator.fleet import Fleet

ASSETS = ["rendered_pages", "ocr_markdown", "ocr_parquet", "documents", "pages", "regions", "attempts"]


def rows(settings: Settings, query: str) -> list[tuple[object, ...]]:
    with wiring.warehouse(settings).read() as connection:
        return connection.execute(query).fetchall()


def test_the_samples_end_as_rows_with_their_reasons(settings: Settings, put: Put, run: RunBatch) -> None:
    batch = put({path.name: path.read_bytes() for path in samples.paths()})
    assert run(batch).success
    found = dict(
        rows(settings, "SELECT parse_filename(source_uri), status || ' ' || coalesce(reason, '') FROM ocr.documents")
    )
    assert found["encrypted.pdf"] == "rejected encrypted"
    assert found["damaged.pdf"] == "rejected damaged"
    assert found["annual-report.pdf"] == "ok "
    assert len(found) == len(samples.paths())
    pages = dict(rows(settings, "SELECT document_id, count(*) FROM ocr.pages GROUP BY ALL"))
    for document_id, count in rows(settings, "SELECT document_id, page_count FROM ocr.documents"):
        assert pages.get(document_id, 0) == count


def test_every_asset_is_materialised_with_checks_and_metadata_for_people(put: Put, run: RunBatch) -> None:
    result = run(put({"a.pdf": numbered(3), "bad.pdf": b"nothing"}))
    made = {
        event.asset_key.to_user_string(): event
        for event in result.get_asset_materialization_events()
        if event.asset_key
    }
    assert sorted(made) == sorted(ASSETS)
    checks = {check.check_name: check.passed for check in result.get_asset_check_evaluations()}
    assert checks == {"ledger_balances": True, "nothing_failed": False, "parquet_and_tables_agree": True}
    reading = made["ocr_markdown"].step_materialization_data.materialization.metadata
    assert reading["pages"].value == 3
    assert reading["failed_share"].value == 0
    assert "This is page 1" in str(reading["excerpt"].value)
    picture = made["rendered_pages"].step_materialization_data.materialization.metadata["first_page"].value
    assert str(picture).startswith("![page 1](data:image/jpeg;base64,")
    assert len(str(picture)) < 60_000  # it is kept in Dagster's event log
    table = made["ocr_parquet"].step_materialization_data.materialization.metadata["documents"].value
    assert {(r.data["document"], r.data["status"], r.data["reason"]) for r in table.records} == {
        ("a.pdf", "ok", ""),
        ("bad.pdf", "rejected", "not_a_pdf"),
    }


def test_with_the_address_of_the_review_app_a_batch_links_to_its_pages_and_to_those_that_failed(
    settings: Settings, put: Put, instance: dg.DagsterInstance
) -> None:
    with_review = settings.model_copy(update={"review_url": "https://review.example"})
    job = build_defs(with_review).resolve_job_def("process_batch")
    batch = put({"a.pdf": numbered(1)})
    found = {
        event.asset_key.to_user_string(): event.step_materialization_data.materialization.metadata
        for event in job.execute_in_process(
            instance=instance, partition_key=batch.name
        ).get_asset_materialization_events()
        if event.asset_key
    }
    for asset in ("ocr_markdown", "ocr_parquet", "pages"):
        assert found[asset]["review"] == dg.MetadataValue.url(f"https://review.example/pages?batch={batch.name}")
        failed = f"https://review.example/pages?batch={batch.name}&status=failed%2Cskipped"
        assert found[asset]["review_failed"] == dg.MetadataValue.url(failed)
    (record,) = found["ocr_parquet"]["documents"].value.records
    assert str(record.data["review"]).startswith("https://review.example/documents/")
    assert not [name for name in found["attempts"] if name.startswith("review")]


def test_a_second_run_changes_no_row(settings: Settings, put: Put, run: RunBatch) -> None:
    batch = put({"a.pdf": numbered(3), "b.pdf": b"%PDF-1.4 broken"})
    tables = ["documents", "pages", "regions", "attempts"]
    assert run(batch).success
    before = [rows(settings, f"FROM ocr.{table} ORDER BY ALL") for table in tables]
    assert run(batch).success
    assert [rows(settings, f"FROM ocr.{table} ORDER BY ALL") for table in tables] == before


def test_each_hop_can_be_asked_for_alone(put: Put, run: RunBatch) -> None:
    batch = put({"a.pdf": numbered(2)})
    for asset in ("rendered_pages", "ocr_markdown", "ocr_parquet"):
        result = run(batch, asset)
        assert result.success, asset
        made = [
            event.asset_key.to_user_string() for event in result.get_asset_materialization_events() if event.asset_key
        ]
        assert made == [asset]


def test_a_hop_whose_input_was_never_made_fails_and_says_which(put: Put, run: RunBatch) -> None:
    result = run(put({"a.pdf": numbered(1)}), "ocr_parquet")
    assert not result.success
    errors = [str(event.step_failure_data.error) for event in result.all_events if event.is_step_failure]
    assert "rendered_pages has no record" in errors[0]


@pytest.mark.parametrize("documents", [1, 40])
def test_a_batch_makes_few_events_however_many_documents_it_has(put: Put, run: RunBatch, documents: int) -> None:
    result = run(put({f"{number}.pdf": numbered(1, str(number)) for number in range(documents)}))
    assert result.success
    assert len(result.all_events) <= 60


def test_a_run_stamps_itself_with_its_process(put: Put, run: RunBatch, instance: dg.DagsterInstance) -> None:
    result = run(put({"a.pdf": numbered(1)}))
    tags = instance.get_run_by_id(result.run_id).tags  # type: ignore[union-attr]
    assert {"ocr_pipeline/host", "ocr_pipeline/pid", "ocr_pipeline/process_started"} <= set(tags)


def test_definitions_load_with_every_resource_they_need(settings: Settings) -> None:
    dg.Definitions.validate_loadable(build_defs(settings))


@pytest.mark.parametrize("settings", ["local"], indirect=True)
def test_a_run_reads_its_pages_on_the_servers_of_the_backends_file(
    settings: Settings, put: Put, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # once as Dagster itself makes the resource, not as the command does
    with Fleet(only={"profile": "rtx-4090", "seconds_per_page": 0.01, "mean_tokens": 40}) as fleet:
        (tmp_path / "backends.toml").write_text(fleet.backends_toml())
        monkeypatch.setenv("OCR_BACKENDS", str(tmp_path / "backends.toml"))
        job = build_defs(Settings()).resolve_job_def("process_batch")
        batch = put({"a.pdf": numbered(2)})
        assert job.execute_in_process(partition_key=batch.name, instance=instance).success
    assert rows(Settings(), "SELECT DISTINCT engine, backend FROM ocr.pages") == [("vllm", "only")]


class LosesRows(Warehouse):
    """A warehouse from which somebody takes rows between a load and the look at it."""

    @contextlib.contextmanager
    def read(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with self.exclusive() as connection:
            connection.execute("DELETE FROM ocr.pages WHERE page_number = 2")
        with super().read() as connection:
            yield connection


def test_a_batch_that_is_not_in_the_tables_as_its_files_say_fails_and_does_not_count_as_loaded(
    settings: Settings, put: Put, instance: dg.DagsterInstance
) -> None:
    batch = put({"a.pdf": numbered(2)})
    job = build_defs(settings, {"warehouse": LosesRows(settings.warehouse)}).resolve_job_def("process_batch")
    result = job.execute_in_process(instance=instance, partition_key=batch.name, raise_on_error=False)
    assert not result.success
    check = {check.check_name: check for check in result.get_asset_check_evaluations()}["parquet_and_tables_agree"]
    assert not check.passed
    assert check.metadata["differences"].value == "pages: 1 rows differ"
    made = {event.asset_key.to_user_string() for event in result.get_asset_materialization_events() if event.asset_key}
    assert made == {"rendered_pages", "ocr_markdown", "ocr_parquet"}


def test_the_warehouse_is_opened_by_dagster_duckdb_and_closed_whatever_happens(tmp_path: Path) -> None:
    resource = WarehouseResource(
        target=str(tmp_path / "warehouse.duckdb"), settings=dg.ResourceDefinition.hardcoded_resource(Settings())
    )
    with dg.build_resources({"warehouse": resource}) as opened:
        warehouse: Warehouse = opened.warehouse
    used: list[duckdb.DuckDBPyConnection] = []

    def work(connection: duckdb.DuckDBPyConnection) -> None:
        used.append(connection)
        # what DuckDBResource tells the database of itself
        assert connection.execute("SELECT current_setting('custom_user_agent')").fetchone() == ("dagster",)
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        warehouse.run(work)
    with warehouse.read() as connection:
        used.append(connection)
        with pytest.raises(duckdb.InvalidInputException, match="read-only"):
            connection.execute("DELETE FROM ocr.documents")
    for connection in used:
        with pytest.raises(duckdb.ConnectionException):
            connection.execute("SELECT 1")


@pytest.mark.parametrize("settings", ["local"], indirect=True)
def test_definitions_work_with_the_settings_they_were_given_and_not_with_those_of_the_environment(
    settings: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given = Settings(data=tmp_path / "given", settle_seconds=0, lake="", warehouse="")
    monkeypatch.setenv("OCR_DATA", str(tmp_path / "environment"))
    lake = wiring.lake(given)
    lake.write("inbox/a.pdf", numbered(2))
    left = tmp_path / "given" / "lake" / "inbox" / f".tmp-{'0123' * 8}"
    left.write_bytes(b"half")
    os.utime(left, (1e9, 1e9))
    defs = build_defs(given)
    with dg.build_sensor_context(instance=instance) as context:
        sensed = defs.get_sensor_def("upload_sensor")(context)
    assert isinstance(sensed, dg.SensorResult)
    (name,) = [str(request.partition_key) for request in sensed.run_requests or []]
    instance.add_dynamic_partitions("batches", [name])
    assert defs.resolve_job_def("process_batch").execute_in_process(instance=instance, partition_key=name).success
    assert rows(given, "SELECT status, page_count FROM ocr.documents") == [("ok", 2)]
    lake.write("inbox/b.pdf", numbered(1))
    with dg.build_schedule_context(instance=instance) as schedule_context:
        asked = list(defs.get_schedule_def("reconcile")(schedule_context))  # type: ignore[call-overload]
    assert [type(one) for one in asked] == [dg.RunRequest]
    config = {"ops": {"write_retry_batches": {"config": {"reasons": ["damaged"]}}}}
    assert defs.resolve_job_def("retry_failed").execute_in_process(instance=instance, run_config=config).success
    assert defs.resolve_job_def("forget").execute_in_process(instance=instance).success
    assert not left.exists()
    assert not (tmp_path / "environment").exists()


@pytest.mark.parametrize(
    ("reasons", "told"),
    [([], "`reasons` names none; known are"), (["damaged", "foo"], "no such reason: foo; known are")],
)
def test_a_retry_of_no_reason_or_of_an_unknown_one_fails_and_lists_those_there_are(
    settings: Settings, instance: dg.DagsterInstance, reasons: list[str], told: str
) -> None:
    config = {"ops": {"write_retry_batches": {"config": {"reasons": reasons}}}}
    done = (
        build_defs(settings)
        .resolve_job_def("retry_failed")
        .execute_in_process(instance=instance, run_config=config, raise_on_error=False)
    )
    (failure,) = [event.step_failure_data for event in done.all_events if event.is_step_failure]
    assert failure.error is not None
    assert told in failure.error.message
