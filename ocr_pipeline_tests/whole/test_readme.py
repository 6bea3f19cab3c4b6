# ruff: noqa: E501  (queries stand on one line, as the README shows them)
"""The README says what is true: its generated blocks are what the program prints on the demo's samples.

`OCR_TEST_WRITE_README=1 pytest …/test_readme.py` writes them anew.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest
from pydantic import AliasChoices, SecretStr

from ocr_pipeline import samples
from ocr_pipeline.records import REASONS
from ocr_pipeline.settings import Settings

README = Path(__file__).parents[2] / "README.md"
COMMANDS = (
    "status two-col",
    "search oak table",
    "retry --reason empty_text --since 7d",
    "rebuild-warehouse",
    "purge inbox/samples/form.pdf --yes",
)
VIEWS = (
    (
        "what failed, why, and how to run it again",
        "SELECT parse_filename(source_uri) AS document, page_number, reason, run_again FROM ocr.failed_pages ORDER BY ALL",
    ),
    (
        "current documents",
        "SELECT parse_filename(source_uri) AS document, page_count, status FROM ocr.current_documents WHERE status = 'ok' ORDER BY ALL",
    ),
    (
        "how well OCR agrees with the PDFs' own text, by backend and day",
        "SELECT backend, pages, mean_agreement FROM ocr.agreement ORDER BY ALL",
    ),
    (
        "speed by backend and hour (also median, p95, p99, tokens/s)",
        "SELECT backend, requests, pages, faults FROM ocr.backend_speed ORDER BY ALL",
    ),
    (
        "cost by backend and month; prices come from the backends file",
        "SELECT backend, pages, usd_per_1000_pages_owned FROM ocr.backend_cost ORDER BY ALL",
    ),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's samples, read by the engine that costs nothing and always says the same."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(
        Path(samples.__file__).parent,
        folder / "samples",
        ignore=shutil.ignore_patterns("*.py", "*.txt", "*.json", "__pycache__"),
    )
    assert run(folder, "ingest", "samples").returncode == 1
    return folder


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ocr_pipeline", *arguments],
        env={**os.environ, "OCR_DATA": str(folder / "data"), "OCR_CPU_ENGINE": "text_layer"},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        timeout=120,
        check=False,
    )


def steady(text: str, folder: Path) -> str:
    """What differs from run to run, named instead of shown."""
    text = text.replace(f"{folder}/", "").replace(str(folder), ".")
    text = re.sub(r"\d{8}T\d{6}Z-[0-9a-f]{12}", "20261122T120000Z-0123456789ab", text)
    text = re.sub(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b", "01234567-89ab-cdef-0123-456789abcdef", text)
    return re.sub(r"\b\d+\.\d s$", "0.9 s", text, flags=re.MULTILINE)


def commands(folder: Path) -> str:
    shown = []
    for command in COMMANDS:
        out = steady(run(folder, *command.split()).stdout, folder)
        shown.append(f"```\n$ ocr-pipeline {command}\n{out.rstrip()}\n```")
    return "\n\n".join(shown)


def views(folder: Path) -> str:
    shown = []
    with duckdb.connect(str(folder / "data" / "warehouse.duckdb"), read_only=True) as connection:
        for told, query in VIEWS:
            relation = connection.sql(query)
            rows = [[str("" if value is None else value) for value in row] for row in relation.fetchall()]
            table = [relation.columns, ["---"] * len(relation.columns), *rows]
            lines = "\n".join("| " + " | ".join(line) + " |" for line in table)
            shown.append(f"{told[0].upper()}{told[1:]}:\n\n```sql\n{query}\n```\n\n{steady(lines, folder)}")
    return "\n\n".join(shown)


def reasons() -> str:
    rows = "\n".join(f"| `{reason}` | {told} |" for reason, told in REASONS.items())
    return f"| reason | meaning |\n|---|---|\n{rows}"


def settings() -> str:
    lines = ["| name | default | meaning |", "|---|---|---|"]
    special = {"OCR_DATA": "`./data`", "OCR_LAKE": "`$OCR_DATA/lake`", "OCR_WAREHOUSE": "`$OCR_DATA/warehouse.duckdb`"}
    special["DAGSTER_HOME"] = "`$OCR_DATA/dagster`"
    for name, field in Settings.model_fields.items():
        alias = field.validation_alias
        variable = str(alias.choices[0]) if isinstance(alias, AliasChoices) else name
        default = "" if field.default is None or isinstance(field.default, SecretStr) else f"`{field.default}`"
        lines.append(f"| `{variable}` | {special.get(variable, default)} | {field.description} |")
    return "\n".join(lines)


BLOCKS: dict[str, Callable[[Path], str]] = {
    "views": views,  # before the commands: they change the tables
    "commands": commands,
    "reasons": lambda folder: reasons(),
    "settings": lambda folder: settings(),
}


def test_every_generated_block_of_the_readme_is_what_the_program_says_now(data: Path) -> None:
    written = text = README.read_text(encoding="utf-8")
    for name, make in BLOCKS.items():
        block = f"<!-- generated: {name} -->\n{make(data)}\n<!-- end -->"
        pattern = re.compile(rf"<!-- generated: {name} -->\n.*?<!-- end -->", re.DOTALL)
        assert pattern.search(text), name
        text = pattern.sub(lambda _, block=block: block, text)  # type: ignore[misc]
    if os.environ.get("OCR_TEST_WRITE_README"):
        README.write_text(text, encoding="utf-8")
    else:
        assert text == written
