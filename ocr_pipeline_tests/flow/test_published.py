"""From a batch's records to its files, and from those to the tables: in pieces, verified, read by others, compared."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import duckdb
import pandas
import polars
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from ocr_pipeline.flow import published, reading, rendered
from ocr_pipeline.flow.batch_run import StreamOptions
from ocr_pipeline.flow.documents import PageRows, page_markdown
from ocr_pipeline.flow.loading import load
from ocr_pipeline.flow.published import addresses, outcomes, read_manifest, read_tables
from ocr_pipeline.flow.publishing import publish
from ocr_pipeline.flow.reading import Reading
from ocr_pipeline.flow.rendered import RenderedDocument
from ocr_pipeline.flow.results import PIECE, document_pieces
from ocr_pipeline.flow.service import OcrService
from ocr_pipeline.lake import keys
from ocr_pipeline.lake.opening import open_storage
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.records import Batch, DocumentResult, PageImage, Reason, Upload
from ocr_pipeline.upkeep.rebuild import rebuild_warehouse
from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.differences import differences
from ocr_pipeline.warehouse.errors import WarehouseError
from ocr_pipeline.warehouse.load import load_batch
from ocr_pipeline.warehouse.schema import TABLES
from ocr_pipeline_tests.flow.doubles import Answer, ScriptedTranscriber
from ocr_pipeline_tests.flow.rows import assembled
from ocr_pipeline_tests.flow.test_stream import put
from ocr_pipeline_tests.pdfs import numbered
from ocr_pipeline_tests.storages import RunningStore, moto_store
from ocr_pipeline_tests.warehouse.sample_rows import to_tables


@pytest.fixture
def lake(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "lake"))


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(str(tmp_path / "warehouse.duckdb"))


@pytest.fixture(scope="module")
def store() -> Iterator[RunningStore]:
    with moto_store() as running:
        yield running


def fails_on_page_2(image: PageImage) -> Answer | None:
    return Reason.REPETITION if image.page_number == 2 else None


def read(lake: Storage, files: dict[str, bytes]) -> Batch:
    """A batch with all of its records in the lake, nothing published."""
    batch = put(lake, files)
    service = OcrService(
        lake, lambda: ScriptedTranscriber(fails_on_page_2), StreamOptions(render_workers=1, text_layer="never")
    )
    try:
        service.run(batch)
    finally:
        service.close()
    return batch


def records(lake: Storage, batch: Batch, upload: Upload | None = None) -> tuple[RenderedDocument, Reading]:
    """Of this upload, or of the batch's one."""
    identity = keys.document_id((upload or batch.uploads[0]).key)
    document = rendered.read(lake, batch.name, identity)
    assert document is not None
    read = reading.read(lake, batch.name, identity)
    assert read is not None
    return document, read


def all_assembled(lake: Storage, batch: Batch) -> list[DocumentResult]:
    """The rows of each document made of its records in one piece, in the order of the batch's list."""
    found = []
    for upload in batch.uploads:
        document, read = records(lake, batch, upload)
        found.append(assembled(batch, document, read, lake.uri_of))
    return found


def longer(lake: Storage, batch: Batch, pages: int) -> None:
    """Makes the records of the batch's one document those of a PDF of so many pages, without drawing them."""
    document, transcripts = records(lake, batch)
    first, read_first = document.pages[0], transcripts.pages[0]
    assert read_first.transcript is not None
    drawn, said = [], []
    for number in range(1, pages + 1):
        sha256 = f"{number:064x}"
        attempts = tuple(replace(attempt, page_number=number) for attempt in read_first.transcript.attempts)
        transcript = replace(read_first.transcript, image_sha256=sha256, text=f"page {number}", attempts=attempts)
        drawn.append(replace(first, number=number, image_sha256=sha256))
        said.append(replace(read_first, number=number, transcript=transcript))
    rendered.write(lake, batch.name, replace(document, page_count=pages, pages=tuple(drawn)))
    reading.write(lake, batch.name, replace(transcripts, pages=tuple(said)))


def test_files_hold_what_the_records_say_document_by_document(lake: Storage) -> None:
    batch = read(lake, {"b.pdf": numbered(3), "a.pdf": numbered(2, "other"), "no.pdf": b"not a PDF"})
    tables = read_tables(lake, publish(lake, batch))
    expected = to_tables(all_assembled(lake, batch))
    assert {name: table.to_pylist() for name, table in tables.items()} == {
        name: table.to_pylist() for name, table in expected.items()
    }


def test_a_document_longer_than_a_piece_gives_the_same_rows_and_a_second_time_the_same_bytes(lake: Storage) -> None:
    batch = read(lake, {"a.pdf": numbered(1)})
    longer(lake, batch, 2 * PIECE + 7)
    manifest = publish(lake, batch)
    assert manifest.tables["pages"].rows == 2 * PIECE + 7
    expected = to_tables(all_assembled(lake, batch))
    for name, table in read_tables(lake, manifest).items():
        assert table.equals(expected[name])
    assert publish(lake, batch) == manifest
    document, transcripts = records(lake, batch)
    parts = [part for part in document_pieces(lake, batch, document, transcripts) if isinstance(part, PageRows)]
    assert [len(part.pages) for part in parts] == [PIECE, PIECE, 7]


def test_the_markdown_file_of_a_document_in_pieces_is_that_of_its_pages_in_one(
    lake: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ocr_pipeline.flow.results.PIECE", 2)
    batch = read(lake, {"a.pdf": numbered(5)})
    (whole,) = all_assembled(lake, batch)
    assert lake.read(keys.markdown("inbox/a.pdf")).decode() == "\n\n".join(map(page_markdown, whole.pages)) + "\n"


def test_outcomes_are_told_by_the_files_in_the_order_of_the_list_without_text(lake: Storage) -> None:
    batch = read(lake, {"b.pdf": numbered(3), "a.pdf": numbered(1, "other"), "no.pdf": b"not a PDF"})
    manifest = publish(lake, batch)
    assert [
        dataclasses.replace(
            whole, pages=tuple(replace(page, markdown="") for page in whole.pages), regions=(), attempts=()
        )
        for whole in all_assembled(lake, batch)
    ] == outcomes(lake, batch)
    assert manifest == read_manifest(lake, batch.name)


def hive_folder(lake: Storage, table: str) -> str:
    return f"{lake.uri_of(keys.TABLES)}/{table}".replace("//", "/")


@pytest.mark.parametrize("table", TABLES)
def test_the_folder_of_a_table_is_read_as_it_is_by_pyarrow_pandas_polars_and_duckdb(lake: Storage, table: str) -> None:
    days = []
    for name, day in (("a.pdf", 1), ("b.pdf", 2)):
        batch = read(lake, {name: numbered(2, name)})
        moved = replace(
            batch.uploads[0], last_modified=batch.uploads[0].last_modified.replace(year=2026, month=1, day=day)
        )
        old = replace(batch, uploads=(moved,))
        publish(lake, old)
        days.append(moved.last_modified.date())
    folder = hive_folder(lake, table)
    rows = 2 if table == "documents" else 0 if table == "regions" else 4
    wanted = [str(day) for day in days]
    by_pyarrow = pq.read_table(folder)
    assert by_pyarrow.num_rows == rows
    assert ds.dataset(folder, partitioning="hive").to_table().num_rows == rows
    by_pandas, by_polars = pandas.read_parquet(folder), polars.read_parquet(folder)
    by_duckdb = duckdb.sql(f"SELECT * FROM read_parquet('{folder}/*/*.parquet')")
    assert len(by_pandas) == by_polars.height == len(by_duckdb.fetchall()) == rows
    if rows:
        assert sorted(set(by_pyarrow["ingest_date"].to_pylist())) == wanted
        assert sorted(by_pandas["ingest_date"].unique()) == wanted
        assert sorted(by_polars["ingest_date"].unique()) == days
        dates = duckdb.sql(f"SELECT DISTINCT ingest_date FROM read_parquet('{folder}/*/*.parquet') ORDER BY 1")
        assert [day for (day,) in dates.fetchall()] == days


CHANGES = {
    "UPDATE ocr.pages SET markdown = markdown || '.' WHERE page_number = 1": "pages: 2 rows differ",
    "UPDATE ocr.pages SET reason = 'garbage' WHERE page_number = 1": "pages: 2 rows differ",
    "DELETE FROM ocr.pages WHERE page_number = 3": "pages: 1 rows differ",
    "UPDATE ocr.documents SET page_count = 4": "documents: 2 rows differ",
    "DELETE FROM ocr.documents": "documents: 1 are not there, or only as an older upload",
    "UPDATE ocr.documents SET uploaded_at = uploaded_at - INTERVAL 1 DAY": (
        "documents: 1 are not there, or only as an older upload"
    ),
    "UPDATE ocr.documents SET uploaded_at = uploaded_at + INTERVAL 1 DAY": "",  # a newer upload: its own matter
    "DELETE FROM ocr.attempts WHERE page_number = 2": "attempts: 1 rows are not there",
    "UPDATE ocr.attempts SET started_at = started_at - INTERVAL 1 DAY": "attempts: 3 rows are not there",
    "UPDATE ocr.documents SET deleted_at = now()": "",
    "SELECT 1": "",
}


@pytest.mark.parametrize(("change", "told"), CHANGES.items())
def test_a_changed_or_missing_row_is_a_difference(lake: Storage, warehouse: Warehouse, change: str, told: str) -> None:
    batch = read(lake, {"a.pdf": numbered(3)})
    manifest = publish(lake, batch)
    assert load(lake, warehouse, batch).differences == ""
    warehouse.run(lambda connection: connection.execute(change))
    with addresses(lake, manifest) as files:
        assert "; ".join(differences(warehouse, batch.name, files)) == told
    assert "; ".join(differences(warehouse, batch.name, read_tables(lake, manifest))) == told


def test_an_emptied_warehouse_is_a_difference_in_every_way(lake: Storage, warehouse: Warehouse) -> None:
    batch = read(lake, {"a.pdf": numbered(3)})
    with addresses(lake, publish(lake, batch)) as files:
        found = differences(warehouse, batch.name, files)
    assert found == ["documents: 1 are not there, or only as an older upload", "attempts: 3 rows are not there"]


def test_the_database_reads_files_of_a_store_elsewhere_from_copies(
    store: RunningStore, warehouse: Warehouse, tmp_path: Path
) -> None:
    remote = open_storage(store.new_lake(), store.options)
    batch = read(remote, {"a.pdf": numbered(3)})
    publish(remote, batch)
    assert load(remote, warehouse, batch).differences == ""
    with warehouse.read() as connection:
        assert connection.execute("SELECT count(*), min(ingest_date) FROM ocr.pages").fetchone() == (
            3,
            batch.uploads[0].last_modified.date(),
        )


def test_on_r2_the_database_is_given_addresses_with_the_folder_of_the_date(store: RunningStore) -> None:
    remote = open_storage(store.new_lake(), store.options)
    batch = read(remote, {"a.pdf": numbered(1)})
    manifest = publish(remote, batch)
    with addresses(remote, manifest, on_r2=True) as files:
        day = batch.uploads[0].last_modified.date()
        assert files["regions"] == f"r2://{remote.uri.removeprefix('s3://')}/{keys.table('regions', day, batch.name)}"
    remote.write(manifest.tables["pages"].key, b"other bytes")
    with pytest.raises(WarehouseError, match="is not the file"), addresses(remote, manifest, on_r2=True):
        pass


def test_a_lake_whose_path_is_a_pattern_to_duckdb_is_loaded_all_the_same(tmp_path: Path, warehouse: Warehouse) -> None:
    lake = open_storage(str(tmp_path / "it's [a] *lake*"))
    batch = read(lake, {"a.pdf": numbered(2)})
    publish(lake, batch)
    assert load(lake, warehouse, batch).differences == ""


@pytest.mark.parametrize("folders", ["tenant=acme", "env=prod/Status=x", "status=x/batch=y/ingest_date=2001-01-01"])
def test_folders_of_the_lakes_path_never_become_columns(tmp_path: Path, warehouse: Warehouse, folders: str) -> None:
    lake = open_storage(str(tmp_path / folders / "lake"))
    batch = read(lake, {"a.pdf": numbered(2)})
    manifest = publish(lake, batch)
    assert load(lake, warehouse, batch).differences == ""
    with warehouse.read() as connection:
        assert connection.execute("SELECT DISTINCT batch, ingest_date, status FROM ocr.documents").fetchall() == [
            (batch.name, batch.uploads[0].last_modified.date(), "partial")
        ]
    rebuild_warehouse(lake, warehouse)
    with addresses(lake, manifest) as files:
        assert differences(warehouse, batch.name, files) == []


def test_a_store_whose_prefix_is_a_pattern_to_duckdb_is_read_from_copies(
    store: RunningStore, warehouse: Warehouse
) -> None:
    remote = open_storage(f"{store.new_lake()}/env=prod/{{a,b}}", store.options)
    batch = read(remote, {"a.pdf": numbered(2)})
    manifest = publish(remote, batch)
    with addresses(remote, manifest, on_r2=True) as files:
        assert load_batch(warehouse, batch.name, files).pages == 2


def test_a_file_that_is_not_the_one_of_the_manifest_is_refused_with_its_key_and_batch(
    lake: Storage, warehouse: Warehouse
) -> None:
    batch = read(lake, {"a.pdf": numbered(2)})
    manifest = publish(lake, batch)
    key = manifest.tables["pages"].key
    whole = lake.read(key)
    lake.write(key, whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    told = f"batch {batch.name}: {key} is not the file that the batch's manifest names"
    with pytest.raises(WarehouseError, match=told):
        load(lake, warehouse, batch)
    with pytest.raises(WarehouseError, match=told):
        read_tables(lake, manifest)
    lake.write(key, b"PAR1 no more")
    with pytest.raises(WarehouseError, match=f"batch {batch.name}, {key}: table pages: not a readable Parquet file"):
        read_tables(lake, manifest, verified=False)
    publish(lake, batch)  # as the message says
    assert load(lake, warehouse, batch).differences == ""


def test_a_batch_that_a_newer_program_published_is_refused(lake: Storage, warehouse: Warehouse) -> None:
    batch = read(lake, {"a.pdf": numbered(1)})
    manifest = publish(lake, batch)
    published.write_manifest(lake, replace(manifest, schema_version=99))
    with pytest.raises(WarehouseError, match="schema version 99, this program knows up to"):
        load(lake, warehouse, batch)


def test_a_file_of_the_version_before_with_its_date_inside_is_loaded_too(lake: Storage, warehouse: Warehouse) -> None:
    batch = read(lake, {"a.pdf": numbered(3)})
    manifest = publish(lake, batch)
    files = {}
    for name, table in read_tables(lake, manifest).items():
        older = table.replace_schema_metadata({"table": name, "schema_version": "1"})
        if name == "pages":
            older = older.drop_columns(["finish_reason"])  # as if that column had come later
        sink = io.BytesIO()
        pq.write_table(older, sink)
        lake.write(manifest.tables[name].key, sink.getvalue())
        files[name] = published.table_file(manifest.tables[name].key, table.num_rows, sink.getvalue())
    published.write_manifest(lake, replace(manifest, schema_version=1, tables=files))
    assert load(lake, warehouse, batch).differences == ""
    with warehouse.read() as connection:
        assert connection.execute("SELECT DISTINCT ingest_date, finish_reason FROM ocr.pages").fetchall() == [
            (batch.uploads[0].last_modified.date(), None)
        ]
