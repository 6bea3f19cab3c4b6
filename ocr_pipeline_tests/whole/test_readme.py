# ruff: noqa: E501  (queries stand on one line, as the README shows them)
"""The README says what is true: its generated blocks are what the program prints on the demo's samples.

`OCR_TEST_WRITE_README=1 pytest …/test_readme.py` writes them anew.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest
from pydantic import AliasChoices, SecretStr

from ocr_pipeline import samples
from ocr_pipeline.lake import transcripts
from ocr_pipeline.lake.opening import open_storage
from ocr_pipeline.records import REASONS, PageStatus, Reason
from ocr_pipeline.settings import Settings
from ocr_pipeline.upkeep.compare import recipes
from ocr_pipeline.warehouse.schema import TABLES
from ocr_pipeline_tests.simulator.fleet import Fleet

README = Path(__file__).parents[2] / "README.md"
COMMANDS = (
    "status two-col",
    "search oak table",
    "compare {older} {recipe}",
    "retry --reason empty_text --since 7d",
    "rebuild-warehouse",
    "purge inbox/samples/form.pdf --yes",
)
OLDER = "0123456789abcdef"
"""A recipe that the test makes up beside the one that read the samples: it lost the end of one page, and looped on
another."""

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
        "their pages",
        "SELECT parse_filename(source_uri) AS document, page_number, status, left(markdown, 30) AS begins FROM ocr.current_pages WHERE status <> 'failed' ORDER BY ALL",
    ),
    (
        "how well OCR agrees with the PDFs' own text, by backend and day",
        "SELECT backend, pages, mean_agreement FROM ocr.agreement ORDER BY ALL",
    ),
)
FLEET_VIEWS = (
    (
        "speed by backend and hour",
        "SELECT backend, requests, pages, faults, pages_per_second, tokens_per_second, median_seconds, p95_seconds, p99_seconds FROM ocr.backend_speed ORDER BY ALL",
    ),
    (
        "cost by backend and month; prices come from the backends file",
        "SELECT backend, pages, usd_per_month, usd_per_1000_pages_owned, usd_per_1000_pages_busy FROM ocr.backend_cost ORDER BY ALL",
    ),
    (
        "cost by document",
        "SELECT parse_filename(source_uri) AS document, backend, requests, pages, usd FROM ocr.document_cost ORDER BY ALL",
    ),
)
MEASURED = frozenset(f"{name}_seconds" for name in ("median", "p95", "p99")) | {
    "pages_per_second",
    "tokens_per_second",
    "usd_per_1000_pages_busy",
    "usd",
}
"""Columns that hang on the machine's time: in the README a number is an ellipsis. None may be empty."""

PRICES = {
    "rtx4090": "power_usd_per_month = 40",
    "spark": "power_usd_per_month = 45\nhardware_usd = 5000\nhardware_months = 36",
}


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


@pytest.fixture(scope="module")
def fleet_data(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same samples, one of them urgent, read by two simulated servers with the user's prices."""
    folder = tmp_path_factory.mktemp("readme-fleet")
    shutil.copytree(data / "samples", folder / "samples")
    (folder / "samples" / "two-columns.pdf").unlink()
    urgent = folder / "data" / "lake" / "inbox" / "urgent"
    urgent.mkdir(parents=True)
    shutil.copy(data / "samples" / "two-columns.pdf", urgent)
    with Fleet(
        rtx4090={"profile": "rtx-4090", "seconds_per_page": 0.2, "mean_tokens": 200},
        spark={"profile": "dgx-spark", "seconds_per_page": 0.4, "mean_tokens": 200},
    ) as fleet:
        written = fleet.backends_toml()
        for name, price in PRICES.items():
            written = written.replace(f'name = "{name}"\n', f'name = "{name}"\n{price}\n')
        (folder / "backends.toml").write_text(written)
        backends = {"OCR_BACKENDS": str(folder / "backends.toml")}
        assert run(folder, "ingest", "samples", **backends).returncode == 1
        assert run(folder, "ingest", str(urgent), **backends).returncode == 0
    return folder


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ocr_pipeline", *arguments],
        env={**nobodys(), "OCR_DATA": str(folder / "data"), "OCR_CPU_ENGINE": "text_layer", **environment},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        timeout=120,
        check=False,
    )


def nobodys() -> dict[str, str]:
    """The environment without settings: fixtures of a module are made before those of a test have taken them away."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("OCR_", "R2_", "DAGSTER_"))}


def steady(text: str, folder: Path) -> str:
    """What differs from run to run, named instead of shown."""
    text = text.replace(f"{folder}/", "").replace(str(folder), ".")
    text = re.sub(r"\d{8}T\d{6}Z-[0-9a-f]{12}", "20261122T120000Z-0123456789ab", text)
    text = re.sub(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b", "01234567-89ab-cdef-0123-456789abcdef", text)
    return re.sub(r"\b\d+\.\d s$", "0.9 s", text, flags=re.MULTILINE)


def commands(folder: Path) -> str:
    recipe = an_older_recipe(folder)
    shown = []
    for template in COMMANDS:
        command = template.format(older=OLDER, recipe=recipe)
        out = steady(run(folder, *command.split()).stdout, folder)
        shown.append(f"```\n$ ocr-pipeline {command}\n{out.rstrip()}\n```")
    return "\n\n".join(shown)


def an_older_recipe(folder: Path) -> str:
    """Transcripts of `OLDER` beside those that are there; returns the recipe that is there."""
    lake = open_storage(str(folder / "data" / "lake"))
    (recipe,) = recipes(lake)
    for transcript in list(transcripts.load(lake, recipe)):
        older = replace(transcript, recipe_id=OLDER)
        if "Oak table" in older.text:
            older = replace(older, text=json.dumps(json.loads(older.text)[:-4]))
        if "Running costs" in older.text:
            older = replace(older, status=PageStatus.FAILED, reason=Reason.REPETITION, text="")
        transcripts.write(lake, older)
    return recipe


def views(folder: Path, queries: Sequence[tuple[str, str]] = VIEWS) -> str:
    shown = []
    with duckdb.connect(str(folder / "data" / "warehouse.duckdb"), read_only=True) as connection:
        for told, query in queries:
            relation = connection.sql(query)
            rows = [
                [cell(name, value) for name, value in zip(relation.columns, row, strict=True)]
                for row in relation.fetchall()
            ]
            table = [relation.columns, ["---"] * len(relation.columns), *rows]
            lines = "\n".join("| " + " | ".join(line) + " |" for line in table)
            shown.append(f"{told[0].upper()}{told[1:]}:\n\n```sql\n{query}\n```\n\n{steady(lines, folder)}")
    return "\n\n".join(shown)


def cell(column: str, value: object) -> str:
    if column in MEASURED:
        assert isinstance(value, float), (column, value)
        return "…"
    if isinstance(value, float):
        return f"{value:.4g}" if value < 1 else f"{value:,.2f}"
    return " ".join(str("" if value is None else value).replace("|", "\\|").split())


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


def test_every_generated_block_of_the_readme_is_what_the_program_says_now(data: Path, fleet_data: Path) -> None:
    written = text = README.read_text(encoding="utf-8")
    blocks = {"fleet views": views(fleet_data, FLEET_VIEWS)} | {name: make(data) for name, make in BLOCKS.items()}
    for name, made in blocks.items():
        block = f"<!-- generated: {name} -->\n{made}\n<!-- end -->"
        pattern = re.compile(rf"<!-- generated: {name} -->\n.*?<!-- end -->", re.DOTALL)
        assert pattern.search(text), name
        text = pattern.sub(lambda _, block=block: block, text)  # type: ignore[misc]
    if os.environ.get("OCR_TEST_WRITE_README"):
        README.write_text(text, encoding="utf-8")
    else:
        assert text == written


def test_the_readmes_query_over_parquet_gives_the_rows_of_the_tables(data: Path) -> None:
    run(data, "retry", "--reason", "empty_text")  # from now on a page stands in two files
    text = README.read_text(encoding="utf-8")
    (query,) = re.findall(r"<!-- run by a test: newest rows from Parquet -->\n```sql\n(.*?)```", text, re.DOTALL)
    query = query.replace("data/lake/", f"{data / 'data' / 'lake'}/")
    columns = ", ".join(TABLES["pages"].names)
    with duckdb.connect(str(data / "data" / "warehouse.duckdb"), read_only=True) as connection:
        everything = f"read_parquet('{data}/data/lake/tables/pages/*/*.parquet')"
        newest = connection.sql(f"SELECT {columns} FROM ({query}) ORDER BY ALL").fetchall()
        assert newest == connection.sql(f"SELECT {columns} FROM ocr.pages ORDER BY ALL").fetchall()
        assert len(newest) < len(connection.sql(f"FROM {everything}").fetchall())
