"""Small PDFs with known pages, for tests."""

from __future__ import annotations

import io
from collections.abc import Sequence

from reportlab.lib.pagesizes import A4
from reportlab.pdfgen.canvas import Canvas


def pdf(pages: Sequence[str], title: str = "test") -> bytes:
    """One page a text, several lines a text; an empty text is a blank page. The same texts give the same bytes."""
    out = io.BytesIO()
    canvas = Canvas(out, pagesize=A4, invariant=1)
    canvas.setTitle(title)
    for text in pages:
        canvas.setFont("Helvetica", 12)
        for row, line in enumerate(text.splitlines()):
            canvas.drawString(72, 770 - 16 * row, line)
        canvas.showPage()
    canvas.save()
    return out.getvalue()


def numbered(count: int, name: str = "document") -> bytes:
    """`count` pages that each say which they are."""
    return pdf([f"This is page {number} of {name}.\nIt has two lines of text." for number in range(1, count + 1)])
