"""Every setting, read from the environment (and a `.env` file) here and nowhere else.

The rooms `lake`, `pdf`, `ocr` and `warehouse` never import this module: they are given the values they need. `doctor`
prints what is in force and where each value came from. A new setting is a field here, and a line in the README's table,
which its test writes.
"""

from __future__ import annotations

import difflib
import os
import re
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ocr_pipeline.lake import keys


class Listing(StrEnum):
    """How new uploads are found."""

    SWEEP = "sweep"  # whole inbox, watermark on last-modified
    ORDERED = "ordered"  # keys that sort by time, listed after the last one
    QUEUE = "queue"  # R2 event notifications, pulled from a Cloudflare Queue


class TextLayer(StrEnum):
    """What the PDF's own text is used for, beside measuring agreement."""

    FALLBACK = "fallback"  # when the engine fails on a page and the layer is sound
    PREFER = "prefer"  # a page whose layer is sound by a measured test costs no engine
    NEVER = "never"


class CpuEngine(StrEnum):
    AUTO = "auto"  # rapidocr, which measured best (`ocr/cpu.py`)
    RAPIDOCR = "rapidocr"
    TESSERACT = "tesseract"
    TEXT_LAYER = "text_layer"  # no OCR at all: what born-digital PDFs say of themselves


def _env(name: str, **kwargs: Any) -> Any:
    return Field(validation_alias=AliasChoices(name), **kwargs)


WAREHOUSE = "warehouse.duckdb"

RESEMBLES = 0.84
"""Of difflib: OCR_LAEK and R2_ENDPOINT resemble a setting, Compose's own OCR_BACKENDS_FILE does not."""

_YEAR = 366 * 24 * 3600.0  # seconds
_CENTURY = 36_525  # days; a time longer ago than the calendar reaches ends a run with an OverflowError


class Settings(BaseSettings):
    """All settings. Sizes in bytes, times in seconds."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        allow_inf_nan=False,
    )

    data: Path = _env("OCR_DATA", default=Path("data"), description="root of the embedded defaults")
    lake: str = _env("OCR_LAKE", default="", description="local folder or s3://bucket/prefix")
    inbox: str = _env("OCR_INBOX", default="inbox/", description="prefix of uploads in the lake")
    warehouse: str = _env("OCR_WAREHOUSE", default="", description="DuckDB file, or md:name")
    motherduck_token: SecretStr | None = _env(
        "MOTHERDUCK_TOKEN",
        default=None,
        description="needed for md:; without it an error at once, never a browser login",
    )

    r2_endpoint_url: str | None = _env(
        "R2_ENDPOINT_URL", default=None, description="of R2 or another S3 store; or give R2_ACCOUNT_ID"
    )
    r2_account_id: str | None = _env("R2_ACCOUNT_ID", default=None, description="Cloudflare account of the bucket")
    r2_jurisdiction: str | None = _env(
        "R2_JURISDICTION", default=None, description="eu or fedramp, for buckets made there"
    )
    r2_access_key_id: SecretStr | None = _env("R2_ACCESS_KEY_ID", default=None, description="of an R2 API token")
    r2_secret_access_key: SecretStr | None = _env("R2_SECRET_ACCESS_KEY", default=None, description="of the same token")
    r2_region: str = _env("R2_REGION", default="auto", description="other S3 stores want their own")

    backends: Path | None = _env("OCR_BACKENDS", default=None, description="TOML file that lists the GPU servers")
    cpu_engine: CpuEngine = _env(
        "OCR_CPU_ENGINE", default=CpuEngine.AUTO, description="auto, rapidocr, tesseract, or text_layer (no OCR at all)"
    )
    text_layer: TextLayer = _env(
        "OCR_TEXT_LAYER",
        default=TextLayer.FALLBACK,
        description="use of a PDF's own text where it is sound: fallback (OCR fails), prefer (no GPU is asked), never",
    )
    outage_wait: float = _env(
        "OCR_OUTAGE_WAIT",
        default=900.0,
        ge=0,
        le=_YEAR,
        description="seconds to wait with all GPU servers down, then the CPU engine",
    )

    listing: Listing = _env(
        "OCR_LISTING", default=Listing.SWEEP, description="how uploads are found: sweep, ordered, queue"
    )
    listing_overlap: float = _env(
        "OCR_LISTING_OVERLAP",
        default=3600.0,
        ge=0,
        le=_YEAR,
        description="seconds to look back in a bucket; must be longer than the slowest upload",
    )
    settle_seconds: float = _env(
        "OCR_SETTLE_SECONDS",
        default=2.0,
        ge=0,
        le=_YEAR,
        description="local inbox: seconds that a file must be unchanged",
    )
    sensor_seconds: int = _env(
        "OCR_SENSOR_SECONDS", default=5, ge=5, description="seconds between two scans of the inbox"
    )
    batches_per_tick: int = _env("OCR_BATCHES_PER_TICK", default=20, ge=1, description="batches cut in one scan")
    batch_documents: int = _env("OCR_BATCH_DOCUMENTS", default=200, ge=1, description="documents in one batch, at most")
    batch_bytes: int = _env(
        "OCR_BATCH_BYTES", default=2 * 1024**3, ge=1, description="bytes of PDFs in one batch, at most"
    )
    queue_id: str | None = _env("OCR_QUEUE_ID", default=None, description="Cloudflare Queue with the R2 events")
    queue_token: SecretStr | None = _env(
        "OCR_QUEUE_TOKEN", default=None, description="API token: Queues read and write"
    )
    queue_api_url: str = _env(
        "OCR_QUEUE_API_URL", default="https://api.cloudflare.com/client/v4", description="Cloudflare's API"
    )

    max_pdf_bytes: int = _env("OCR_MAX_PDF_BYTES", default=1024**3, ge=1, description="a larger file is rejected")
    max_pages: int = _env("OCR_MAX_PAGES", default=5000, ge=1, description="a PDF with more pages is rejected")
    max_page_inches: float = _env(
        "OCR_MAX_PAGE_INCHES", default=100.0, gt=0, description="a page with a longer side is skipped"
    )
    render_seconds: float = _env(
        "OCR_RENDER_SECONDS", default=60.0, gt=0, le=86_400, description="seconds to draw one page, or to open a PDF"
    )
    render_memory: int = _env(
        "OCR_RENDER_MEMORY", default=1024**3, ge=1, le=1024**4, description="bytes of address space of a render process"
    )
    render_workers: int = _env(
        "OCR_RENDER_WORKERS",
        default=0,
        ge=0,
        le=256,
        description="processes that draw pages; 0: one per core, at most 4",
    )
    keep_images_days: int | None = _env(
        "OCR_KEEP_IMAGES_DAYS", default=None, ge=1, le=_CENTURY, description="days to keep page images; unset: for ever"
    )
    keep_recipes_days: int | None = _env(
        "OCR_KEEP_RECIPES_DAYS",
        default=None,
        ge=1,
        le=_CENTURY,
        description="days to keep transcripts of recipes no longer in use; unset: for ever",
    )

    dagster_home: Path | None = _env("DAGSTER_HOME", default=None, description="where Dagster keeps its history")
    fresh_hours: float | None = _env(
        "OCR_FRESH_HOURS",
        default=None,
        le=24 * _CENTURY,
        description="hours after which tables are stale in Dagster, a minute (0.0167) at least; unset: never",
    )
    review_url: str | None = _env(
        "OCR_REVIEW_URL", default=None, description="root of the review app, for links in Dagster"
    )
    alert_webhook: SecretStr | None = _env(
        "OCR_ALERT_WEBHOOK", default=None, description="URL that gets a POST for each failed run; unset: none"
    )

    @field_validator("fresh_hours")
    @classmethod
    def _at_least_a_minute(cls, value: float | None) -> float | None:
        if value is not None and value < 1 / 60:
            raise ValueError("must be at least a minute, 0.0167 hours: Dagster takes no shorter time")
        return value

    @field_validator("inbox")
    @classmethod
    def _prefix(cls, value: str) -> str:
        parts = value.strip("/").split("/")
        if not value.strip("/") or ".." in parts or "." in parts:
            raise ValueError("OCR_INBOX must be a prefix inside the lake, such as inbox/")
        if f"{parts[0]}/" in keys.OURS:
            raise ValueError(
                f"OCR_INBOX must not lie in {parts[0]}/, where the pipeline keeps its own objects: take another prefix"
            )
        return "/".join(parts) + "/"

    @field_validator("lake")
    @classmethod
    def _folder_or_url(cls, value: str) -> str:
        if re.match(r"(s3|r2|gs|https?)(:(?!//[^/])|//)", value, re.IGNORECASE):
            # as a path it would be a folder beside the program, and nobody would miss the bucket
            raise ValueError(f"must be a local folder or s3://bucket/prefix, not {value!r}")
        return value

    @field_validator("review_url")
    @classmethod
    def _root_of_review(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)  # raises ValueError itself for half an address in brackets
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
            raise ValueError("must be the root of the review app, such as https://review.example")
        return f"{parts.scheme}://{parts.netloc}"

    @model_validator(mode="before")
    @classmethod
    def _empty_is_unset(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if value != ""}

    @model_validator(mode="after")
    def _defaults_below_data(self) -> Settings:
        data = self.data.expanduser().absolute()
        object.__setattr__(self, "data", data)
        if self.backends is not None:
            object.__setattr__(self, "backends", self.backends.expanduser().absolute())
        object.__setattr__(self, "lake", _place(self.lake) if self.lake else str(data / "lake"))
        object.__setattr__(self, "warehouse", _place(self.warehouse) if self.warehouse else str(data / WAREHOUSE))
        return self

    @property
    def claims(self) -> Path:
        """Where processes of this machine say which batches they work on."""
        return self.data / "claims"

    @classmethod
    def misspelt(cls) -> dict[str, str]:
        """Variables that are no setting, and the setting whose name each resembles: it would be passed over."""
        known = [
            str(info.validation_alias.choices[0])
            for info in cls.model_fields.values()
            if isinstance(info.validation_alias, AliasChoices)
        ]
        given = {*os.environ, *dotenv_values(".env")} - {*known}
        ours = sorted(name for name in given if name.startswith(("OCR_", "R2_", "MOTHERDUCK_")))
        meant = {name: difflib.get_close_matches(name, known, n=1, cutoff=RESEMBLES) for name in ours}
        return {name: close[0] for name, close in meant.items() if close}

    def in_force(self) -> dict[str, tuple[str, str]]:
        """Each setting with its value (secrets masked) and where it came from, for people."""
        from_file = dotenv_values(".env")
        found = {}
        for field, info in type(self).model_fields.items():
            alias = info.validation_alias
            name = str(alias.choices[0]) if isinstance(alias, AliasChoices) else field
            source = "environment" if os.environ.get(name) else ".env" if from_file.get(name) else "default"
            value = getattr(self, field)
            found[name] = ("" if value is None else str(value), source)
        return found


def _place(value: str) -> str:
    """A path made absolute, `~` too, once and for all who use it; a URL and `md:` stay as they are."""
    if "://" in value or value.startswith("md:") or value == ":memory:":
        return value
    return str(Path(value).expanduser().absolute())


def variable(name: str) -> str | None:
    """The value of a variable that another setting names (API keys in the backends file); None where it is unset."""
    return os.environ.get(name) or dotenv_values(".env").get(name) or None
