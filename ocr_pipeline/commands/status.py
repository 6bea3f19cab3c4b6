"""`ocr-pipeline status`: where is my document."""

from __future__ import annotations

import json
from typing import Any

import click
import dagster as dg
from dagster import DagsterRunStatus

from ocr_pipeline import wiring
from ocr_pipeline.commands.counted import counted
from ocr_pipeline.commands.terminal import WAIT_SECONDS, terminal
from ocr_pipeline.lake import batches
from ocr_pipeline.printable import printable
from ocr_pipeline.runs import history, instance
from ocr_pipeline.settings import Settings
from ocr_pipeline.upkeep.expected_time import pace, pages_until_read
from ocr_pipeline.upkeep.whereabouts import Stage, Whereabouts, find

WORDS = {
    Stage.INBOX: "in the inbox, in no batch yet",
    Stage.BATCH: "in a batch, not begun",
    Stage.PAGES: "being drawn and read",
    Stage.READ: "read, not in the tables yet",
    Stage.TABLES: "in the tables",
}

STOPPED = {
    DagsterRunStatus.FAILURE.value: "its last run failed; `ocr-pipeline ingest` it again or start Dagster to go on",
    # a run that a person ended Dagster does not begin again by itself (runs/reruns.py)
    DagsterRunStatus.CANCELED.value: "its last run was cancelled; `ocr-pipeline ingest` it again or start its batch in "
    "Dagster to go on",
}
"""What became of a document that is not in the tables and that no run works on, by the end of its batch's last run."""


@click.command("status")
@click.argument("key")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, and nothing else there.")
def command(key: str, as_json: bool) -> int:
    """Say where a document is: KEY is an upload's key or a part of its name.

    Stage, batch, run, pages done, reason, and for one on its way the time until its batch should be read; for one whose
    last run failed or was cancelled, what starts it again. At most 20 documents, and how many more there are. Exit code
    1: not found.
    """
    settings = Settings()
    lake, warehouse, dagster = wiring.lake(settings), wiring.warehouse(settings, WAIT_SECONDS), _history(settings)
    found = find(lake, warehouse, settings.inbox, key)
    held_by = {document.batch for document in found.documents if document.batch is not None}
    runs = {batch: history.last_run(dagster, batch) for batch in held_by} if dagster else {}
    on_their_way = {
        document.batch
        for document in found.documents
        if document.batch is not None
        and document.stage is not Stage.TABLES
        and ((run := runs.get(document.batch)) is None or run[1] not in STOPPED)
    }
    expected: dict[str, float | None] = {}
    if dagster and on_their_way:
        speed = pace(warehouse)
        waiting = history.unloaded(dagster, batches.names(lake))
        pages = pages_until_read(lake, waiting, history.at_work(dagster), speed.pages_per_document)
        expected = {name: speed.seconds_for(count) for name, count in pages.items() if name in on_their_way}
    for error in found.unreadable:
        click.echo(f"not looked at: {printable(error)}", err=True)
    said = []
    for document in found.documents:
        batch = document.batch or ""
        said.append(_said(document, runs.get(batch), None if document.stage is Stage.TABLES else expected.get(batch)))
    if as_json:
        click.echo(json.dumps({"documents": said, "more": found.more}, ensure_ascii=False))
    else:
        console = terminal()
        for entry in said:
            console.print(_line(entry), soft_wrap=True)
        if found.more:
            console.print(f"and {found.more} more: give more of the key")
        if not said:
            console.print(
                f"no upload's key holds {key!r}, and no object below {settings.inbox} does, in the lake "
                f"{printable(settings.lake)}",
                soft_wrap=True,
            )
    return 0 if said else 1


def _history(settings: Settings) -> dg.DagsterInstance | None:
    """Dagster's history; None for whoever may not write where it is kept: its SQLite files open in no other way."""
    try:
        return instance.instance(settings)
    except instance.HomeError as error:
        click.echo(f"without Dagster's history there is no run and no expected time: {error}", err=True)
        return None


def _said(document: Whereabouts, run: tuple[str, str] | None, expected: float | None) -> dict[str, Any]:
    row = document.row
    return {
        "key": document.key,
        "document_id": document.document_id,
        "stage": document.stage.value,
        "batch": document.batch,
        "run": run[0] if run else None,
        "run_status": run[1] if run else None,
        "pages": document.pages,
        "pages_done": document.pages_done,
        "status": row.status if row else None,
        "reason": row.reason if row else None,
        "reasons": dict(row.reasons) if row else {},
        "deleted_at": row.deleted_at.isoformat() if row and row.deleted_at else None,
        "expected_seconds": round(expected, 1) if expected is not None else None,
    }


def _line(entry: dict[str, Any]) -> str:
    stage, key = Stage(entry["stage"]), printable(entry["key"])
    stopped = STOPPED.get(entry["run_status"]) if stage is not Stage.TABLES else None
    parts = []
    if stage is Stage.TABLES:
        parts.append(f"{entry['status']}" + (f" ({entry['reason']})" if entry["reason"] else ""))
    if entry["pages"] is not None or entry["pages_done"]:
        drawn = " drawn" if stage is Stage.PAGES else ""
        parts.append(f"{entry['pages_done']} of {entry['pages'] if entry['pages'] is not None else '?'} pages{drawn}")
    parts += [f"{counted(count, 'page')} {reason}" for reason, count in entry["reasons"].items()]
    if entry["batch"]:
        parts.append(f"batch {entry['batch']}")
    if entry["run"]:
        parts.append(f"run {entry['run']} {entry['run_status'].lower()}")
    if entry["deleted_at"]:
        parts.append(f"deleted {entry['deleted_at']}")
    if entry["expected_seconds"] is not None:
        parts.append(f"about {entry['expected_seconds']:.0f} s to go")
    if stopped is not None:
        return f"{key}: stopped: {stopped} ({', '.join(parts)})"
    return ", ".join([f"{key}: {WORDS[stage]}", *parts])
