"""`ocr-pipeline doctor` on one machine: what cannot work is red, with the mend, and nothing hangs."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
import s3fs
from click.testing import CliRunner

from ocr_pipeline.commands import doctor
from ocr_pipeline.lake import batches, keys, planner
from ocr_pipeline.lake.opening import open_storage
from ocr_pipeline.settings import Settings
from ocr_pipeline_tests.storages import moto_store
from ocr_pipeline_tests.warehouse.account import Account


def checked() -> tuple[int, dict[str, Any]]:
    """Exit code, and what was found by name."""
    ran = CliRunner().invoke(doctor.command, ["--json"], standalone_mode=False, catch_exceptions=False)
    return ran.return_value, {check["name"]: check for check in json.loads(ran.stdout)["checks"]}


def test_with_nothing_configured_everything_is_fine_and_the_place_of_the_history_is_told(environment: Path) -> None:
    code, found = checked()
    assert (code, {name for name, check in found.items() if not check["ok"] and not check["warning"]}) == (0, set())
    assert found["history"]["detail"] == str(environment / "dagster")
    assert found["engine"]["detail"] == "auto on the CPU (OCR_BACKENDS is not set)"


@pytest.mark.parametrize(
    ("variable", "value", "red"),
    [
        ("OCR_WAREHOUSE", "/proc/none/w.duckdb", "warehouse"),
        ("DAGSTER_HOME", "/proc/none", "history"),
        ("OCR_LAKE", "/proc/none", "lake"),
        ("OCR_BACKENDS", "nowhere.toml", "backends"),
    ],
)
def test_what_cannot_work_is_red_and_has_its_mend(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, red: str
) -> None:
    monkeypatch.setenv(variable, value)
    code, found = checked()
    assert code == 1
    assert [name for name, check in found.items() if not check["ok"] and not check["warning"]] == [red]
    assert variable in found[red]["mend"]


def test_a_setting_with_a_mistyped_name_is_a_warning_that_names_the_right_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCR_WAREHOSE", "md:documents")
    code, found = checked()
    assert code == 0
    assert found["settings"]["detail"] == "OCR_WAREHOSE is no setting and has no effect"
    assert found["settings"]["mend"] == "is OCR_WAREHOUSE meant?"


def test_a_batch_list_that_cannot_be_read_is_red_and_named(settings: Settings) -> None:
    lake = open_storage(settings.lake)
    lists = [planner.deletion([f"inbox/{name}.pdf"], datetime.now(UTC)) for name in ("a", "b")]
    batches.write_many(lake, lists)
    assert checked()[1]["batch lists"]["detail"] == "2 read"
    lake.write(keys.batch(lists[0].name), b"")
    code, found = checked()
    assert (code, [name for name, check in found.items() if not check["ok"]]) == (1, ["batch lists"])
    assert f"1 of 2 cannot be read, first {keys.batch(lists[0].name)}" in found["batch lists"]["detail"]


def test_a_backends_name_is_shown_as_it_is_whatever_a_terminal_could_make_of_it(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("gpu [left]", "gpu[/right]", "gpu:100:")
    file = environment / "backends.toml"
    file.write_text(
        "".join(
            f'[[backend]]\nname = "{name}"\nurl = "http://127.0.0.1:{port}"\ngpu = "rtx-4090"\n'
            'model = "deepseek-ai/DeepSeek-OCR"\n'
            for port, name in enumerate(names, 1)
        )
    )
    monkeypatch.setenv("OCR_BACKENDS", str(file))
    said = CliRunner().invoke(doctor.command, [], standalone_mode=False, catch_exceptions=False).stdout
    assert "ok   lake: " in said
    assert [name for name in names if f"FAIL {name}: " not in said] == []


def test_an_engine_that_is_not_installed_is_red(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCR_CPU_ENGINE", "tesseract")
    monkeypatch.setenv("PATH", "/nowhere")
    code, found = checked()
    assert (code, found["engine"]["ok"]) == (1, False)
    assert "tesseract" in found["engine"]["detail"]


HOLD = """
import sys, duckdb
connection = duckdb.connect(sys.argv[1])
print("open", flush=True)
input()
"""


def test_a_duckdb_file_that_is_open_elsewhere_is_told_and_not_waited_for(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "WAIT_SECONDS", 0.2)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, Settings().warehouse], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        code, found = checked()
    finally:
        holder.communicate("")
    assert (code, found["warehouse"]["ok"]) == (1, False)
    assert "has been open in another program" in found["warehouse"]["detail"]


MOTHERDUCK = ("connection", "tables", "R2 secret", "load")


def asked_of(account: Account, monkeypatch: pytest.MonkeyPatch) -> tuple[int, dict[str, Any]]:
    """What doctor says of this account."""
    monkeypatch.setenv("OCR_WAREHOUSE", "md:scans")
    monkeypatch.setenv("MOTHERDUCK_TOKEN", "t0ken-of-mine")
    monkeypatch.setattr(duckdb, "connect", account.duckdb_connect)
    code, found = checked()
    assert "t0ken-of-mine" not in str(found)
    return code, {name.removeprefix("warehouse: "): check for name, check in found.items() if "warehouse" in name}


def test_a_motherduck_is_asked_for_all_that_the_first_batch_needs(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = Account()
    code, found = asked_of(account, monkeypatch)
    assert (code, tuple(found)) == (0, MOTHERDUCK)
    assert found["tables"]["detail"] == "0 documents"
    assert found["R2 secret"]["detail"] == "none: Parquet is sent from here"
    path = str(environment / "lake" / "doctor" / "ingest_date=2026-11-01" / "pages.parquet")
    assert found["load"]["detail"] == f"one page from {path}, taken away again"
    (database,) = account.databases.values()
    assert ("pages",) in (names := database.execute("SELECT table_name FROM duckdb_tables()").fetchall())
    assert not [name for (name,) in names if name.startswith("doctor")]


class R2(s3fs.S3FileSystem):  # type: ignore[misc]
    """What MotherDuck has of its own: addresses that begin with r2://."""

    protocol = ("r2",)


def test_with_the_lake_on_r2_it_reads_the_parquet_at_its_address_with_the_secret_it_was_given(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with moto_store() as store:
        options, lake = store.options, store.new_lake()
        for name, value in {**store.environment(), "OCR_LAKE": lake, "R2_ACCOUNT_ID": "acc"}.items():
            monkeypatch.setenv(name, value)
        reader = R2(key=options.access_key_id, secret=options.secret_access_key, endpoint_url=options.endpoint_url)
        account = Account(prepare=lambda connection: connection.register_filesystem(reader))
        code, found = asked_of(account, monkeypatch)
        address = lake.replace("s3://", "r2://", 1)
        assert code == 0, found
        assert found["load"]["detail"].startswith(
            f"one page from {address}/doctor/ingest_date=2026-11-01/pages.parquet"
        )
        assert [statement.partition(" SCOPE ")[2] for statement in account.secrets] == [f"'{address}/')"]
        refusing = Account(
            refuse=lambda statement: (
                duckdb.PermissionException(f"no right: {statement}") if "SECRET" in statement else None
            )
        )
        monkeypatch.setenv("OCR_LAKE", store.new_lake())  # the secret of the other one is made, in this process
        code, found = asked_of(refusing, monkeypatch)
        assert (code, tuple(found)) == (1, MOTHERDUCK[:3])
        assert "MotherDuck did not take the R2 secret: no right" in found["R2 secret"]["detail"]
        assert options.secret_access_key
        assert f"'{options.secret_access_key}'" not in str(found)
        assert "right to create" in found["R2 secret"]["mend"]


@pytest.mark.parametrize(
    ("part", "error", "step", "mend"),
    [
        ("SELECT 1", duckdb.InvalidInputException("Jwt is expired"), "connection", "MOTHERDUCK_TOKEN"),
        ("CREATE SCHEMA", duckdb.InvalidInputException("attached in read-only mode"), "tables", "kind read/write"),
        ("read_parquet", duckdb.BinderException("no such function"), "load", "R2_ACCOUNT_ID"),
    ],
)
def test_what_a_motherduck_refuses_is_red_with_its_words_and_the_mend(
    environment: Path, monkeypatch: pytest.MonkeyPatch, part: str, error: duckdb.Error, step: str, mend: str
) -> None:
    account = Account(refuse=lambda statement: error if part in statement else None)
    code, found = asked_of(account, monkeypatch)
    assert (code, tuple(found)) == (1, MOTHERDUCK[: MOTHERDUCK.index(step) + 1])
    assert str(error) in found[step]["detail"]
    assert mend in found[step]["mend"]
