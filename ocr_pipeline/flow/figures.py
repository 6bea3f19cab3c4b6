"""Figures cut out of a page image, as the regions of its transcript say: pure bytes in, bytes out."""

from __future__ import annotations

import io

from PIL import Image

from ocr_pipeline.records import Region

FIGURE_LABELS = frozenset({"image", "figure"})
MAX_FIGURES = 64  # a page: more is noise, and each is an object in the lake
_MIN_SIDE = 8  # pixels


def crop(jpeg: bytes, regions: tuple[Region, ...]) -> list[tuple[int, bytes]]:
    """`(region index, JPEG bytes)` for each figure among `regions` that is large enough to see."""
    wanted = [(index, region) for index, region in enumerate(regions) if region.label in FIGURE_LABELS][:MAX_FIGURES]
    if not wanted:
        return []
    figures = []
    with Image.open(io.BytesIO(jpeg)) as page:
        width, height = page.size
        for index, region in wanted:
            box = (
                int(region.x0 * width),
                int(region.y0 * height),
                round(region.x1 * width),
                round(region.y1 * height),
            )
            if box[2] - box[0] < _MIN_SIDE or box[3] - box[1] < _MIN_SIDE:
                continue
            out = io.BytesIO()
            page.crop(box).save(out, "JPEG", quality=85)
            figures.append((index, out.getvalue()))
    return figures
