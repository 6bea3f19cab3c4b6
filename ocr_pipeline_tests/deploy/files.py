"""The files under deploy/ as tests read them: where they are, YAML with variables filled in, flags as a mapping."""

from __future__ import annotations

import importlib
import os
import re
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"

_VARIABLE = re.compile(r"\$\{(\w+)(?::?([-?])([^}]*))?\}")


def load(name: str) -> Any:
    """The first YAML document of deploy/<name>."""
    return load_all(name)[0]


def load_all(name: str) -> list[Any]:
    return [document for document in yaml.safe_load_all((DEPLOY / name).read_text()) if document is not None]


def filled_in(text: str) -> str:
    """`${NAME:-default}` becomes its default, as Compose does it where the variable is unset."""
    return _VARIABLE.sub(lambda match: match[3] or "" if match[2] == "-" else f"<{match[1]}>", text)


def flags(words: Sequence[str]) -> dict[str, str]:
    """`--name=value`, `--name value` and `--name` as a mapping; a flag given twice or a word too many fails."""
    found: dict[str, str] = {}
    name = None
    for word in words:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            assert name not in found, f"{name} is given twice"
            found[name] = value if equals else ""
            name = None if equals else name
        else:
            assert name is not None, f"{word!r} belongs to no flag"
            found[name], name = word, None
    return found


def missing(what: str) -> NoReturn:
    """Skips a test whose programs are not installed; under .ci/cluster, which installs them, that is a failure."""
    (pytest.fail if os.environ.get("OCR_TEST_CLUSTER") else pytest.skip)(what)


def needs(*modules: str) -> None:
    """Skips a test module whose libraries are not installed (the extra `cluster`); under .ci/cluster that fails."""
    for module in modules:
        if os.environ.get("OCR_TEST_CLUSTER"):
            importlib.import_module(module)
        else:
            pytest.importorskip(module)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])
