"""PDF files for the tests, made on the spot: good ones with reportlab, bad ones byte by byte."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.pdfgen.canvas import Canvas

A4 = (595.28, 841.89)
HELVETICA = b"/Font<</F<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>>>"


def book(
    path: Path,
    lines: Iterable[Sequence[str]],
    size: tuple[float, float] = A4,
    title: str | None = None,
    encrypt: StandardEncryption | None = None,
) -> Path:
    """A page for each list of lines."""
    canvas = Canvas(str(path), pagesize=size, encrypt=encrypt, invariant=True)
    if title is not None:
        canvas.setTitle(title)
    for page in lines:
        canvas.setFont("Helvetica", 12)
        for row, line in enumerate(page):
            canvas.drawString(40, size[1] - 60 - 16 * row, line)
        canvas.showPage()
    canvas.save()
    return path


def drawn(path: Path, draw: Callable[[Canvas], None], size: tuple[float, float] = A4) -> Path:
    canvas = Canvas(str(path), pagesize=size, invariant=True)
    draw(canvas)
    canvas.showPage()
    canvas.save()
    return path


def stream(data: bytes, entries: bytes = b"", *, compress: bool = False) -> bytes:
    if compress:
        data, entries = zlib.compress(data, 9), entries + b"/Filter/FlateDecode"
    return b"<</Length %d%s>>stream\n" % (len(data), entries) + data + b"\nendstream"


def raw(objects: Sequence[bytes], trailer: bytes = b"") -> bytes:
    """A PDF of these objects, numbered from 1; the first is the catalog."""
    out, offsets = b"%PDF-1.7\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n" % number + body + b"\nendobj\n"
    table = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return out + b"trailer<</Size %d/Root 1 0 R%s>>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, trailer, table)


def pages(entries: Sequence[bytes], contents: Sequence[bytes], extra: Sequence[bytes] = (), count: int = -1) -> bytes:
    """A PDF with a page for each of `entries` (what stands in the page's dictionary) and `contents` (its stream).

    Objects of `extra` are numbered from 3 + 2 * pages.
    """
    kids = b" ".join(b"%d 0 R" % (3 + 2 * index) for index in range(len(entries)))
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[%s]/Count %d>>" % (kids, len(entries) if count < 0 else count),
    ]
    for index, (entry, content) in enumerate(zip(entries, contents, strict=True)):
        objects += [b"<</Type/Page/Parent 2 0 R/Contents %d 0 R%s>>" % (4 + 2 * index, entry), content]
    return raw([*objects, *extra])


def corner(width: float, height: float) -> bytes:
    """Content that is black in the top left corner of a page and nowhere else."""
    return stream(b"0 g 0 %.3f %.3f %.3f re f" % (height * 0.75, width * 0.25, height * 0.25))


TEXT_PAGE = b"/MediaBox[0 0 300 400]/Resources<<%s>>" % HELVETICA
TEXT = stream(b"BT /F 24 Tf 30 200 Td (Some words) Tj ET")


def slow_page(first_extra: int) -> tuple[bytes, bytes]:
    """A page's dictionary and content that take either library minutes: a tiling with 5e11 tiles. `SLOW_PATTERN` must
    be object number `first_extra`."""
    entry = b"/MediaBox[0 0 595 842]/Resources<</Pattern<</P %d 0 R>>>>" % first_extra
    return entry, stream(b"/Pattern cs /P scn 0 0 595 842 re f")


SLOW_PATTERN = stream(
    b"0 0 1 1 re f",
    b"/Type/Pattern/PatternType 1/PaintType 1/TilingType 1/BBox[0 0 1 1]/XStep 0.001/YStep 0.001/Resources<<>>",
)


def zeros(megabytes: int) -> bytes:
    """That many megabytes of zeros, deflated: one megabyte, repeated as it stands."""
    deflate = zlib.compressobj(9)
    start = deflate.compress(b"") + deflate.flush(zlib.Z_FULL_FLUSH)
    block = deflate.compress(bytes(1 << 20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    checksum = (megabytes << 20) % 65521 << 16 | 1  # Adler-32 of zeros
    return start + block * megabytes + b"\x03\x00" + checksum.to_bytes(4)
