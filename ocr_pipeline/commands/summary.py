"""What became of some uploads, from the batches that hold them: the object that `--json` prints, and its table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ocr_pipeline.commands.counted import counted
from ocr_pipeline.printable import printable
from ocr_pipeline.records import DocumentResult, DocumentStatus, PageStatus, Reason

SHOWN = 60  # documents in the table for people
COLUMNS = ("status", "pages", "ok", "blank", "fallback", "failed", "read by", "s/page", "agreement")
WIDE = 110  # characters of a terminal that has room for all columns beside the documents' names
ONLY_WIDE = ("blank", "fallback", "agreement")
MARKS = {"ok": "green", "partial": "yellow", "failed": "red", "rejected": "red"}


@dataclass(frozen=True, slots=True)
class Failure:
    """A source that has no rows: a file that could not be taken, or a document whose batch failed as a whole."""

    source: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class Summary:
    """Documents and pages as they stand, with every failure listed."""

    documents: int
    pages: int
    by_status: Mapping[str, int]
    failed: Sequence[Mapping[str, Any]]
    batches: Sequence[str]
    seconds: float = 0.0
    results: Sequence[DocumentResult] = field(default=(), repr=False)

    @property
    def exit_code(self) -> int:
        return 1 if self.failed else 0

    def as_json(self) -> dict[str, Any]:
        return {
            "documents": self.documents,
            "pages": self.pages,
            "by_status": dict(self.by_status),
            "failed": list(self.failed),
            "seconds": round(self.seconds, 3),
            "batches": list(self.batches),
        }


def summarise(
    results: Sequence[DocumentResult], batches: Collection[str], seconds: float, without_rows: Sequence[Failure] = ()
) -> Summary:
    failed: list[Mapping[str, Any]] = [
        {"source": one.source, "page": None, "reason": str(one.reason)}
        for one in sorted(without_rows, key=lambda one: one.source)
    ]
    by_status: Counter[str] = Counter()
    for result in results:
        document = result.document
        if document.status is DocumentStatus.REJECTED:
            failed.append({"source": document.source_uri, "page": None, "reason": str(document.reason)})
        for page in result.pages:
            by_status[page.status.value] += 1
            if page.status.is_bad:
                failed.append({"source": document.source_uri, "page": page.page_number, "reason": str(page.reason)})
    return Summary(
        documents=len(results),
        pages=sum(by_status.values()),
        by_status=dict(sorted(by_status.items())),
        failed=failed,
        batches=sorted(batches),
        seconds=seconds,
        results=results,
    )


def show(summary: Summary, console: Console) -> None:
    """The table of documents for people, then the totals; all failures are in it even when it is cut."""
    if summary.results:
        _show_documents(summary, console)
    totals = ", ".join(f"{count} {status}" for status, count in summary.by_status.items()) or "none"
    console.print(
        f"{counted(summary.documents, 'document')}, {counted(summary.pages, 'page')}: {totals}; {summary.seconds:.1f} s"
    )
    if summary.failed:
        console.print(Text(f"{len(summary.failed)} failed or rejected:", style="red"))
        for entry in summary.failed:
            where = f" page {entry['page']}" if entry["page"] is not None else ""
            line = f"  {printable(entry['source'])}{where}: {entry['reason']}"
            console.print(line, soft_wrap=True)


def _show_documents(summary: Summary, console: Console) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("document", overflow="fold")
    columns = [name for name in COLUMNS if console.width >= WIDE or name not in ONLY_WIDE]
    for column in columns:
        table.add_column(column, justify="left" if column in ("status", "read by") else "right", no_wrap=True)
    ordered = sorted(summary.results, key=lambda r: (r.document.status is DocumentStatus.OK, r.document.source_uri))
    for result in ordered[:SHOWN]:
        cells = _cells(result)
        name = printable(result.document.source_uri.rsplit("/", 1)[-1])
        table.add_row(name, *(cells[column] for column in columns))
    console.print(table)
    if len(ordered) > SHOWN:
        console.print(f"… and {len(ordered) - SHOWN} more, all ok or listed below")
    console.print()


def _cells(result: DocumentResult) -> dict[str, str | Text]:
    document, pages = result.document, result.pages
    count = Counter(page.status for page in pages)
    timed = [page.seconds for page in pages if page.seconds]
    agreed = [page.agreement for page in pages if page.agreement is not None]
    reason = f" ({document.reason})" if document.reason else ""
    return {
        "status": Text(f"{document.status.value}{reason}", style=MARKS[document.status.value]),
        "pages": str(document.page_count),
        "ok": str(count[PageStatus.OK]),
        "blank": str(count[PageStatus.BLANK]),
        "fallback": str(count[PageStatus.FALLBACK]),
        "failed": str(sum(pages for status, pages in count.items() if status.is_bad)),
        "read by": ", ".join(sorted({page.engine for page in pages if page.engine})) or "-",
        "s/page": f"{sum(timed) / len(timed):.1f}" if timed else "-",
        "agreement": f"{sum(agreed) / len(agreed):.2f}" if agreed else "-",
    }
