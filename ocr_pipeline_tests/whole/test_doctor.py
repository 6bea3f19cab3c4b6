"""`ocr-pipeline doctor` on one machine: what cannot work is red, with the mend, and nothing hangs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ocr_pipeline.commands import doctor
from ocr_pipeline.settings import Settings


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
