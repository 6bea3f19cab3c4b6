"""Where Dagster keeps its history, for `make dev` and the command alike: a run of one is there in the other."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import dagster as dg
from filelock import FileLock

from ocr_pipeline.settings import Settings

CONFIG = "dagster.yaml"


def home(settings: Settings) -> Path:
    """The folder, made where it is missing, with our dagster.yaml in force; `DAGSTER_HOME` decides where it is set."""
    if settings.dagster_home is not None:
        return settings.dagster_home.expanduser().absolute()
    folder = settings.data / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    link, source = folder / CONFIG, _config()
    if not (link.exists() and link.resolve() == source.resolve()):
        fresh = folder / f".{CONFIG}.{os.getpid()}"
        try:
            fresh.symlink_to(source)
        except OSError:  # a file system without links
            shutil.copyfile(source, fresh)
        fresh.replace(link)
    return folder


def instance(settings: Settings) -> dg.DagsterInstance:
    """Dagster's instance. One process at a time opens it: two that make its SQLite files at once spoil them."""
    folder = home(settings)
    settings.data.mkdir(parents=True, exist_ok=True)
    with FileLock(settings.data / "dagster.lock", timeout=120):
        opened = dg.DagsterInstance.from_config(str(folder))
        opened.get_runs_count()  # opens, and where it is new makes, the files of all three storages
        opened.event_log_storage.get_dynamic_partitions("batches")
        return opened


def _config() -> Path:
    """The repository's dagster.yaml, or the copy in an installed package."""
    package = Path(__file__).resolve().parent
    beside = package.parent / CONFIG
    return beside if (package.parent / "pyproject.toml").exists() and beside.exists() else package / CONFIG
