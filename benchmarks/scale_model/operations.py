"""How many requests R2 is sent, by kind: so many a page, a document, a batch. `check.py` counts them on a real run.

Class A (writes and lists) costs twelve times what class B (reads) does; deletes are free.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

Kind = tuple[str, str]  # class and kind, as `counting.classified` gives them


@dataclass(frozen=True, slots=True)
class Work:
    documents: float
    pages: float
    batches: float
    figures: float = 0.0  # cut out of pages
    commands: int = 0  # calls of `ocr-pipeline ingest` that put the documents; 0: others did, the sensor sees them
    lists: float = 0.0  # requests of the sensor for lists of the inbox


A_PAGE: Mapping[Kind, float] = {
    ("A", "write pages/*.jpg"): 1,
    ("A", "write transcripts/*.json"): 1,
    ("B", "read transcripts/*.json"): 1,  # is there one already?
}
A_DOCUMENT: Mapping[Kind, float] = {
    ("A", "write inbox/*.pdf"): 1,  # the upload itself
    ("A", "write markdown/*.md"): 1,
    ("A", "write pages/rendered.json"): 1,
    ("A", "write pages/reading.json"): 1,
    ("B", "look at inbox/*.pdf"): 2,
    ("B", "read inbox/*.pdf"): 1,
    ("B", "read pages/rendered.json"): 2,
    ("B", "read pages/reading.json"): 1,
}
A_BATCH: Mapping[Kind, float] = {
    ("A", "write batches/*.json"): 1,
    ("A", "write tables/*.parquet"): 4,
    ("A", "write tables/*.json"): 1,
    ("A", "list pages/"): 1,
    ("B", "read batches/*.json"): 5,
    ("B", "read tables/*.json"): 3,
    ("B", "read tables/*.parquet"): 9,
    ("B", "read pages/*.jpg"): 1,  # the preview of a page, for Dagster's UI
    ("B", "read markdown/*.md"): 1,
}
BY_COMMAND: Mapping[Kind, float] = {("B", "look at inbox/*.pdf"): 3}  # a document: before and after it is put
A_COMMAND: Mapping[Kind, float] = {("A", "list batches/"): 3}


def operations(work: Work) -> Counter[Kind]:
    """Requests of each kind, fractions where the work is an average."""
    found: Counter[Kind] = Counter()
    parts = [(A_PAGE, work.pages), (A_DOCUMENT, work.documents), (A_BATCH, work.batches)]
    if work.commands:
        parts += [(BY_COMMAND, work.documents), (A_COMMAND, work.commands)]
    for kinds, times in parts:
        for kind, count in kinds.items():
            found[kind] += count * times  # type: ignore[assignment]
    found["A", "write markdown/*.jpg"] += work.figures  # type: ignore[assignment]
    found["A", "list inbox/"] += work.lists  # type: ignore[assignment]
    return +found


def of_class(found: Mapping[Kind, float], name: str) -> float:
    return sum(count for (group, _), count in found.items() if group == name)
