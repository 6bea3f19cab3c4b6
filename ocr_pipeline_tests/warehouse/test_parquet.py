"""Parquet files: what stands in them, that other programs read them with no help from us, and hostile values."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pandas
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocr_pipeline.records import PageStatus, Reason
from ocr_pipeline.warehouse.errors import WarehouseError
from ocr_pipeline.warehouse.parquet import TableWriter, from_bytes, to_bytes
from ocr_pipeline.warehouse.schema import FILES, PRIMARY_KEYS, SCHEMA_VERSION, TABLES
from ocr_pipeline_tests.warehouse.sample_rows import document_id, result, to_tables

CONTRACT = {
    "documents": "document_id, source_uri, etag, uploaded_at, size_bytes, content_sha256, page_count, title, status, "
    "reason, detail, batch, ingest_date, markdown_uri, recipe_id, deleted_at, processed_at",
    "pages": "document_id, page_number, status, reason, detail, markdown, engine, backend, model, attempts, "
    "prompt_tokens, completion_tokens, seconds, finish_reason, quality, agreement, width, height, rotation, image_uri, "
    "image_sha256, recipe_id, batch, ingest_date, processed_at",
    "regions": "document_id, page_number, region_index, label, x0, y0, x1, y1, text",
    "attempts": "document_id, page_number, recipe_id, attempt, backend, model, choice, started_at, seconds, "
    "prompt_tokens, completion_tokens, finish_reason, outcome",
}


@pytest.fixture(scope="module")
def tables() -> dict[str, pa.Table]:
    return to_tables(
        [
            result("z.pdf", batch="b1", pages=3, statuses={2: (PageStatus.FAILED, Reason.REPETITION)}),
            result("a.pdf", batch="b1", pages=2),
            result("broken.pdf", batch="b1", rejected=Reason.ENCRYPTED),
        ]
    )


@pytest.fixture(scope="module")
def folder(tables: dict[str, pa.Table], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parquet")
    for name, table in tables.items():
        (folder / f"{name}.parquet").write_bytes(to_bytes(name, table))
    return folder


def test_columns_are_those_of_the_contract_in_its_order_each_with_a_description() -> None:
    for name, columns in CONTRACT.items():
        assert TABLES[name].names == columns.split(", ")
        assert all(len(field.metadata[b"description"]) > 3 for field in TABLES[name])
        assert FILES[name].names == [column for column in TABLES[name].names if column != "ingest_date"]
        assert TABLES[name].metadata == {b"table": name.encode(), b"schema_version": b"%d" % SCHEMA_VERSION}
        assert not any(TABLES[name].field(key).nullable for key in PRIMARY_KEYS[name])


@pytest.mark.parametrize("name", TABLES)
def test_a_file_gives_back_the_rows_that_were_written_with_descriptions_and_version(
    name: str, tables: dict[str, pa.Table]
) -> None:
    again = from_bytes(name, to_bytes(name, tables[name]))
    assert again.equals(tables[name])
    assert again.schema.equals(TABLES[name], check_metadata=True)
    raw = pq.read_schema(io.BytesIO(to_bytes(name, tables[name])))
    assert raw.metadata[b"schema_version"] == b"%d" % SCHEMA_VERSION
    assert raw.field(0).metadata[b"description"] == TABLES[name].field(0).metadata[b"description"]


def test_rows_are_sorted_by_key_and_the_same_rows_give_the_same_bytes(tables: dict[str, pa.Table]) -> None:
    for name, table in tables.items():
        keys = list(zip(*(table[column].to_pylist() for column in PRIMARY_KEYS[name]), strict=True))
        assert keys == sorted(keys)
        assert len(set(keys)) == len(keys) > 0
        assert to_bytes(name, table) == to_bytes(name, table.slice(0))


def test_a_file_written_in_pieces_is_the_same_file_and_pieces_out_of_order_are_refused(
    tables: dict[str, pa.Table],
) -> None:
    many = to_tables([result(f"{n}.pdf", batch="b1", pages=700) for n in range(4)])["pages"]
    documents = len(many["document_id"].unique())
    files = []
    for size in (5000, 600, 1):
        sink = pa.BufferOutputStream()
        with TableWriter("pages", sink, date(2026, 11, 1), documents) as writer:
            for start in range(0, many.num_rows, size):
                writer.write(many.slice(start, size))
        files.append(bytes(sink.getvalue()))
    assert files == [to_bytes("pages", many)] * 3
    assert [pq.ParquetFile(io.BytesIO(files[0])).metadata.row_group(n).num_rows for n in range(6)] == [500] * 5 + [300]
    writer = TableWriter("pages", pa.BufferOutputStream(), None, 3)
    writer.write(tables["pages"])
    with pytest.raises(WarehouseError, match="comes after"):
        writer.write(tables["pages"].slice(0, 1))


def test_a_rejected_document_has_a_row_and_no_pages(tables: dict[str, pa.Table]) -> None:
    row = [row for row in tables["documents"].to_pylist() if row["status"] == "rejected"]
    assert [(r["document_id"], r["reason"], r["page_count"]) for r in row] == [
        (document_id("broken.pdf"), "encrypted", 0)
    ]
    assert document_id("broken.pdf") not in tables["pages"]["document_id"].to_pylist()


def in_file(name: str, tables: dict[str, pa.Table]) -> pa.Table:
    """What a reader gets of one file: all but the date, which is the name of its folder."""
    return tables[name].select(FILES[name].names)


@pytest.mark.parametrize("name", TABLES)
def test_duckdb_reads_the_file_as_it_is(name: str, folder: Path, tables: dict[str, pa.Table]) -> None:
    connection = duckdb.connect()
    found = connection.execute("SELECT * FROM read_parquet(?)", [str(folder / f"{name}.parquet")]).to_arrow_table()
    assert found.cast(pa.schema(list(FILES[name]))).to_pylist() == in_file(name, tables).to_pylist()


@pytest.mark.parametrize("name", TABLES)
def test_polars_reads_the_file_as_it_is(name: str, folder: Path, tables: dict[str, pa.Table]) -> None:
    frame = polars.read_parquet(folder / f"{name}.parquet")
    assert frame.to_dicts() == in_file(name, tables).to_pylist()


@pytest.mark.parametrize("name", TABLES)
def test_pandas_reads_the_file_as_it_is(name: str, folder: Path, tables: dict[str, pa.Table]) -> None:
    frame = pandas.read_parquet(folder / f"{name}.parquet")
    expected = in_file(name, tables).to_pandas()
    pandas.testing.assert_frame_equal(frame, expected)
    assert list(frame.columns) == FILES[name].names
    assert frame["document_id"].tolist() == tables[name]["document_id"].to_pylist()


@pytest.mark.parametrize("name", TABLES)
def test_plain_pyarrow_reads_the_file_as_it_is(name: str, folder: Path, tables: dict[str, pa.Table]) -> None:
    assert pq.read_table(folder / f"{name}.parquet").equals(in_file(name, tables))


@pytest.mark.parametrize("name", TABLES)
def test_files_are_zstd_sorted_indexed_and_filtered_on_document_id(name: str, folder: Path) -> None:
    path = str(folder / f"{name}.parquet")
    group = pq.ParquetFile(path).metadata.row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    assert {column.compression for column in columns.values()} == {"ZSTD"}
    assert all(
        column.has_offset_index and column.has_column_index for key, column in columns.items() if key == "document_id"
    )
    assert [FILES[name].names[s.column_index] for s in group.sorting_columns] == list(PRIMARY_KEYS[name])
    blooms = duckdb.execute(
        "SELECT path_in_schema FROM parquet_metadata(?) WHERE bloom_filter_offset IS NOT NULL", [path]
    ).fetchall()
    assert blooms == [("document_id",)]


def test_the_bloom_filter_lets_a_reader_skip_row_groups_that_lack_a_document(folder: Path) -> None:
    path = str(folder / "pages.parquet")
    probe = "SELECT bloom_filter_excludes FROM parquet_bloom_probe(?, 'document_id', ?)"
    assert duckdb.execute(probe, [path, document_id("a.pdf")]).fetchall() == [(False,)]
    assert duckdb.execute(probe, [path, document_id("not there")]).fetchall() == [(True,)]


def test_text_has_no_dictionary_and_repeated_values_have_one(folder: Path) -> None:
    group = pq.ParquetFile(folder / "pages.parquet").metadata.row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    assert not columns["markdown"].has_dictionary_page
    assert not columns["image_sha256"].has_dictionary_page
    assert columns["document_id"].has_dictionary_page
    assert columns["backend"].has_dictionary_page
    assert not columns["markdown"].is_stats_set


def test_an_empty_batch_makes_four_files_that_are_read_as_no_rows() -> None:
    for name, table in to_tables([]).items():
        assert from_bytes(name, to_bytes(name, table)).num_rows == 0


@settings(max_examples=40, deadline=None)
@given(st.text(st.characters(), max_size=40))
def test_any_text_a_model_can_say_is_written_and_read(text: str) -> None:
    tables = to_tables([result("a.pdf", batch="b", pages=1, markdown={1: text})])
    found = from_bytes("pages", to_bytes("pages", tables["pages"]))["markdown"].to_pylist()
    assert found == [text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")]


def test_half_a_surrogate_pair_becomes_a_replacement_character_and_leaves_other_rows_alone() -> None:
    whole = result("a.pdf", batch="b", pages=2, markdown={1: "before \ud800 after", 2: "\ud83d\ude00 é \x00"})
    tables = to_tables([whole])
    assert tables["pages"]["markdown"].to_pylist() == ["before \ufffd after", "\U0001f600 é \x00"]


def test_a_number_beyond_its_column_becomes_null_and_leaves_other_rows_alone() -> None:
    good = result("a.pdf", batch="b", pages=2)
    wild = replace(good, pages=(replace(good.pages[0], completion_tokens=10**30), good.pages[1]))
    tables = to_tables([wild])
    assert tables["pages"]["completion_tokens"].to_pylist() == [None, good.pages[1].completion_tokens]


def test_two_rows_with_one_key_are_refused() -> None:
    with pytest.raises(WarehouseError, match=r"table documents: two rows of one batch have the key"):
        to_tables([result("a.pdf", batch="b"), result("a.pdf", batch="b", uploaded=3)])


def test_a_time_without_a_zone_is_refused() -> None:
    good = result("a.pdf", batch="b")
    naive = replace(good, document=replace(good.document, uploaded_at=datetime(2026, 1, 1)))
    with pytest.raises(WarehouseError, match="uploaded_at has no time zone"):
        to_tables([naive])


def test_a_missing_required_value_is_refused_with_its_row() -> None:
    good = result("a.pdf", batch="b")
    with pytest.raises(WarehouseError, match=f"etag is missing in the row with the key .'{document_id('a.pdf')}'"):
        to_tables([replace(good, document=replace(good.document, etag=None))])  # type: ignore[arg-type]


def test_a_file_of_another_table_a_newer_version_or_no_parquet_is_refused(tables: dict[str, pa.Table]) -> None:
    with pytest.raises(WarehouseError, match="Parquet file of pages was expected, this one holds regions"):
        from_bytes("pages", to_bytes("regions", tables["regions"]))
    newer = tables["pages"].replace_schema_metadata({"table": "pages", "schema_version": str(SCHEMA_VERSION + 1)})
    sink = io.BytesIO()
    pq.write_table(newer, sink)
    with pytest.raises(WarehouseError, match="update ocr-pipeline"):
        from_bytes("pages", sink.getvalue())
    with pytest.raises(WarehouseError, match="not a readable Parquet file"):
        from_bytes("pages", b"PAR1 not really PAR1")
    foreign = io.BytesIO()
    pq.write_table(pa.table({"a": [1]}), foreign)
    with pytest.raises(WarehouseError, match="no table of ours"):
        from_bytes("pages", foreign.getvalue())


def test_a_flipped_bit_in_the_text_of_a_file_is_noticed(tables: dict[str, pa.Table]) -> None:
    data = to_bytes("pages", tables["pages"])
    group = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0)
    text = group.column(FILES["pages"].get_field_index("markdown"))
    header = 100  # bytes at most; the checksum is of what follows it
    places = range(text.data_page_offset + header, text.data_page_offset + text.total_compressed_size, 5)
    assert len(places) > 20
    for place in places:
        flipped = bytearray(data)
        flipped[place] ^= 0x10
        with pytest.raises(WarehouseError, match="not a readable Parquet file"):
            from_bytes("pages", bytes(flipped))


def test_an_older_file_without_a_later_column_reads_as_null(tables: dict[str, pa.Table]) -> None:
    older = tables["pages"].drop_columns(["finish_reason"])
    sink = io.BytesIO()
    pq.write_table(older, sink)
    read = from_bytes("pages", sink.getvalue())
    assert read["finish_reason"].null_count == read.num_rows > 0
    assert read.drop_columns(["finish_reason"]).equals(older)


def test_columns_that_are_not_ours_are_not_written(tables: dict[str, pa.Table]) -> None:
    with pytest.raises(WarehouseError, match="columns are not those of schema version"):
        to_bytes("pages", tables["pages"].drop_columns(["markdown"]))


def test_times_keep_their_instant_whatever_the_zone_they_came_in(tables: dict[str, pa.Table]) -> None:
    assert tables["documents"]["uploaded_at"][0].as_py() == datetime(2026, 11, 1, 8, 0, tzinfo=UTC)
    assert json.loads(json.dumps(str(TABLES["documents"].field("uploaded_at").type))) == "timestamp[us, tz=UTC]"
