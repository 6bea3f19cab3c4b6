"""Filters of the lists, from a query string: what is no day and no number is left out, as if it had not been there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date

from ocr_pipeline.warehouse.document_list import DocumentFilter
from ocr_pipeline.warehouse.page_list import PageFilter

_LONGEST = 1000  # characters


def document_filter(query: Mapping[str, str]) -> DocumentFilter:
    return DocumentFilter(
        name=_text(query, "name"),
        status=_text(query, "status"),
        reason=_text(query, "reason"),
        backend=_text(query, "backend"),
        batch=_text(query, "batch"),
        since=_day(query, "since"),
        until=_day(query, "until"),
        quality_below=_share(query, "quality_below"),
    )


def page_filter(query: Mapping[str, str]) -> PageFilter:
    return PageFilter(
        name=_text(query, "name"),
        status=_text(query, "status"),
        reason=_text(query, "reason"),
        backend=_text(query, "backend"),
        batch=_text(query, "batch"),
        since=_day(query, "since"),
        until=_day(query, "until"),
        agreement_from=_share(query, "agreement_from"),
        agreement_to=_share(query, "agreement_to"),
    )


def _text(query: Mapping[str, str], name: str) -> str | None:
    return query.get(name, "")[:_LONGEST] or None


def _day(query: Mapping[str, str], name: str) -> date | None:
    try:
        return date.fromisoformat(query.get(name, ""))
    except ValueError:
        return None


def _share(query: Mapping[str, str], name: str) -> float | None:
    try:
        value = float(query.get(name, ""))
    except ValueError:
        return None
    return value if math.isfinite(value) else None
