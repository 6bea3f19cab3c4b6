"""300 pages and more from the programs that make the world's PDFs, held against pdfinfo and not against ourselves.

    python benchmarks/producers.py [--pages 320] [--keep FOLDER]

Makes PDFs with every producer that is installed (Debian: libreoffice-writer-nogui texlive-latex-base ghostscript
librsvg2-bin groff qpdf img2pdf mupdf-tools chromium; reportlab and Pillow are in the development tools), ingests the
folder with simulated vLLM servers, and compares each document's pages with what pdfinfo counts; then ingests it again:
no request, no changed row. Prints a table, writes benchmarks/results/producers.json; exit code 1 where pages differ.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw

from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline_tests.pdfs import numbered
from ocr_pipeline_tests.simulator.fleet import Fleet

RESULTS = Path(__file__).parent / "results"
LINE = "Page {page} of a document made by {producer}. It says what pages say, and then it says a little more."


def sh(*command: str, cwd: Path, data: bytes | None = None) -> bytes:
    done = subprocess.run(command, cwd=cwd, input=data, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr[-300:].decode(errors='replace')}")
    return done.stdout


def paragraphs(producer: str, pages: int) -> list[str]:
    return [LINE.format(page=page, producer=producer) for page in range(1, pages + 1)]


def reportlab(folder: Path, pages: int) -> None:
    (folder / "reportlab.pdf").write_bytes(numbered(pages, "reportlab"))


def pillow_scan(folder: Path, pages: int) -> None:
    images = []
    for text in paragraphs("a scanner", pages):
        image = Image.new("L", (850, 1100), 250)
        draw = ImageDraw.Draw(image)
        for row in range(20):
            draw.text((80, 80 + 40 * row), text, fill=20, font_size=18)
        images.append(image.rotate(0.5, fillcolor=250))
    images[0].save(folder / "pillow-scan.pdf", save_all=True, append_images=images[1:], resolution=100)


def img2pdf(folder: Path, pages: int) -> None:
    files = []
    for page, text in enumerate(paragraphs("img2pdf", pages)):
        image = Image.new("RGB", (1240, 1754), "white")
        ImageDraw.Draw(image).text((100, 100), text, fill="black", font_size=28)
        path = folder / f"img2pdf-{page}.jpg"
        image.save(path, quality=80)
        files.append(path.name)
    sh("img2pdf", *files, "-o", "img2pdf.pdf", cwd=folder)
    for name in files:
        (folder / name).unlink()


def chromium(folder: Path, pages: int) -> None:
    body = "".join(f"<p style='page-break-after:always'>{text}</p>" for text in paragraphs("Chromium", pages - 1))
    (folder / "page.html").write_text(f"<meta charset=utf-8>{body}<p>the last page")
    with tempfile.TemporaryDirectory() as profile:
        quiet = ("background-networking", "sync", "component-update", "gpu")
        flags = ["--headless", "--no-sandbox", "--no-first-run", *(f"--disable-{name}" for name in quiet)]
        flags += [f"--user-data-dir={profile}", "--no-pdf-header-footer", f"--print-to-pdf={folder / 'chromium.pdf'}"]
        sh("chromium", *flags, (folder / "page.html").as_uri(), cwd=folder)
    (folder / "page.html").unlink()


def libreoffice(folder: Path, pages: int) -> None:
    body = "".join(f"<p style='page-break-before:always'>{text}</p>" for text in paragraphs("LibreOffice", pages))
    (folder / "libreoffice.html").write_text(f"<meta charset=utf-8>{body}")
    with tempfile.TemporaryDirectory() as profile:
        sh("soffice", f"-env:UserInstallation=file://{profile}", "--headless", "--convert-to",
           "pdf:writer_web_pdf_Export", "libreoffice.html", cwd=folder)  # fmt: skip
    (folder / "libreoffice.html").unlink()


def pdftex(folder: Path, pages: int) -> None:
    body = "\n\\newpage\n".join(
        f"\\section{{A page}}\n{text} $\\int_0^1 x^2 dx$" for text in paragraphs("pdfTeX", pages)
    )
    (folder / "pdftex.tex").write_text(f"\\documentclass{{article}}\\begin{{document}}{body}\\end{{document}}")
    sh("pdflatex", "-interaction=batchmode", "pdftex.tex", cwd=folder)
    for path in folder.glob("pdftex.*"):
        if path.suffix != ".pdf":
            path.unlink()


def ghostscript(folder: Path, pages: int) -> None:
    pages_ps = "".join(f"72 700 moveto ({text}) show showpage\n" for text in paragraphs("Ghostscript", pages))
    (folder / "gs.ps").write_text(f"%!PS\n/Times-Roman findfont 12 scalefont setfont\n{pages_ps}")
    sh("ps2pdf", "gs.ps", "ghostscript.pdf", cwd=folder)
    (folder / "gs.ps").unlink()


def cairo(folder: Path, pages: int) -> None:
    names = []
    for page, text in enumerate(paragraphs("cairo", pages)):
        svg = (
            f"<svg xmlns='http://www.w3.org/2000/svg' width='595' height='842'><text x='50' y='80'>{text}</text></svg>"
        )
        (folder / f"cairo-{page}.svg").write_text(svg)
        names.append(f"cairo-{page}.svg")
    sh("rsvg-convert", "-f", "pdf", "-o", "cairo.pdf", *names, cwd=folder)
    for name in names:
        (folder / name).unlink()


def groff(folder: Path, pages: int) -> None:
    text = "\n.bp\n".join(paragraphs("groff", pages))
    (folder / "groff.pdf").write_bytes(sh("groff", "-Tpdf", "-ms", cwd=folder, data=text.encode()))


def qpdf(folder: Path, pages: int) -> None:
    """The same kind of document encrypted with an empty user password, in object streams, linearised."""
    (folder / "plain.tmp").write_bytes(numbered(pages, "qpdf"))
    sh("qpdf", "--linearize", "--object-streams=generate", "--encrypt", "", "owner", "256", "--", "plain.tmp",
       "qpdf-encrypted-for-nobody.pdf", cwd=folder)  # fmt: skip
    (folder / "plain.tmp").unlink()


def mupdf(folder: Path, pages: int) -> None:
    (folder / "plain.tmp.pdf").write_bytes(numbered(pages, "mupdf"))
    sh("mutool", "clean", "-gggg", "-z", "plain.tmp.pdf", "mupdf.pdf", cwd=folder)
    (folder / "plain.tmp.pdf").unlink()


PRODUCERS: dict[str, tuple[str, Callable[[Path, int], None]]] = {
    "reportlab": (sys.executable, reportlab),
    "Pillow (scan)": (sys.executable, pillow_scan),
    "img2pdf": ("img2pdf", img2pdf),
    "Chromium": ("chromium", chromium),
    "LibreOffice": ("soffice", libreoffice),
    "pdfTeX": ("pdflatex", pdftex),
    "Ghostscript": ("ps2pdf", ghostscript),
    "cairo": ("rsvg-convert", cairo),
    "groff": ("groff", groff),
    "qpdf": ("qpdf", qpdf),
    "MuPDF": ("mutool", mupdf),
}


def make(folder: Path, pages: int) -> list[str]:
    """PDFs of all producers that are installed; returns their names."""
    found = [name for name, (program, _) in PRODUCERS.items() if shutil.which(program)]
    for name in found:
        PRODUCERS[name][1](folder, -(-pages // len(found)))
    return found


def pdfinfo(path: Path) -> int:
    out = sh("pdfinfo", str(path), cwd=path.parent).decode(errors="replace")
    return int(next(line.split(":")[1] for line in out.splitlines() if line.startswith("Pages:")))


def ingest(folder: Path, data: Path, backends: Path) -> tuple[int, dict[str, object]]:
    done = subprocess.run(
        [sys.executable, "-m", "ocr_pipeline", "ingest", str(folder), "--json"],
        env={**os.environ, "OCR_DATA": str(data), "OCR_BACKENDS": str(backends)},
        stdout=subprocess.PIPE, check=False,
    )  # fmt: skip
    return done.returncode, json.load(io.BytesIO(done.stdout))


def rows(data: Path) -> list[list[tuple[object, ...]]]:
    with Warehouse(str(data / "warehouse.duckdb")).read() as connection:
        tables = ("documents", "pages", "regions", "attempts")
        return [connection.execute(f"FROM ocr.{name} ORDER BY ALL").fetchall() for name in tables]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=320)
    parser.add_argument("--keep", type=Path, help="where the PDFs and results stay")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ocr_pipeline-producers-") as scratch:
        root = asked.keep or Path(scratch)
        folder, data = root / "producers", root / "data"
        folder.mkdir(parents=True, exist_ok=True)
        names = make(folder, asked.pages)
        fast = {"seconds_per_page": 0.05, "max_num_seqs": 8, "mean_tokens": 100}
        with Fleet(rtx4090={"profile": "rtx-4090", **fast}, spark={"profile": "dgx-spark", **fast}) as fleet:
            (root / "backends.toml").write_text(fleet.backends_toml())
            code, said = ingest(folder, data, root / "backends.toml")
            before, requests = rows(data), sum(tally.requests for tally in fleet.stats().values())
            again, _ = ingest(folder, data, root / "backends.toml")
            after, more = rows(data), sum(tally.requests for tally in fleet.stats().values())
        with Warehouse(str(data / "warehouse.duckdb")).read() as connection:
            ours = dict(connection.execute(
                "SELECT parse_filename(source_uri), count(page_number) FROM ocr.documents LEFT JOIN ocr.pages "
                "USING (document_id) GROUP BY ALL").fetchall())  # fmt: skip
        table = {path.name: (pdfinfo(path), ours.get(path.name, 0)) for path in sorted(folder.glob("*.pdf"))}
    print(f"{'document':36} {'pdfinfo':>8} {'rows':>8}")
    for name, (theirs, mine) in table.items():
        print(f"{name:36} {theirs:8} {mine:8}{'' if theirs == mine else '   DIFFERS'}")
    total = sum(theirs for theirs, _ in table.values())
    print(f"{len(names)} producers, {total} pages by pdfinfo, {said['pages']} reported, exit {code}; second run: exit "
          f"{again}, {more - requests} requests, rows {'unchanged' if before == after else 'CHANGED'}")  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    result = {"producers": names, "documents": table, "said": said, "second_run_requests": more - requests}
    (RESULTS / "producers.json").write_text(json.dumps(result, indent=1))
    good = all(theirs == mine for theirs, mine in table.values()) and said["pages"] == total
    return 0 if good and more == requests and before == after else 1


if __name__ == "__main__":
    sys.exit(main())
