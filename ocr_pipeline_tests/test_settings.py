"""Settings as people write them, and those that cannot work."""

from __future__ import annotations

import ast
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import pytest
from pydantic import AliasChoices, ValidationError

from ocr_pipeline.definitions import build_defs
from ocr_pipeline.lake import keys
from ocr_pipeline.settings import Settings


def test_paths_are_absolute_for_all_who_use_them_and_so_is_the_home_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("OCR_DATA", "~/data")
    monkeypatch.setenv("OCR_LAKE", "lake")
    monkeypatch.setenv("OCR_WAREHOUSE", "~/x.duckdb")
    settings = Settings()
    assert settings.data == tmp_path / "data"
    assert settings.lake == str(Path.cwd() / "lake")
    assert settings.warehouse == str(tmp_path / "x.duckdb")
    monkeypatch.setenv("OCR_LAKE", "s3://bucket/~/prefix")
    monkeypatch.setenv("OCR_WAREHOUSE", "md:scans")
    assert (Settings().lake, Settings().warehouse) == ("s3://bucket/~/prefix", "md:scans")


@pytest.mark.parametrize(
    "lake", ["s3:/bucket/ocr", "s3:bucket", "s3//bucket/ocr", "s3:///ocr", "S3:/bucket", "r2:bucket"]
)
def test_a_mistyped_address_of_a_bucket_is_no_local_folder(monkeypatch: pytest.MonkeyPatch, lake: str) -> None:
    monkeypatch.setenv("OCR_LAKE", lake)
    with pytest.raises(ValidationError, match="must be a local folder or s3://bucket/prefix"):
        Settings()


def test_a_folder_may_be_given_as_an_address_and_may_be_called_s3(monkeypatch: pytest.MonkeyPatch) -> None:
    for lake, place in (("file:///srv/lake", "file:///srv/lake"), ("s3/lake", str(Path.cwd() / "s3/lake"))):
        monkeypatch.setenv("OCR_LAKE", lake)
        assert Settings().lake == place


def test_a_variable_with_a_mistyped_name_is_found_and_what_others_read_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("R2_ENDPOINT=http://127.0.0.1:9000\n")
    for name in ("OCR_LAEK", "OCR_BACKENDS_FILE", "OCR_BIND", "OCR_IMAGE", "OCR_CELERY_BACKEND", "OCR_VLLM_IMAGE"):
        monkeypatch.setenv(name, "x")
    assert Settings.misspelt() == {"OCR_LAEK": "OCR_LAKE", "R2_ENDPOINT": "R2_ENDPOINT_URL"}


def test_an_empty_variable_is_none_and_hides_nothing_of_the_env_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("OCR_DATA=from-the-file\nOCR_INBOX=\n")
    monkeypatch.setenv("OCR_DATA", "")
    settings = Settings()
    assert (settings.data, settings.inbox) == (Path.cwd() / "from-the-file", "inbox/")
    assert settings.in_force()["OCR_DATA"] == (str(settings.data), ".env")


@pytest.mark.parametrize("inbox", ["batches", "pages/", "/markdown/mine", "tables/x", "..", "a/../b", "/"])
def test_an_inbox_among_our_own_objects_or_outside_the_lake_is_refused(
    monkeypatch: pytest.MonkeyPatch, inbox: str
) -> None:
    monkeypatch.setenv("OCR_INBOX", inbox)
    with pytest.raises(ValidationError, match="OCR_INBOX must"):
        Settings()


NUMBERS = {
    str(field.validation_alias.choices[0]): field
    for field in Settings.model_fields.values()
    if isinstance(field.validation_alias, AliasChoices)
    and {int, float} & {field.annotation, *get_args(field.annotation)}
}


@pytest.mark.parametrize("name", NUMBERS)
def test_no_number_may_be_below_zero_or_none_at_all(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for value in ("-1", "-0.5", "nan", "inf", "-inf"):
        monkeypatch.setenv(name, value)
        with pytest.raises(ValidationError, match=name):
            Settings()
    default = NUMBERS[name].default
    monkeypatch.setenv(name, str(7 if default is None else default))
    Settings()


@pytest.mark.parametrize(
    "name",
    ["OCR_MAX_PAGE_INCHES", "OCR_RENDER_SECONDS", "OCR_RENDER_MEMORY", "OCR_MAX_PAGES", "OCR_MAX_PDF_BYTES"],
)
def test_a_limit_of_zero_that_would_reject_everything_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "0")
    with pytest.raises(ValidationError, match=name):
        Settings()


def test_a_freshness_below_the_minute_that_dagster_asks_for_is_refused_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for hours in ("0.01", "0.0166", "0", "-1e300"):
        monkeypatch.setenv("OCR_FRESH_HOURS", hours)
        with pytest.raises(ValidationError, match=r"OCR_FRESH_HOURS\n.*must be at least a minute, 0.0167 hours"):
            Settings()
    for hours in ("0.0167", str(1 / 60)):
        monkeypatch.setenv("OCR_FRESH_HOURS", hours)
        build_defs(Settings())


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("OCR_LISTING_OVERLAP", timedelta(seconds=1)),
        ("OCR_SETTLE_SECONDS", timedelta(seconds=1)),
        ("OCR_OUTAGE_WAIT", timedelta(seconds=1)),
        ("OCR_RENDER_SECONDS", timedelta(seconds=1)),
        ("OCR_KEEP_IMAGES_DAYS", timedelta(days=1)),
        ("OCR_KEEP_RECIPES_DAYS", timedelta(days=1)),
        ("OCR_FRESH_HOURS", timedelta(hours=1)),
    ],
)
def test_the_longest_time_that_is_accepted_is_in_the_calendar(
    monkeypatch: pytest.MonkeyPatch, name: str, unit: timedelta
) -> None:
    (longest,) = [bound.le for bound in NUMBERS[name].metadata if hasattr(bound, "le")]
    assert datetime.now(UTC) - longest * unit < datetime.now(UTC)
    monkeypatch.setenv(name, str(int(longest)))
    Settings()
    monkeypatch.setenv(name, str(int(longest) + 1))
    with pytest.raises(ValidationError, match=name):
        Settings()


def test_every_prefix_of_ours_is_known_to_be_ours() -> None:
    module = ast.parse(Path(keys.__file__).read_text())
    named = {
        target.id
        for node in module.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    assert {getattr(keys, name).split("/")[0] + "/" for name in named} == keys.OURS
