"""Many processes load at once, and some die: the tables end up as if one had loaded alone."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import duckdb
import pytest

from ocr_pipeline.records import PageStatus, Reason
from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.load import load_batch
from ocr_pipeline.warehouse.parquet import to_bytes
from ocr_pipeline.warehouse.rebuild import rebuild
from ocr_pipeline_tests.warehouse.loader_process import read_batch
from ocr_pipeline_tests.warehouse.sample_rows import contents, result, to_tables
from ocr_pipeline_tests.warehouse.shelf import Shelf


def make_batches(folder: Path, count: int) -> list[str]:
    """Batches with documents of their own and others that several of them hold, in newer and older versions."""
    choose = random.Random(5)
    names = [f"b{number:02}" for number in range(count)]
    for number, name in enumerate(names):
        shared = choose.sample(range(12), 5)
        tables = to_tables(
            [result(f"own-{number}-{i}.pdf", batch=name, uploaded=number, pages=4) for i in range(3)]
            + [
                result(
                    f"shared-{key}.pdf",
                    batch=name,
                    uploaded=choose.randint(0, 20),
                    pages=choose.randint(1, 6),
                    statuses={1: (PageStatus.FAILED, Reason.TRUNCATED)} if choose.random() < 0.2 else None,
                )
                for key in shared
            ]
        )
        for table, rows in tables.items():
            (folder / f"{name}.{table}.parquet").write_bytes(to_bytes(table, rows))
    return names


def start(path: str, folder: Path, fate: str, batches: Sequence[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ocr_pipeline_tests.warehouse.loader_process", path, str(folder), fate, *batches]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert line_of(process) == "ready"
    return process


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def release(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def finish(process: subprocess.Popen[str]) -> list[str]:
    out, _ = process.communicate(timeout=240)
    assert process.returncode == 0
    return out.split()


def serially(path: str, folder: Path, batches: Sequence[str]) -> Warehouse:
    warehouse = Warehouse(path)
    for batch in batches:
        load_batch(warehouse, batch, read_batch(folder, batch))
    return warehouse


def test_kill_9_inside_a_load_leaves_the_file_usable_and_the_load_repeatable(tmp_path: Path) -> None:
    batches = make_batches(tmp_path, 3)
    warehouse = serially(str(tmp_path / "one.duckdb"), tmp_path, batches[:2])
    before = contents(warehouse)
    process = start(warehouse.target, tmp_path, "die", batches[2:])
    release(process)
    assert line_of(process) == "inside"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert contents(warehouse) == before
    load_batch(warehouse, batches[2], read_batch(tmp_path, batches[2]))
    assert contents(warehouse) == contents(serially(str(tmp_path / "other.duckdb"), tmp_path, batches))


@pytest.mark.slow
def test_eight_processes_load_forty_batches_one_is_killed_and_nothing_differs_from_a_serial_load(
    tmp_path: Path,
) -> None:
    batches = make_batches(tmp_path, 40)
    path = str(tmp_path / "shared.duckdb")
    shares = [batches[number::8] + batches[(number * 5) % 40 : (number * 5) % 40 + 2] for number in range(8)]
    assert sorted({batch for share in shares for batch in share}) == batches
    assert sum(map(len, shares)) > 40
    processes = [start(path, tmp_path, "die" if number == 3 else "live", share) for number, share in enumerate(shares)]
    for process in processes:
        release(process)
    victim = processes[3]
    assert line_of(victim) == "inside"  # it holds the lock: the other seven wait for it
    victim.send_signal(signal.SIGKILL)
    victim.communicate(timeout=60)
    for number, process in enumerate(processes):
        if process is not victim:
            assert finish(process) == shares[number]
    again = start(path, tmp_path, "live", shares[3])
    release(again)
    assert finish(again) == shares[3]

    shared = Warehouse(path)
    alone = serially(str(tmp_path / "alone.duckdb"), tmp_path, batches)
    expected = contents(alone)
    assert contents(shared) == expected
    assert len(expected["documents"]) == 40 * 3 + 12
    rebuild(shared, Shelf([read_batch(tmp_path, batch) for batch in reversed(batches)]))
    assert contents(shared) == expected


@pytest.mark.slow
def test_kill_9_at_any_instant_then_again_ends_in_the_same_tables(tmp_path: Path) -> None:
    """Twelve processes, each killed at some instant of its work; each time the file opens and the next goes on."""
    batches = make_batches(tmp_path, 12)
    path = str(tmp_path / "w.duckdb")
    choose = random.Random(11)
    for _ in range(12):
        process = start(path, tmp_path, "live", batches)
        release(process)
        try:
            process.wait(timeout=choose.uniform(0.02, 1.5))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        with Warehouse(path).read() as connection:  # whole batches only, and the keys hold
            torn = """
                SELECT count(*) FROM ocr.documents d
                WHERE status <> 'rejected'
                    AND page_count <> (SELECT count(*) FROM ocr.pages p WHERE p.document_id = d.document_id)
            """
            assert connection.execute(torn).fetchone() == (0,)
    warehouse = serially(path, tmp_path, batches)
    assert contents(warehouse) == contents(serially(str(tmp_path / "alone.duckdb"), tmp_path, batches))


@pytest.mark.slow
def test_a_large_file_whose_log_is_not_written_in_at_each_close_survives_kill_9_too(tmp_path: Path) -> None:
    """From 64 MB on the log outlives the close (see `Warehouse._defer_checkpoints`): nothing in it must be lost."""
    batches = make_batches(tmp_path, 4)
    path = str(tmp_path / "w.duckdb")
    warehouse = serially(path, tmp_path, batches[:1])
    with warehouse.transaction() as connection:  # text that does not compress, so that the file is large
        connection.execute("CREATE TABLE main.ballast AS SELECT md5(CAST(i AS VARCHAR)) AS t FROM range(4000000) r(i)")
    assert Path(path).stat().st_size > 64 * 1024 * 1024
    serially(path, tmp_path, batches[1:3])
    assert Path(f"{path}.wal").stat().st_size > 0
    process = start(path, tmp_path, "die", batches[3:])
    release(process)
    assert line_of(process) == "inside"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    serially(path, tmp_path, batches)
    expected = contents(serially(str(tmp_path / "alone.duckdb"), tmp_path, batches))
    assert contents(warehouse) == expected
    warehouse.checkpoint()
    log = Path(f"{path}.wal")
    assert not log.exists() or log.stat().st_size == 0
    with duckdb.connect(path) as plain, pytest.raises(duckdb.ConstraintException):
        plain.execute("INSERT INTO ocr.documents SELECT * FROM ocr.documents LIMIT 1")
    assert contents(warehouse) == expected
