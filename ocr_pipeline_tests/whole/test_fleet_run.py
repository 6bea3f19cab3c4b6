"""Whole runs on a simulated fleet: each routing rule is seen in `attempts.choice`, and chaos changes no row."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ocr_pipeline.lake import batches, planner
from ocr_pipeline.lake.opening import open_storage
from ocr_pipeline.records import Batch, Upload
from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline_tests.pdfs import numbered
from ocr_pipeline_tests.simulator.fleet import Fleet
from ocr_pipeline_tests.whole.command import end_state, finish, ingest, start

SERVERS = {
    "rtx4090": {"profile": "rtx-4090", "seconds_per_page": 0.1, "max_num_seqs": 4, "mean_tokens": 60},
    "spark": {"profile": "dgx-spark", "seconds_per_page": 0.1, "max_num_seqs": 8, "mean_tokens": 60},
}


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with Fleet(**SERVERS) as fleet:
        yield fleet


def backends(tmp_path: Path, fleet: Fleet, policy: str = "hybrid", **overrides: object) -> dict[str, str]:
    path = tmp_path / "backends.toml"
    path.write_text(fleet.backends_toml(policy, **{"max_in_flight": 4, **overrides}))
    return {"OCR_BACKENDS": str(path)}


def choices(data: Path) -> set[str]:
    """The codes of the reasons why backends were chosen."""
    with Warehouse(str(data / "warehouse.duckdb")).read() as connection:
        rows = connection.execute("SELECT DISTINCT choice FROM ocr.attempts").fetchall()
    return {re.split(r"[:,;]", row[0], maxsplit=1)[0].strip() for row in rows}


def folder(tmp_path: Path, sizes: dict[str, int]) -> Path:
    made = tmp_path / "papers"
    for name, pages in sizes.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_bytes(numbered(pages, name))
    return made


def test_small_documents_large_ones_and_overload_are_seen_in_the_reasons(tmp_path: Path, fleet: Fleet) -> None:
    papers = folder(tmp_path, {f"small-{n}.pdf": 3 for n in range(8)} | {"large.pdf": 30})
    code, said, err = ingest(tmp_path / "data", papers, **backends(tmp_path, fleet))
    assert (code, said["pages"]) == (0, 54), err
    assert {"default", "large", "overloaded"} <= choices(tmp_path / "data")


def test_an_urgent_upload_goes_to_the_large_machine(tmp_path: Path, fleet: Fleet) -> None:
    urgent = tmp_path / "urgent"
    urgent.mkdir()
    (urgent / "now.pdf").write_bytes(numbered(2))
    code, _, err = ingest(tmp_path / "data", urgent, **backends(tmp_path, fleet))
    assert code == 0, err
    assert choices(tmp_path / "data") == {"urgent"}


@pytest.mark.parametrize(("earlier", "rule"), [(98, "default"), (99, "sla")])
def test_a_promised_time_counts_from_100_uploads_a_day_on_whichever_runs_had_them(
    tmp_path: Path, fleet: Fleet, earlier: int, rule: str
) -> None:
    now = datetime.now(UTC)
    uploads = tuple(Upload(f"inbox/today/{n}.pdf", "e", 1, now) for n in range(earlier))
    batches.write(open_storage(str(tmp_path / "data" / "lake")), Batch(planner.name(uploads), uploads))
    environment = backends(tmp_path, fleet)
    path = Path(environment["OCR_BACKENDS"])
    path.write_text("sla = true\n" + path.read_text())
    code, _, err = ingest(tmp_path / "data", folder(tmp_path, {"a.pdf": 12}), **environment)
    assert code == 0, err
    assert rule in choices(tmp_path / "data")
    assert {"sla", "default"} - {rule} - choices(tmp_path / "data")


def test_the_fastest_policy_says_so(tmp_path: Path, fleet: Fleet) -> None:
    papers = folder(tmp_path, {"a.pdf": 12})
    code, _, err = ingest(tmp_path / "data", papers, **backends(tmp_path, fleet, "fastest"))
    assert code == 0, err
    assert any("fastest" in choice for choice in choices(tmp_path / "data"))


def test_a_server_that_dies_in_the_middle_costs_no_page_and_no_other_row(tmp_path: Path, fleet: Fleet) -> None:
    papers = folder(tmp_path, {f"{n}.pdf": 8 for n in range(8)})
    environment = backends(tmp_path, fleet)
    code, _, err = ingest(tmp_path / "calm", papers, **environment)
    assert code == 0, err
    before = fleet["rtx4090"].stats().answered
    process = start(tmp_path / "chaos", "ingest", str(papers), "--json", **environment)
    wait = threading.Event()
    for _ in range(600):
        if fleet["rtx4090"].stats().answered > before + 4:
            break
        wait.wait(0.05)
    fleet["rtx4090"].kill()
    code, said, err = finish(process)
    assert (code, said["pages"]) == (0, 64), err
    assert end_state(tmp_path / "chaos") == end_state(tmp_path / "calm")


def test_a_page_that_kills_servers_leaves_what_reproduces_it_and_is_not_sent_again(
    tmp_path: Path, fleet: Fleet
) -> None:
    papers = folder(tmp_path, {"a.pdf": 8})
    environment = backends(tmp_path, fleet) | {"OCR_TEXT_LAYER": "never"}
    code, _, err = ingest(tmp_path / "calm", papers, **environment)
    assert code == 0, err
    with Warehouse(str(tmp_path / "calm" / "warehouse.duckdb")).read() as connection:
        [(sha256,)] = connection.execute("SELECT image_sha256 FROM ocr.pages WHERE page_number = 5").fetchall()
    for server in fleet:
        server.set_faults(poison={"images": [sha256]})
        server.keep_alive(0.5)
    code, said, err = ingest(tmp_path / "data", papers, **environment)
    assert (code, said["by_status"]) == (1, {"ok": 7, "failed": 1}), err
    assert [(failed["page"], failed["reason"]) for failed in said["failed"]] == [(5, "poisoned")]
    [kept] = (tmp_path / "data" / "lake" / "poisoned").glob(f"*/{sha256}")
    assert hashlib.sha256((kept / "page.jpg").read_bytes()).hexdigest() == sha256
    request = json.loads((kept / "request.json").read_text())
    answers = json.loads((kept / "answers.json").read_text())
    assert (request["page_number"], request["request"]["model"]) == (5, "deepseek-ai/DeepSeek-OCR")
    assert request["backend"] in SERVERS
    assert len(answers) >= 2
    assert answers[-1]["fault"] == "death"
    before = {name: tally.requests for name, tally in fleet.stats().items()}
    code, again, err = ingest(tmp_path / "data", papers, **environment)
    assert (code, again["by_status"]) == (1, {"ok": 7, "failed": 1}), err
    assert {name: tally.requests for name, tally in fleet.stats().items()} == before


def test_when_every_server_is_down_the_cpu_engine_takes_over_after_the_wait(tmp_path: Path, fleet: Fleet) -> None:
    environment = backends(tmp_path, fleet)
    for server in fleet:
        server.kill()
    papers = folder(tmp_path, {"a.pdf": 2})
    code, said, err = ingest(tmp_path / "data", papers, OCR_OUTAGE_WAIT="3", OCR_CPU_ENGINE="text_layer", **environment)
    assert (code, said["by_status"]) == (0, {"ok": 2}), err
    assert any(choice.startswith("outage") for choice in choices(tmp_path / "data"))
