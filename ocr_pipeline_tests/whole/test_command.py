"""`ocr-pipeline ingest` as people run it: a process, folders, exit codes, JSON."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import time
from pathlib import Path

import click
import pyarrow.parquet as pq
import pytest

from ocr_pipeline import samples
from ocr_pipeline.cli import cli
from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline_tests.pdfs import numbered, pdf
from ocr_pipeline_tests.whole.command import end_state, finish, ingest, start

FREE = {"OCR_CPU_ENGINE": "text_layer"}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three readable documents, names with everything in them, and two that are none."""
    folder = tmp_path / "my papers"
    (folder / "sub ü").mkdir(parents=True)
    (folder / "plain.pdf").write_bytes(numbered(3))
    (folder / "sub ü" / 'it\'s "so"\nlong.pdf').write_bytes(numbered(2, "two"))
    (folder / "sub ü" / "no-ending").write_bytes(pdf(["a PDF by its first bytes", ""]))
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7 and no more")
    (folder / "fake.pdf").write_bytes(b"GIF89a")
    (folder / "readme.txt").write_text("left alone")
    (folder / ".hidden.pdf").write_bytes(numbered(1))
    return folder


def test_a_folder_is_accounted_for_page_by_page_and_failures_are_listed(data: Path, folder: Path) -> None:
    code, said, err = ingest(data, folder, **FREE)
    assert code == 1
    assert (said["documents"], said["pages"], said["by_status"]) == (5, 7, {"blank": 1, "ok": 6})
    reasons = {entry["source"].rsplit("/", 1)[-1]: (entry["page"], entry["reason"]) for entry in said["failed"]}
    assert reasons == {"broken.pdf": (None, "damaged"), "fake.pdf": (None, "not_a_pdf")}
    assert "left alone: files that are not PDFs: 1" in err
    sources = {row[0] for row in _sources(data)}
    assert f'{data}/lake/inbox/my papers/sub ü/it\'s "so"\nlong.pdf' in sources


def _sources(data: Path) -> list[tuple[str]]:
    with Warehouse(str(data / "warehouse.duckdb")).read() as connection:
        return connection.execute("SELECT source_uri FROM ocr.documents").fetchall()


def test_the_same_command_again_reports_the_same_and_changes_no_row(data: Path, folder: Path) -> None:
    _, first, _ = ingest(data, folder, **FREE)
    before = end_state(data)
    code, second, _ = ingest(data, folder, **FREE)
    assert code == 1
    assert {**second, "seconds": 0} == {**first, "seconds": 0}
    assert end_state(data) == before


def test_everything_fine_is_exit_code_0_and_a_single_file_goes_to_its_name(data: Path, folder: Path) -> None:
    code, said, _ = ingest(data, folder / "plain.pdf", **FREE)
    assert (code, said["failed"]) == (0, [])
    assert (data / "lake" / "inbox" / "plain.pdf").read_bytes() == (folder / "plain.pdf").read_bytes()


def test_usage_and_configuration_are_exit_code_2_and_one_sentence(data: Path, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "my papers"
    other.mkdir(parents=True)
    (other / "plain.pdf").write_bytes(numbered(1))
    for arguments, environment, told in (
        ([str(tmp_path / "nowhere")], {}, "no file or folder"),
        ([str(folder), str(other)], {}, "would both become"),
        ([str(folder)], {"OCR_WAREHOUSE": "md:scans"}, "MOTHERDUCK_TOKEN"),
        ([str(folder)], {"OCR_BACKENDS": str(tmp_path / "none.toml")}, "none.toml"),
        ([str(folder)], {"OCR_SENSOR_SECONDS": "soon"}, "OCR_SENSOR_SECONDS"),
        ([], {}, "PATHS"),
        ([str(folder)], {"OCR_CPU_ENGINE": "tesseract", "PATH": "/nowhere"}, "tesseract"),
        ([str(folder)], {"DAGSTER_HOME": "/proc/none"}, "DAGSTER_HOME"),
        ([str(folder)], {"OCR_DATA": str(folder / "plain.pdf")}, "OCR_DATA"),
    ):
        process = start(data, "ingest", *arguments, "--json", **environment)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 2, (arguments, err)
        assert told in err
        assert "Traceback" not in err
        assert out == ""


def test_what_was_loaded_once_and_is_in_the_tables_no_longer_is_loaded_again(data: Path, folder: Path) -> None:
    first = ingest(data, folder, **FREE)
    before = end_state(data)
    (data / "warehouse.duckdb").unlink()
    assert ingest(data, folder, **FREE)[1]["failed"] == first[1]["failed"]
    assert end_state(data) == before
    other = data / "other.duckdb"
    code, said, _ = ingest(data, folder / "plain.pdf", OCR_WAREHOUSE=str(other), **FREE)
    assert (code, said["pages"]) == (0, 3)
    with Warehouse(str(other)).read() as connection:
        assert connection.execute("SELECT count(*) FROM ocr.pages").fetchone() == (3,)


@pytest.mark.parametrize("table", ["documents", "pages"])
def test_a_batch_whose_second_publishing_was_killed_before_the_manifest_is_published_again(
    data: Path, folder: Path, table: str
) -> None:
    first = ingest(data, folder, **FREE)
    before = end_state(data)
    (file,) = (data / "lake" / "tables" / table).rglob("*.parquet")
    # what a run leaves that wrote its new file and died: the rows are another file's than the manifest's
    pq.write_table(pq.read_table(file, partitioning=None), file, compression="none")
    code, said, err = ingest(data, folder, **FREE)
    assert (code, said["by_status"]) == (1, first[1]["by_status"]), err
    assert said["failed"] == first[1]["failed"]
    assert end_state(data) == before
    assert ingest(data, folder, **FREE)[0] == 1


@pytest.mark.parametrize("left", [None, b"", b"{}"])
def test_a_batch_whose_manifest_is_gone_or_torn_is_published_again(
    data: Path, folder: Path, left: bytes | None
) -> None:
    first = ingest(data, folder, **FREE)
    before = end_state(data)
    (manifest,) = (data / "lake" / "tables").rglob("*.json")
    if left is None:
        manifest.unlink()
    else:
        manifest.write_bytes(left)
    code, said, err = ingest(data, folder, **FREE)
    assert (code, said["by_status"], said["failed"]) == (1, first[1]["by_status"], first[1]["failed"]), err
    assert end_state(data) == before


def test_a_file_that_cannot_be_taken_is_a_failure_and_the_rest_goes_on(data: Path, folder: Path) -> None:
    (folder / "gone.pdf").symlink_to("nowhere.pdf")
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.pdf")).write_bytes(numbered(1))
    code, said, err = ingest(data, folder, **FREE)
    assert (code, said["documents"], said["pages"]) == (1, 5, 7)
    reasons = {entry["source"].rsplit("/", 1)[-1]: (entry["page"], entry["reason"]) for entry in said["failed"]}
    assert reasons == {
        "broken.pdf": (None, "damaged"),
        "fake.pdf": (None, "not_a_pdf"),
        "gone.pdf": (None, "missing"),
        "caf\\xe9.pdf": (None, "bad_name"),
    }
    assert "left alone: hidden files and folders: 1" in err


def test_a_folder_that_holds_the_data_may_be_ingested_again_and_again(data: Path, tmp_path: Path) -> None:
    papers = tmp_path / "papers"
    papers.mkdir()
    (papers / "a.pdf").write_bytes(numbered(2))
    for _ in range(2):
        code, said, _ = ingest(papers / "data", papers, **FREE)
        assert (code, said["documents"], said["pages"]) == (0, 1, 2)


def test_the_json_tells_of_the_other_batches_where_one_fails_as_a_whole(data: Path, folder: Path) -> None:
    ingest(data, folder / "plain.pdf", **FREE)
    # the documents of the second batch have a folder where one of its files must go
    blocked = data / "lake" / "markdown" / "inbox" / "second.pdf.md"
    blocked.mkdir(parents=True)
    second = folder / "second.pdf"
    second.write_bytes(numbered(2, "second"))
    code, said, err = ingest(data, folder / "plain.pdf", second, **FREE)
    assert (code, said["documents"], said["pages"], len(said["batches"])) == (1, 1, 3, 2)
    assert said["failed"] == [{"source": f"{data}/lake/inbox/second.pdf", "page": None, "reason": "run_failed"}]
    assert "second.pdf.md" in err
    assert "rename one of them" in err  # the mend, and not "unhandled errors in a TaskGroup"
    assert "TaskGroup" not in err
    blocked.rmdir()
    assert ingest(data, folder / "plain.pdf", second, **FREE)[0] == 0


def test_the_demo_leaves_uploads_of_the_samples_names_alone(data: Path, folder: Path) -> None:
    mine = folder / "form.pdf"
    mine.write_bytes(numbered(1, "my own form"))
    ingest(data, mine, **FREE)
    start(data, "demo", **FREE).communicate(timeout=240)
    assert (data / "lake" / "inbox" / "form.pdf").read_bytes() == mine.read_bytes()
    assert (data / "lake" / "inbox" / "samples" / "form.pdf").exists()
    assert f"{data}/lake/inbox/form.pdf" in {row[0] for row in _sources(data)}


def test_two_ingests_of_overlapping_folders_at_once_both_account_for_everything(data: Path, tmp_path: Path) -> None:
    one, both = tmp_path / "one", tmp_path / "both"
    for number in range(6):
        for folder in (one, both / "one"):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number}.pdf").write_bytes(numbered(2, str(number)))
    (both / "more.pdf").write_bytes(numbered(3, "more"))
    processes = [start(data, "ingest", str(path), "--json", **FREE) for path in (one, both / "one", both / "more.pdf")]
    ended = [finish(process) for process in processes]
    assert [(code, said["documents"], said["pages"]) for code, said, _ in ended] == [(0, 6, 12), (0, 6, 12), (0, 1, 3)]
    assert len(end_state(data)["documents"]) == 7
    assert len(end_state(data)["pages"]) == 15


def test_ctrl_c_ends_it_cleanly_and_the_same_command_goes_on(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(8):
        (folder / f"{number}.pdf").write_bytes(numbered(20, str(number)))
    process = start(data, "ingest", str(folder), "--json", OCR_BATCH_DOCUMENTS="2", **FREE)
    tables = data / "lake" / "tables"  # the first batch is being published, in a step of Dagster's
    until = time.monotonic() + 60
    while process.poll() is None and not next(tables.rglob("*.parquet"), None) and time.monotonic() < until:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the command
    _, err = process.communicate(timeout=60)
    assert process.returncode in (130, 0), err
    assert "Traceback" not in err
    assert "Stopped. What was read is kept" in err or process.returncode == 0
    code, said, _ = ingest(data, folder, OCR_BATCH_DOCUMENTS="2", **FREE)
    assert (code, said["documents"], said["pages"]) == (0, 8, 160)


def test_the_samples_end_as_expected_on_the_text_layer_alone_but_for_the_scan(data: Path) -> None:
    folder = data.parent / "samples"
    folder.mkdir()
    for path in samples.paths():
        shutil.copy(path, folder)
    code, said, _ = ingest(data, folder, **FREE)
    failed = {entry["source"].rsplit("/", 1)[-1]: entry["reason"] for entry in said["failed"]}
    assert code == 1
    assert failed.pop("scanned-letter.pdf") == "empty_text"
    assert failed == {name: ended["reason"] for name, ended in samples.expected().items() if ended["reason"]}


def test_garbage_is_collected_again_when_a_command_is_imported() -> None:
    assert cli.get_command(click.Context(cli), "serve-command") is not None
    assert gc.isenabled()
