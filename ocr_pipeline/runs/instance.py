"""Where Dagster keeps its history, for `make dev` and the command alike: a run of one is there in the other."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import dagster as dg
from dagster._core.instance.ref import InstanceRef
from filelock import FileLock, Timeout

from ocr_pipeline.settings import Settings

CONFIG = "dagster.yaml"
DATABASES = ("history", "schedules")  # the folders of Dagster's SQLite files
MADE = ".made"
NO_CAPTURE = {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}


class HomeError(Exception):
    """There is no folder for Dagster's history; the message says where, why, and what to do."""


def home(settings: Settings) -> Path:
    """The folder, made where it is missing, with our dagster.yaml in force; `DAGSTER_HOME` decides where it is set.

    A `DAGSTER_HOME` that others have filled is left as it is. Raises HomeError where the folder cannot be made or
    written.
    """
    folder = settings.dagster_home.expanduser().absolute() if settings.dagster_home else settings.data / "dagster"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if settings.dagster_home and any(folder.iterdir()) and not _is_ours(folder):
            return folder
        settings.data.mkdir(parents=True, exist_ok=True)
        with FileLock(settings.data / "dagster.lock", timeout=120):
            _link(folder)
            if not (folder / MADE).exists():
                _make(folder)
        for name in DATABASES:  # to open a SQLite file for reading is to write beside it
            if (folder / name).exists() and not os.access(folder / name, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder / name))
    except Timeout:
        raise
    except OSError as error:
        raise HomeError(
            f"Dagster cannot keep its history in {folder}: {error.strerror or error} ({error.filename}): set OCR_DATA "
            "or DAGSTER_HOME to a folder that can be made and written"
        ) from error
    return folder


def instance(settings: Settings, *, captures_output: bool = True) -> dg.DagsterInstance:
    """`captures_output` False is for runs in a command: what they print is on the terminal already, and the two
    processes that Dagster starts a run to copy it print a traceback each on Ctrl-C."""
    overrides = None if captures_output else {"compute_logs": NO_CAPTURE}
    return dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(home(settings)), overrides=overrides))


def _make(folder: Path) -> None:
    """Makes Dagster's SQLite files, whole or not at all.

    Dagster makes them step by step at the first use: two processes at once spoil them, and a kill between leaves files
    that no later start can use.
    """
    if any((folder / name).exists() for name in DATABASES):
        if _cannot_open(folder) is None:
            (folder / MADE).touch()
            return
        for name in DATABASES:
            if (folder / name).exists():
                (folder / name).rename(folder / f"{name}.unusable-{os.getpid()}")
    fresh = folder / ".making"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    _link(fresh)
    if (error := _cannot_open(fresh)) is not None:
        why = getattr(error, "orig", None) or error  # SQLAlchemy's own text has the whole statement
        raise HomeError(
            f"Dagster cannot keep its history in {folder}: {why}; look whether the disk is full, or set "
            "DAGSTER_HOME to another folder"
        )
    for name in DATABASES:
        (fresh / name).rename(folder / name)
    (folder / MADE).touch()
    shutil.rmtree(fresh)


def _cannot_open(folder: Path) -> Exception | None:
    """Why not all of Dagster's storages can be used; None where they can. Makes them where they are missing."""
    try:
        with dg.DagsterInstance.from_config(str(folder)) as opened:
            opened.get_runs_count()
            opened.get_dynamic_partitions("batches")
            opened.get_daemon_heartbeats()
            opened.all_instigator_state()
    except Exception as error:  # any of Dagster's, SQLAlchemy's and alembic's: the files are not whole
        return error
    return None


def _is_ours(folder: Path) -> bool:
    """Whether the configuration there is this project's: another one, such as deploy/celery's, is never replaced."""
    config = folder / CONFIG
    if not config.exists():
        return (folder / MADE).exists()
    return config.resolve() == _config() or config.read_bytes() == _config().read_bytes()


def _link(folder: Path) -> None:
    link, source = folder / CONFIG, _config()
    if not (link.exists() and link.resolve() == source.resolve()):
        fresh = folder / f".{CONFIG}.{os.getpid()}"
        try:
            fresh.symlink_to(source)
        except OSError:  # a file system without links
            shutil.copyfile(source, fresh)
        fresh.replace(link)


def _config() -> Path:
    """The repository's dagster.yaml, or the copy in an installed package."""
    package = Path(__file__).resolve().parents[1]
    beside = package.parent / CONFIG
    return beside if (package.parent / "pyproject.toml").exists() and beside.exists() else package / CONFIG
