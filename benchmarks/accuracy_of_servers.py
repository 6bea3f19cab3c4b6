"""Character errors of what servers read of the samples: `python -m benchmarks.accuracy_of_servers DATA…`.

Each DATA is an OCR_DATA folder of its own into which one server read `ocr_pipeline/samples`: deploy/gpu/README.md
has the commands. A folder each, since weights that are served under the model's name have the model's recipe: in one
lake the second server would be asked for nothing. Here belongs the comparison with the known text only.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.character_errors import character_error_rate, plain_text
from ocr_pipeline import samples
from ocr_pipeline.warehouse.connection import Warehouse

_PAGES = "SELECT source_uri, page_number, status, markdown, seconds, attempts FROM ocr.current_pages"


@dataclass(frozen=True, slots=True)
class PageRead:
    """A sample's page as one server read it. `errors`: wrong characters by characters of the known text, 1 for none."""

    errors: float
    status: str
    seconds: float | None
    attempts: int


def read_of(data: Path) -> dict[tuple[str, int], PageRead]:
    """By sample and page number. Raises WarehouseError; SystemExit where no sample was ingested."""
    warehouse = Warehouse(str(data / "warehouse.duckdb"))
    known = {path.name: samples.known_text(path) for path in samples.paths() if samples.expected()[path.name]["pages"]}
    with warehouse.read() as connection:
        rows = connection.execute(_PAGES).fetchall()
    found = {}
    for uri, number, status, markdown, seconds, attempts in rows:
        texts = known.get(Path(uri).name, [])
        if number <= len(texts) and texts[number - 1].strip():
            errors = character_error_rate(plain_text(markdown), texts[number - 1]) if markdown else 1.0
            found[Path(uri).name, number] = PageRead(min(errors, 1.0), status, seconds, attempts)
    if not found:
        raise SystemExit(
            f"{data}: no page of a sample is in its tables; ingest ocr_pipeline/samples with OCR_DATA={data}"
        )
    return found


def table(read: dict[str, dict[tuple[str, int], PageRead]]) -> str:
    """A line a page, a column a folder: errors in percent, seconds, requests; then the means of the pages all have."""
    common = sorted(set.intersection(*(set(pages) for pages in read.values())))
    lines = [f"{'page':<28}" + "".join(f"{name:>16} CER %  s  requests" for name in read)]
    for key in common:
        cells = (pages[key] for pages in read.values())
        lines.append(
            f"{key[0]} {key[1]}".ljust(28)
            + "".join(f"{100 * p.errors:>22.2f}{p.seconds or 0:>7.1f}{p.attempts:>6}  " for p in cells)
        )
    means = (sum(pages[key].errors for key in common) / len(common) for pages in read.values())
    return "\n".join([*lines, f"{'mean':<28}" + "".join(f"{100 * mean:>22.2f}{'':>15}" for mean in means)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path, metavar="DATA")
    folders = parser.parse_args().data
    read = {folder.name: read_of(folder) for folder in folders}
    print(table(read))
    if len({frozenset(pages) for pages in read.values()}) > 1:
        print("some pages are not in every folder: left out", file=sys.stderr)


if __name__ == "__main__":
    main()
