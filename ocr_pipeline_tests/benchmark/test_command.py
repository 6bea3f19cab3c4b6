"""`ocr-pipeline benchmark` on simulated servers: it finds the slots that a server has, and says what failed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ocr_pipeline_tests.pdfs import numbered
from ocr_pipeline_tests.simulator.fleet import Fleet


def prepared(folder: Path, toml: str | None, *arguments: str) -> tuple[list[str], dict[str, str]]:
    environment = {**os.environ, "OCR_DATA": str(folder / "data")}
    environment.pop("OCR_BACKENDS", None)
    if toml is not None:
        (folder / "backends.toml").write_text(toml)
        environment["OCR_BACKENDS"] = str(folder / "backends.toml")
    (folder / "paper.pdf").write_bytes(numbered(6))
    command = [sys.executable, "-m", "ocr_pipeline", "benchmark", str(folder / "paper.pdf"), *arguments]
    return [*command, "--out", str(folder / "out")], environment


def benchmark(folder: Path, toml: str | None, *arguments: str) -> tuple[int, str, str]:
    command, environment = prepared(folder, toml, *arguments)
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


def test_no_fewer_in_flight_than_the_server_has_slots_are_recommended(tmp_path: Path) -> None:
    servers = Fleet(gpu={"profile": "dgx-spark", "max_num_seqs": 4, "seconds_per_page": 0.4, "mean_tokens": 60})
    with servers:
        toml = servers.backends_toml(max_in_flight=2)
        code, out, err = benchmark(tmp_path, toml, "--json", "--pages", "8", "--most", "8", "--price", "gpu=0.36")
        pages = servers["gpu"].stats().pages
    assert code == 0, err
    (said,) = json.loads(out)["backends"]
    # a busy machine answers so late that more in flight than slots gain something: never fewer than the slots
    assert said["recommended_max_in_flight"] in (4, 8)
    assert said["max_in_flight_now"] == 2
    assert said["cost_per_1000_pages"] > 0
    assert [step["in_flight"] for step in said["steps"]] == [1, 2, 4, 8]
    assert all(step["failures"] == {} for step in said["steps"])
    assert max(page.asked for page in pages.values()) == 1, "an image was sent twice: the server's cache was measured"
    assert json.loads((tmp_path / "out" / "benchmark.json").read_text()) == json.loads(out)
    ElementTree.parse(tmp_path / "out" / "benchmark.svg")
    assert not (tmp_path / "data").exists()


def test_without_a_ceiling_it_goes_on_while_it_gains(tmp_path: Path) -> None:
    with Fleet(gpu={"max_num_seqs": 4, "seconds_per_page": 0.4, "mean_tokens": 60}) as servers:
        code, out, err = benchmark(tmp_path, servers.backends_toml(max_in_flight=1), "--json", "--pages", "4")
    assert code == 0, err
    (said,) = json.loads(out)["backends"]
    assert said["recommended_max_in_flight"] >= 4, "it stopped at a multiple of the present setting"
    assert said["ceiling_reached"] is False


def test_a_ceiling_below_the_servers_slots_is_told(tmp_path: Path) -> None:
    with Fleet(gpu={"max_num_seqs": 16, "seconds_per_page": 0.4, "mean_tokens": 60}) as servers:
        code, out, err = benchmark(tmp_path, servers.backends_toml(), "--pages", "4", "--most", "2")
    assert code == 0, err
    assert "still rising, the best may be higher: try --most 4" in out
    assert json.loads((tmp_path / "out" / "benchmark.json").read_text())["backends"][0]["ceiling_reached"] is True


def test_costs_come_from_the_backends_file_where_no_price_is_given(tmp_path: Path) -> None:
    with Fleet(gpu={"max_num_seqs": 2, "seconds_per_page": 0.05, "mean_tokens": 60}) as servers:
        toml = servers.backends_toml(power_usd_per_month=730.0, hardware_usd=7300.0, hardware_months=10.0)
        code, out, err = benchmark(tmp_path, toml, "--json", "--pages", "4", "--most", "1")
    assert code == 0, err
    (said,) = json.loads(out)["backends"]
    assert said["price_an_hour"] == 2.0  # (730 + 7300 / 10) dollars a month of 730 hours
    assert said["cost_per_1000_pages"] == 2.0 / 3.6 / said["steps"][0]["pages_per_second"]


@pytest.mark.parametrize(
    ("faults", "outcome"), [({"storm_503": {"for_seconds": 600}}, "http_503"), ({"hang": {}}, "timeout")]
)
def test_a_server_that_answers_nothing_is_given_up_after_its_first_requests(
    tmp_path: Path, faults: dict[str, object], outcome: str
) -> None:
    with Fleet(gpu={"max_num_seqs": 2, "seconds_per_page": 0.05, "faults": faults}) as servers:
        toml = servers.backends_toml()
        code, out, err = benchmark(tmp_path, toml, "--json", "--pages", "4", "--timeout", "2")
    assert code == 1, err
    (said,) = json.loads(out)["backends"]
    assert said["recommended_max_in_flight"] is None
    assert said["steps"] == []
    assert outcome in said["given_up"]
    assert "gpu: given up: each of the first 2 requests failed" in err


def test_ctrl_c_keeps_the_steps_that_were_measured(tmp_path: Path) -> None:
    with Fleet(gpu={"max_num_seqs": 4, "seconds_per_page": 0.1, "mean_tokens": 60}) as servers:
        command, environment = prepared(tmp_path, servers.backends_toml(), "--pages", "200")
        running = subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        assert running.stderr is not None
        for line in running.stderr:
            if "1 in flight:" in line:
                running.send_signal(signal.SIGINT)
                break
        _, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    kept = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert kept["complete"] is False
    assert [step["in_flight"] for step in kept["backends"][0]["steps"]] == [1]


def test_names_of_files_and_backends_may_be_anything_and_what_was_left_out_is_told(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "paper.pdf").write_bytes(numbered(2, "other"))
    (tmp_path / "bad.pdf").write_bytes(b"%PDF-1.7\nnothing more")
    with Fleet(gpu={"max_num_seqs": 2, "seconds_per_page": 0.05, "mean_tokens": 60}) as servers:
        toml = servers.backends_toml().replace('name = "gpu"', 'name = "x[/y]"')
        extra = (str(tmp_path / "other" / "paper.pdf"), str(tmp_path / "bad.pdf"))
        code, out, err = benchmark(tmp_path, toml, *extra, "--pages", "8", "--most", "1")
    assert code == 0, err
    assert "x[/y]: max_in_flight = 1" in out
    kept = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert kept["images"] == 8, "6 pages of one paper.pdf and 2 of the other"
    assert len(kept["left_out"]) == 1
    assert "bad.pdf" in kept["left_out"][0]


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_asked(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with Fleet(gpu={"max_num_seqs": 2, "seconds_per_page": 0.05}) as servers:
        code, out, err = benchmark(tmp_path, servers.backends_toml(), "--pages", "4")
        asked = servers["gpu"].stats().requests
    assert (code, out, asked) == (2, "", 0)
    assert "--out" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [((), "OCR_BACKENDS"), (("--price", "none=1"), "--price none=1"), (("--most", "0"), "--most")],
)
def test_usage_is_exit_code_2_and_one_sentence(tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    toml = (
        '[[backend]]\nname = "gpu"\nurl = "http://127.0.0.1:1"\ngpu = "rtx-4090"\nmodel = "deepseek-ai/DeepSeek-OCR"\n'
    )
    code, out, err = benchmark(tmp_path, toml if arguments else None, *arguments)
    assert (code, out) == (2, "")
    assert told in err
    assert "Traceback" not in err
