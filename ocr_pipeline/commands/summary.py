"""What became of some uploads, from the batches that hold them: the object that `--json` prints, and its table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ocr_pipeline.printable import printable
from ocr_pipeline.records import DocumentResult, DocumentStatus, PageStatus, Reason

SHOWN = 60  # documents in the table for people
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
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("document", overflow="fold")
    for name in ("status", "pages", "ok", "blank", "fallback", "failed", "read by", "s/page", "agreement"):
        table.add_column(name, justify="left" if name in ("status", "read by") else "right", no_wrap=True)
    ordered = sorted(summary.results, key=lambda r: (r.document.status is DocumentStatus.OK, r.document.source_uri))
    for result in ordered[:SHOWN]:
        document, pages = result.document, result.pages
        count = Counter(page.status for page in pages)
        timed = [page.seconds for page in pages if page.seconds]
        agreed = [page.agreement for page in pages if page.agreement is not None]
        color = MARKS[document.status.value]
        reason = f" ({document.reason})" if document.reason else ""
        table.add_row(
            Text(printable(document.source_uri.rsplit("/", 1)[-1])),
            f"[{color}]{document.status.value}{reason}[/]",
            str(document.page_count),
            str(count[PageStatus.OK]),
            str(count[PageStatus.BLANK]),
            str(count[PageStatus.FALLBACK]),
            str(sum(pages for status, pages in count.items() if status.is_bad)),
            ", ".join(sorted({page.engine for page in pages if page.engine})) or "-",
            f"{sum(timed) / len(timed):.1f}" if timed else "-",
            f"{sum(agreed) / len(agreed):.2f}" if agreed else "-",
        )
    console.print(table)
    if len(ordered) > SHOWN:
        console.print(f"… and {len(ordered) - SHOWN} more, all ok or listed below")
    totals = ", ".join(f"{count} {status}" for status, count in summary.by_status.items()) or "none"
    console.print(f"\n{summary.documents} documents, {summary.pages} pages: {totals}; {summary.seconds:.1f} s")
    if summary.failed:
        console.print(f"[red]{len(summary.failed)} failed or rejected:[/]")
        for entry in summary.failed:
            where = f" page {entry['page']}" if entry["page"] is not None else ""
            line = f"  {printable(entry['source'])}{where}: {entry['reason']}"
            console.print(line, markup=False, highlight=False, soft_wrap=True)
