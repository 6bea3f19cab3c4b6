"""The user's list of GPU servers: one TOML file to frozen records (backends.py), or an error that says what to write
instead.

Here belongs reading and checking the file. Keys, defaults and bounds are those of the records. The environment is not
read: the caller gives a function that resolves a variable's name.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

from pydantic import SecretStr

from ocr_pipeline.ocr.vllm.backends import Backend, BackendsConfig, Policy, Rules, Stage
from ocr_pipeline.ocr.vllm.gpus import GPUS, DocumentShare, GpuProfile
from ocr_pipeline.ocr.vllm.models import MODELS, ModelProfile


class ConfigError(Exception):
    """The backends file cannot be used. The text names the file, the entry, and what to write instead."""


def load_backends(path: Path, variable: Callable[[str], str | None]) -> BackendsConfig:
    """Reads the file. `variable` gives the value of an environment variable, None where it is not set.

    Raises `ConfigError` for everything that is not exactly as it should be, all of it in one message: an unknown
    key, a wrong type, a profile that does not exist, a variable that is not set.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors put a byte order mark first
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); OCR_BACKENDS must name a TOML file in UTF-8") from error
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    problems: list[str] = []
    config = _config(table, variable, problems)
    if config is None:
        lines = "".join(f"\n  {problem}" for problem in problems)
        raise ConfigError(f"{path}: to be put right ({len(problems)}):{lines}")
    return config


_LIMITS: Mapping[str, int] = {
    f.name: f.default
    for f in fields(Rules)
    if type(f.default) is int  # the routing numbers of the record
}
_TOP = ("policy", "stage", "sla", "backend", *_LIMITS)
_WRITTEN_AS = {"api_key": "api_key_env", "headers": "headers_env"}  # the file names variables, the record has values
_BACKEND = tuple(_WRITTEN_AS.get(f.name, f.name) for f in fields(Backend))
_NUMBERS: Mapping[str, tuple[float, float, float]] = {  # default, least, most
    f.name: (f.default, *f.metadata["between"]) for f in fields(Backend) if isinstance(f.default, float)
}
_OWN_GPU_REQUIRED = ("name", "size", "max_in_flight", "dpi")
_OWN_GPU = tuple(f.name for f in fields(GpuProfile) if f.name not in ("min_vllm", "pinned_vllm", "table"))


class _Entry:
    """One table of the file with its place in it: takes values out, and notes what is wrong with them."""

    def __init__(self, where: str, table: Mapping[str, Any], known: tuple[str, ...], problems: list[str]) -> None:
        self.where = where
        self.table = table
        self.problems = problems
        for key in sorted(set(table) - set(known)):
            self.wrong(key, f"unknown key; known are {', '.join(known)}")

    def wrong(self, key: str, what: str) -> None:
        self.problems.append(f"{self.where} {key}: {what}" if key else f"{self.where}: {what}")

    def text(self, key: str, default: str | None = None) -> str | None:
        value = self.table.get(key, default)
        if value is not None and (not isinstance(value, str) or not value.strip()):
            self.wrong(key, f"must be a text in quotes, not {value!r}")
            return default
        return value

    def choice(self, key: str, choices: tuple[Any, ...], default: Any) -> Any:
        value = self.table.get(key, default)
        if value not in choices or type(value) is not type(default):  # 1 is no True
            self.wrong(key, f"must be one of {', '.join(map(json.dumps, choices))}, not {value!r}")
            return default
        return value

    def whole(self, key: str, default: int, least: int = 1) -> int:
        value = self.table.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= 1_000_000_000:
            self.wrong(key, f"must be a whole number of at least {least}, not {value!r}")
            return default
        return value

    def whole_or_none(self, key: str, default: int | None) -> int | None:
        return default if key not in self.table else self.whole(key, 1)

    def number(self, key: str, default: float, least: float, most: float) -> float:
        value = self.table.get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            self.wrong(key, f"must be a number, not {value!r}")
            return default
        if not least <= value <= most:
            self.wrong(key, f"must be from {least:g} to {most:g}, not {value:g}")
            return default
        return float(value)


def _config(
    table: Mapping[str, Any], variable: Callable[[str], str | None], problems: list[str]
) -> BackendsConfig | None:
    top = _Entry("top of the file", table, _TOP, problems)
    plain = Rules()
    policy = top.choice("policy", get_args(Policy), plain.policy)
    stage = top.choice("stage", get_args(Stage), plain.stage)
    sla = top.choice("sla", (True, False), plain.sla)
    limits = {name: top.whole(name, default, least=0) for name, default in _LIMITS.items()}
    entries = table.get("backend")
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        top.wrong("", "lists no backend; write a [[backend]] with name, url, gpu and model for each server")
        return None
    backends = tuple(_backend(number, entry, variable, problems) for number, entry in enumerate(entries, 1))
    _check_together(backends, problems)
    if problems:
        return None
    return BackendsConfig(policy=policy, stage=stage, sla=sla, backends=backends, **limits)


def _backend(
    number: int, table: Mapping[str, Any], variable: Callable[[str], str | None], problems: list[str]
) -> Backend:
    """The record, with stand-ins where something is wrong: whoever finds `problems` does not use it."""
    named = table.get("name")
    where = f"[[backend]] {number}" + (f" ({named})" if isinstance(named, str) else "")
    entry = _Entry(where, table, _BACKEND, problems)
    gpu = _gpu(entry)
    model = _model(entry)
    name = entry.text("name")
    if name is None:
        entry.wrong("name", "is missing; it stands in every row this backend answers, such as rtx4090")
    max_model_len = entry.whole("max_model_len", gpu.max_model_len or model.context_length)
    if not model.prompt_tokens + 256 <= max_model_len <= model.context_length:
        entry.wrong(
            "max_model_len",
            f"{model.model} takes {model.prompt_tokens} tokens for a page's image and at most {model.context_length} "
            f"in all, so {max_model_len} cannot be",
        )
    return Backend(
        name=name or "",
        url=_url(entry),
        gpu=gpu,
        model=model,
        served_model=entry.text("served_model", model.model) or model.model,
        api_key=_api_key(entry, variable),
        headers=_headers(entry, variable),
        max_in_flight=entry.whole("max_in_flight", gpu.max_in_flight),
        dpi=entry.whole("dpi", gpu.dpi, least=36),
        max_pages=entry.whole_or_none("max_pages", gpu.max_pages),
        max_model_len=max_model_len,
        **{name: entry.number(name, *numbers) for name, numbers in _NUMBERS.items()},
    )


def _check_together(backends: tuple[Backend, ...], problems: list[str]) -> None:
    names = [backend.name for backend in backends]
    problems.extend(
        f"[[backend]] name: {name!r} is there {names.count(name)} times; give each its own"
        for name in sorted({name for name in names if name and names.count(name) > 1})
    )
    urls = [backend.url for backend in backends]
    problems.extend(
        f"[[backend]] url: {url} is there {urls.count(url)} times; one server is one backend, else it is given twice "
        "its number of pages"
        for url in sorted({url for url in urls if url and urls.count(url) > 1})
    )
    if len({backend.model.model for backend in backends}) > 1:
        problems.append(
            "[[backend]] model: all backends of one file serve one model, since a page is asked by one recipe; "
            "write a file for each model"
        )


def _model(entry: _Entry) -> ModelProfile:
    name = entry.text("model")
    if name is not None and name in MODELS:
        return MODELS[name]
    known = ", ".join(MODELS)
    if name is not None:
        entry.wrong(
            "model", f"no profile {name!r}; known are {known}. Where the server uses another name: served_model"
        )
    elif "model" not in entry.table:
        entry.wrong("model", f"is missing; one of {known}")
    return next(iter(MODELS.values()))


def _gpu(entry: _Entry) -> GpuProfile:
    """A profile by name, or a table of one's own numbers; what is left out there is as on the small machine."""
    stand_in = next(iter(GPUS.values()))
    value = entry.table.get("gpu")
    if isinstance(value, str) and value in GPUS:
        return GPUS[value]
    if not isinstance(value, dict):
        what = "is missing" if value is None else f"no profile {value!r}"
        entry.wrong("gpu", f"{what}; one of {', '.join(GPUS)}, or your own numbers: {_OWN_GPU_EXAMPLE}")
        return stand_in
    own = _Entry(f"{entry.where} gpu", value, _OWN_GPU, entry.problems)
    for key in _OWN_GPU_REQUIRED:
        if key not in value:
            own.wrong(key, f"is missing, as in {_OWN_GPU_EXAMPLE}")
            return stand_in
    return GpuProfile(
        name=own.text("name") or "",
        size=own.choice("size", ("small", "large"), "small"),
        max_in_flight=own.whole("max_in_flight", 1),
        dpi=own.whole("dpi", 150, least=36),
        max_pages=own.whole_or_none("max_pages", None),
        document_shares=_document_shares(own),
        max_model_len=own.whole_or_none("max_model_len", None),
        gpu_memory_utilization=own.number("gpu_memory_utilization", stand_in.gpu_memory_utilization, 0.01, 1.0),
        max_num_seqs=own.whole("max_num_seqs", stand_in.max_num_seqs),
        max_num_batched_tokens=own.whole("max_num_batched_tokens", stand_in.max_num_batched_tokens),
        max_num_queued_reqs=own.whole("max_num_queued_reqs", stand_in.max_num_queued_reqs),
        memory_gb=own.number("memory_gb", stand_in.memory_gb, 1.0, 1e6),
    )


_OWN_GPU_EXAMPLE = 'gpu = { name = "a100", size = "large", max_in_flight = 64, dpi = 150 }'


def _document_shares(own: _Entry) -> tuple[DocumentShare, ...]:
    """`[[9, 0], [30, 8], [0, 1]]`: pairs of (pages up to, pages in flight); 0 is "no limit" in both."""
    value = own.table.get("document_shares", [[0, 0]])
    pairs = [
        (pair[0], pair[1])
        for pair in (value if isinstance(value, list) else [])
        if isinstance(pair, list) and len(pair) == 2 and all(type(n) is int and n >= 0 for n in pair)
    ]
    sizes = [size or math.inf for size, _ in pairs]
    if not pairs or len(pairs) != len(value) or sizes != sorted(set(sizes)) or sizes[-1] != math.inf:
        own.wrong(
            "document_shares",
            "must be pairs of [document up to this many pages, its pages in flight], growing, the last for every "
            f"larger document, 0 for no limit, as in [[9, 0], [30, 8], [0, 1]]; not {value!r}",
        )
        return (DocumentShare(None, None),)
    return tuple(DocumentShare(size or None, at_once or None) for size, at_once in pairs)


def _url(entry: _Entry) -> str:
    value = entry.text("url")
    if value is None:
        entry.wrong("url", "is missing, as in http://gpu-a.example:8000")
        return ""
    try:
        parts = urlsplit(value)
        _ = parts.port  # raises for a port that is none
    except ValueError:  # its words may hold a part of the url, and that may be a password
        entry.wrong("url", "not an address; write it as in http://gpu-a.example:8000")
        return ""
    if parts.username is not None or parts.password is not None:
        entry.wrong("url", "must hold no user or password; put them into variables named by headers_env or api_key_env")
        return ""
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or not _sane(value):
        shown = re.split("[?#]", value)[0]  # what follows may be a token
        instead = f", not {shown!r} with what follows it" if shown != value else f", not {value!r}"
        entry.wrong("url", "must be the server's root, as in http://gpu-a.example:8000" + instead * ("@" not in value))
        return ""
    root, v1, _ = value.rstrip("/").partition("/v1")
    if v1 and re.search(r"/v1(/|\Z)", value.rstrip("/")):
        entry.wrong("url", f"must be the server's root, without /v1: {root!r}")
    return value.rstrip("/")


def _api_key(entry: _Entry, variable: Callable[[str], str | None]) -> SecretStr | None:
    name = entry.text("api_key_env")
    return _secret(entry, "api_key_env", name, variable) if name is not None else None


def _headers(entry: _Entry, variable: Callable[[str], str | None]) -> Mapping[str, SecretStr]:
    table = entry.table.get("headers_env", {})
    if not isinstance(table, dict):
        entry.wrong("headers_env", 'must be a table of header = "VARIABLE"')
        return {}
    headers: dict[str, SecretStr] = {}
    for header, name in table.items():
        key = f"headers_env {header!r}"
        if not header or not all(char.isascii() and (char.isalnum() or char in "-_") for char in header):
            entry.wrong(key, "is not a header's name; letters, digits, - and _")
        elif header.lower() in _OUR_HEADERS:
            entry.wrong(key, "is written by this program or by HTTP itself; take the line out")
        elif header.lower() == "authorization" and "api_key_env" in entry.table:
            entry.wrong(key, "stands beside api_key_env, which writes this header: keep one of the two")
        elif not isinstance(name, str) or not name:
            entry.wrong(key, "must name a variable, in quotes")
        elif secret := _secret(entry, key, name, variable):
            headers[header] = secret
    return headers


_OUR_HEADERS = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "x-request-id",
    }
)


def _secret(entry: _Entry, key: str, name: str, variable: Callable[[str], str | None]) -> SecretStr | None:
    """The variable's value. It is in no message: somebody may have put the secret where the name belongs, so that a
    name is shown only where it is written as variables are."""
    shown = name if re.fullmatch("[A-Z][A-Z0-9_]*", name) else "(not shown: not all capitals, digits and _)"
    value = variable(name) if name.isidentifier() else None
    if not value:
        entry.wrong(key, f"the variable {shown} is not set; set it, or take the line out")
        return None
    if not _sane(value):
        entry.wrong(key, f"the value of {shown} has a space, a line end or a character that no header can carry")
        return None
    return SecretStr(value)


def _sane(value: str) -> bool:
    return all("!" <= char <= "~" for char in value)
