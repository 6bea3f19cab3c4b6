"""The name of a recipe: one hash of everything that was asked for.

Here belongs only the hash. What goes into it is known to each transcriber: model, prompt, sampling, quality ladder,
image geometry; never what answered, and never how the answer is parsed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def recipe_id(asked: Mapping[str, Any]) -> str:
    """First 16 hex digits of the SHA-256 of `asked` as JSON with sorted keys.

    Raises `TypeError` for a value that JSON has no form for, `ValueError` for NaN and infinity: their text is not
    agreed upon between programs.
    """
    canonical = json.dumps(asked, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()[:16]
