"""kill -9 at any instant, then the same command: the same end state, and only pages in flight asked again.

The pages are read by simulated vLLM servers, which count how often each image was asked for, in a journal that
survives everything. Set OCR_TEST_KILLS to change the number of instants.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path

import pytest

from ocr_pipeline_tests.pdfs import numbered, pdf
from ocr_pipeline_tests.simulator.fleet import Fleet
from ocr_pipeline_tests.whole.command import end_state, finish, ingest, start

KILLS = int(os.environ.get("OCR_TEST_KILLS", "20"))
SEED = 20261122


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_run_that_is_killed_at_any_instant_ends_in_the_same_state_when_it_is_started_again(tmp_path: Path) -> None:
    folder = tmp_path / "papers"
    folder.mkdir()
    for number, pages in enumerate((1, 3, 12, 25)):
        (folder / f"{number}.pdf").write_bytes(numbered(pages, f"document {number}"))
    (folder / "blank.pdf").write_bytes(pdf(["text", "", "more text"]))
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7 nothing")
    servers = {
        "rtx4090": {"profile": "rtx-4090", "seconds_per_page": 0.15, "max_num_seqs": 4, "mean_tokens": 60},
        "spark": {"profile": "dgx-spark", "seconds_per_page": 0.15, "max_num_seqs": 4, "mean_tokens": 60},
    }
    figures = []
    with Fleet(**servers) as fleet:
        backends = tmp_path / "backends.toml"
        backends.write_text(fleet.backends_toml(max_in_flight=4))
        environment = {"OCR_BACKENDS": str(backends), "OCR_BATCH_DOCUMENTS": "3"}

        started = time.monotonic()
        code, calm, err = ingest(tmp_path / "calm", folder, **environment)
        whole = time.monotonic() - started
        assert (code, calm["pages"]) == (1, 44), err
        expected = end_state(tmp_path / "calm")
        asked = _asked(fleet)

        instants = random.Random(SEED)
        for kill in range(KILLS):
            # spread evenly over the whole run, start-up and table load among them
            instant = whole * (kill + instants.random()) / KILLS
            data = tmp_path / f"killed-{kill}"
            process = start(data, "ingest", str(folder), "--json", **environment)
            time.sleep(instant)  # the instant is the test's input
            process.kill()
            process.communicate()
            code, said, err = finish(start(data, "ingest", str(folder), "--json", **environment))
            assert (code, said["pages"], said["by_status"]) == (1, 44, calm["by_status"]), (kill, instant, err)
            assert end_state(data) == expected, (kill, instant)
            now = _asked(fleet)
            twice = sum(now.values()) - sum(asked.values()) - 43
            figures.append((round(instant, 2), twice))
            asked = now
            # in flight: on one of eight slots, or answered and on the way into the lake
            assert 0 <= twice <= 8 + 8, f"kill {kill} at {instant:.2f} s: {twice} pages asked twice, 8 slots"
            shutil.rmtree(data)
    print(f"\na calm run takes {whole:.1f} s; (killed at second, pages asked twice): {figures}")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_four_hundred_pages_survive_a_kill_in_the_middle(tmp_path: Path) -> None:
    folder = tmp_path / "papers"
    folder.mkdir()
    for number in range(16):
        (folder / f"{number}.pdf").write_bytes(numbered(25, f"document {number}"))
    slots = {"seconds_per_page": 0.1, "max_num_seqs": 4, "mean_tokens": 60}
    with Fleet(rtx4090={"profile": "rtx-4090", **slots}, spark={"profile": "dgx-spark", **slots}) as fleet:
        backends = tmp_path / "backends.toml"
        backends.write_text(fleet.backends_toml(max_in_flight=4))
        started = time.monotonic()
        code, calm, err = ingest(tmp_path / "calm", folder, OCR_BACKENDS=str(backends))
        took = time.monotonic() - started
        assert (code, calm["pages"]) == (0, 400), err
        before = _asked(fleet)

        data = tmp_path / "killed"
        started = time.monotonic()
        process = start(data, "ingest", str(folder), "--json", OCR_BACKENDS=str(backends))
        while sum(_asked(fleet).values()) < sum(before.values()) + 200:
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()
        process.communicate()
        code, said, err = finish(start(data, "ingest", str(folder), "--json", OCR_BACKENDS=str(backends)))
        seconds = time.monotonic() - started
        assert (code, said["pages"], said["by_status"]) == (0, 400, calm["by_status"]), err
        assert end_state(data) == end_state(tmp_path / "calm")
        twice = sum(_asked(fleet).values()) - sum(before.values()) - 400
        print(f"\n400 pages: calm {took:.1f} s; killed at page 200 and run again {seconds:.1f} s; {twice} asked twice")
        assert 0 <= twice <= 8 + 8


def _asked(fleet: Fleet) -> dict[str, int]:
    return {f"{name} {sha}": page.asked for name, tally in fleet.stats().items() for sha, page in tally.pages.items()}
