"""The rule of the house, read off the imports: the rooms know neither Dagster nor each other, only the records."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import ocr_pipeline

PACKAGE = Path(ocr_pipeline.__file__).parent
ROOMS = ("lake", "pdf", "ocr", "warehouse")
READS_THE_ENVIRONMENT = {
    "settings.py",
    "pdf/process.py",  # hands a render process the few variables it needs, and no secret
    "ocr/engines/tesseract.py",  # the same for an outside program
}


def imports(file: Path) -> Iterator[str]:
    """Every module that `file` imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_itself_and_the_records_and_nothing_else_of_ours(room: str) -> None:
    allowed = (f"ocr_pipeline.{room}", "ocr_pipeline.records")
    strangers = [
        f"{file.relative_to(PACKAGE)}: {name}"
        for file in (PACKAGE / room).rglob("*.py")
        for name in imports(file)
        if name.startswith("ocr_pipeline.") and not name.startswith(allowed)
    ]
    assert strangers == []


@pytest.mark.parametrize("room", [*ROOMS, "flow", "intake", "upkeep", "review", "metrics", "benchmark"])
def test_a_room_does_not_know_dagster(room: str) -> None:
    knowing = [
        f"{file.relative_to(PACKAGE)}: {name}"
        for file in (PACKAGE / room).rglob("*.py")
        for name in imports(file)
        if name.split(".")[0] == "dagster"
    ]
    assert knowing == []


def test_the_environment_is_read_in_the_settings_and_handed_on_to_programs_only() -> None:
    reading = {
        str(file.relative_to(PACKAGE))
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if (isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv"))
        or (isinstance(node, ast.ImportFrom) and node.module == "os" and {n.name for n in node.names} & {"environ"})
    }
    assert reading == READS_THE_ENVIRONMENT


NEEDS_MORE = {
    "samples/make.py": {"reportlab"},  # draws the samples, for developers
    "runs/celery_launcher.py": {"dagster-celery"},  # the extra `cluster`
}


def test_every_library_that_is_imported_is_declared() -> None:
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    declared = {_canonical(re.split(r"[^\w.-]", requirement)[0]) for requirement in project["dependencies"]}
    distributions = packages_distributions()
    undeclared = set()
    for file in PACKAGE.rglob("*.py"):
        place = str(file.relative_to(PACKAGE))
        for name in {name.split(".")[0] for name in imports(file)} - sys.stdlib_module_names - {"ocr_pipeline"}:
            from_one_of = {_canonical(found) for found in distributions.get(name, [name])}
            if not from_one_of & (declared | NEEDS_MORE.get(place, set())):
                undeclared.add(f"{place}: {name}")
    assert undeclared == set()


def _canonical(distribution: str) -> str:
    return distribution.lower().replace("_", "-")
