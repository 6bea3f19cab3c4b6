"""Settings as people write them, and those that cannot work."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from pydantic import ValidationError

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
    monkeypatch.setenv("OCR_WAREHOUSE", "md:ocr")
    assert (Settings().lake, Settings().warehouse) == ("s3://bucket/~/prefix", "md:ocr")


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
