"""JSON objects of the lake as records. One that is not what was written there is named by its key, with its mend."""

from __future__ import annotations

from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from ocr_pipeline.lake.storage import ObjectUnreadable

T = TypeVar("T")


def parse(adapter: TypeAdapter[T], key: str, data: bytes, mend: str) -> T:
    """The record in the bytes of `key`. Raises ObjectUnreadable, which says what to do: `mend`."""
    try:
        return adapter.validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        why = f"{where}: {first['msg']}" if where else first["msg"]
        raise ObjectUnreadable(f"{key} is not the JSON that was written there ({why}): {mend}") from None
