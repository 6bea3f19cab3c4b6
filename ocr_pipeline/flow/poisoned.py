"""What is needed to reproduce a page that killed a server, kept in the lake: image, request, answers.

`poisoned/<recipe_id>/<image sha256>/` with `page.jpg`, `request.json` (the image left out) and `answers.json`.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict

from ocr_pipeline.lake import keys
from ocr_pipeline.lake.storage import Storage
from ocr_pipeline.ocr.fleet.failover import Poisoned


async def keep(storage: Storage, recipe_id: str, poisoned: Poisoned) -> None:
    """Writes the bundle; a second one of the same page takes the place of the first."""
    image = poisoned.image
    about = {
        "document_id": image.document_id,
        "page_number": image.page_number,
        "backend": poisoned.backend,
        "request": dict(poisoned.request),
    }
    files = {
        "page.jpg": image.jpeg,
        "request.json": json.dumps(about, indent=1, default=str).encode(),
        "answers.json": json.dumps([asdict(answer) for answer in poisoned.answers], indent=1, default=str).encode(),
    }
    items = [(keys.poisoned(recipe_id, image.sha256, name), data) for name, data in files.items()]
    await asyncio.to_thread(storage.write_many, items)
