"""Sample PDFs with known text: what the demo runs on and what the tests measure against.

Here belongs where the samples are and what is expected of each. Making them is `make.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent


def paths() -> list[Path]:
    """The sample PDFs, by name. The known text of each lies beside it as `<name>.txt`, where it has pages."""
    return sorted(_FOLDER.glob("*.pdf"))


def expected() -> dict[str, Any]:
    """How each sample must end, by file name: `{"status": …, "reason": … or None, "pages": [status of each page]}`."""
    loaded: dict[str, Any] = json.loads((_FOLDER / "expected.json").read_text(encoding="utf-8"))
    return loaded


def known_text(pdf: Path) -> list[str]:
    """The text of each page of a sample in reading order, paragraphs apart by an empty line; "" for a blank page."""
    return [page.strip("\n") for page in pdf.with_suffix(".txt").read_text(encoding="utf-8").split("\f")]
