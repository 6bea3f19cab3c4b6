"""Commands on what was read, as people call them: exit codes, one JSON object on stdout, one sentence for a mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import dagster as dg
import duckdb
import pytest

from ocr_pipeline import cli, wiring
from ocr_pipeline.definitions import build_defs
from ocr_pipeline.flow.rendered import RenderedPage
from ocr_pipeline.flow.repeating import asks_again
from ocr_pipeline.flow.retries import PageRecord
from ocr_pipeline.intake import cutting
from ocr_pipeline.lake import keys, transcripts
from ocr_pipeline.lake.opening import open_storage
from ocr_pipeline.records import REASONS, PageStatus, Reason
from ocr_pipeline.runs import history, instance
from ocr_pipeline.settings import Settings
from ocr_pipeline.upkeep.compare import recipes
from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.load import load_batch
from ocr_pipeline_tests.pdfs import numbered
from ocr_pipeline_tests.warehouse.sample_rows import result, to_tables


class Shell:
    """The command, in this process."""

    def __init__(self, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capfd, self._monkeypatch = capfd, monkeypatch

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        self._capfd.readouterr()
        self._monkeypatch.setattr("sys.argv", ["ocr-pipeline", *arguments])
        code = cli.run()
        return code, *self._capfd.readouterr()

    def json(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        code, out, err = self(*arguments, "--json")
        assert out.count("\n") == 1, err
        return code, json.loads(out)


@pytest.fixture
def shell(settings: Settings, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    """Two documents have been read: one whole, and one that is damaged."""
    made = Shell(capfd, monkeypatch)
    folder = settings.data / "papers"
    folder.mkdir()
    (folder / "river.pdf").write_bytes(numbered(2, "river"))
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7 and no more")
    code, said = made.json("ingest", str(folder))
    assert (code, said["documents"], said["pages"]) == (1, 2, 2)
    return made


def test_status_search_and_compare_answer_and_say_when_there_is_nothing(shell: Shell, settings: Settings) -> None:
    code, said = shell.json("status", "river")
    assert code == 0
    (document,) = said["documents"]
    assert (document["stage"], document["status"], document["pages_done"]) == ("tables", "ok", 2)
    assert document["run_status"] == "SUCCESS"
    assert shell.json("status", "nowhere") == (1, {"documents": [], "more": 0})

    code, said = shell.json("search", "page", "2")
    assert (code, [hit["page_number"] for hit in said["hits"]]) == (0, [2])
    assert shell.json("search", "xylophone") == (1, {"hits": []})
    for mistake, told in (
        (["search"], "words"),
        (["search", "", " "], "words"),
        (["search", *map(str, range(17))], "at most 16 words"),
    ):
        code, out, err = shell(*mistake)
        assert (code, out) == (2, "")
        assert told in err

    recipe, other = another_recipe(settings)
    code, said = shell.json("compare", recipe, other)
    assert (code, said["compared"], said["same"], said["pages"]) == (0, 2, 2, [])
    code, said = shell.json("compare", recipe, other, "--all")
    assert [(page["key"], page["page_number"]) for page in said["pages"]] == [
        ("inbox/papers/river.pdf", n) for n in (1, 2)
    ]
    assert said["pages"][0]["a"].keys() == {"status", "reason", "quality", "agreement", "seconds", "length"}
    assert "inbox/papers/river.pdf" in shell("compare", recipe, other, "--all")[1]
    code, _, err = shell("compare", recipe, "unknown")
    assert code == 2
    assert f"{recipe} (2 pages)" in err


def another_recipe(settings: Settings, pages: int | None = None) -> tuple[str, str]:
    """The recipe that has read everything, and one that is made up beside it: the same texts, of the first pages."""
    lake = open_storage(settings.lake)
    (recipe,) = recipes(lake)
    found = sorted(transcripts.load(lake, recipe), key=lambda transcript: transcript.attempts[0].page_number)
    for transcript in found[:pages]:
        transcripts.write(lake, replace(transcript, recipe_id="0" * 16))
    return recipe, "0" * 16


ODD_NAMES = ("letter [scan].pdf", "a[/b].pdf", "[bold]c[/].pdf", ":100:.pdf")


def test_a_name_is_shown_as_it_is_whatever_a_terminal_could_make_of_it(shell: Shell, settings: Settings) -> None:
    folder = settings.data / "odd"
    for name in ODD_NAMES:
        for path, content in ((folder / name, numbered(1, name)), (folder / "damaged" / name, b"%PDF-1.7 and no more")):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    _, out, err = shell("ingest", str(folder))
    for name in ODD_NAMES:
        assert f"rejected: inbox/odd/damaged/{name}: damaged" in err
        assert f"inbox/odd/damaged/{name}: damaged" in out
        assert f"\n{name.rpartition('/')[2]} " in out
    recipe, other = another_recipe(settings)
    for said in (
        shell("compare", recipe, other, "--all"),
        shell("search", "page", "1", "of"),
        shell("status", "inbox/odd/"),
    ):
        assert [name for name in ODD_NAMES if f"inbox/odd/{name}" not in said[1]] == []


def test_compare_lists_a_page_that_one_recipe_alone_has_in_both_outputs(shell: Shell, settings: Settings) -> None:
    recipe, other = another_recipe(settings, pages=1)
    _, said = shell.json("compare", recipe, other)
    assert (said["only_a"], said["only_b"]) == (1, 0)
    assert [(page["page_number"], page["b"], page["same"]) for page in said["pages"]] == [(2, None, False)]
    length = str(said["pages"][0]["a"]["length"])

    def rows(*arguments: str) -> list[list[str]]:
        lines = shell("compare", *arguments)[1].partition("\n\n")[0].splitlines()
        return [line.split() for line in lines[1:]]

    river = "inbox/papers/river.pdf"
    assert rows(recipe, other) == [[river, "2", "-", length, "-", "1.000", "-", "ok", "-"]]
    assert rows(other, recipe) == [[river, "2", "-", "-", length, "-", "1.000", "-", "ok"]]
    assert [row[1] for row in rows(recipe, other, "--all")] == ["1", "2"]


class WithFullTextSearch:
    """A database that has the extension `fts`, which may not be installed here: to its index every page may match."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def load_extension(self, name: str) -> None:
        pass

    def execute(self, sql: str, *parameters: Any) -> Any:
        if "create_fts_index" in sql:
            sql = """
                CREATE SCHEMA IF NOT EXISTS fts_ocr_searched;
                CREATE OR REPLACE MACRO fts_ocr_searched.match_bm25(page, words, conjunctive := 0) AS 1.0
            """
        return self._connection.execute(sql, *parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def test_an_index_that_search_makes_is_told_in_the_one_object_too(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = duckdb.connect
    monkeypatch.setattr(duckdb, "connect", lambda *given, **named: WithFullTextSearch(connect(*given, **named)))
    assert shell.json("search", "--build-index") == (0, {"hits": [], "indexed": 2})
    code, said = shell.json("search", "--build-index", "page", "2")
    assert (code, [hit["page_number"] for hit in said["hits"]], said["indexed"]) == (0, [2], 2)
    assert shell.json("search", "--build-index", "xylophone") == (1, {"hits": [], "indexed": 2})
    assert shell("search", "--build-index") == (0, "", "the full-text index knows 2 pages\n")


def test_a_question_that_finds_nothing_names_the_place_that_was_asked(shell: Shell, settings: Settings) -> None:
    assert shell("status", "nowhere")[1] == (
        f"no upload's key holds 'nowhere', and no object below inbox/ does, in the lake {settings.lake}\n"
    )
    assert shell("search", "xylophone")[1] == f"no page in {settings.warehouse} holds all of these words\n"


def begun(settings: Settings, name: str, pages: int) -> tuple[dg.DagsterInstance, dg.DagsterRun]:
    """A batch of one upload, some of its pages drawn, and its run."""
    lake = wiring.lake(settings)
    lake.write(f"inbox/{name}", numbered(9, name))
    info = lake.stat(f"inbox/{name}")
    assert info is not None
    (batch,) = cutting.cut_all(lake, [info.as_upload()], wiring.intake(settings)).values()
    for page in range(1, pages + 1):
        lake.write(keys.page_image(batch.name, keys.document_id(info.key), page), b"an image")
    dagster = instance.instance(settings, captures_output=False)
    job = build_defs(settings).resolve_job_def("process_batch")
    return dagster, dagster.create_run_for_job(job, tags={history.PARTITION_TAG: batch.name})


def test_a_document_whose_last_run_ended_before_the_tables_is_stopped_and_has_no_expected_time(
    shell: Shell, settings: Settings
) -> None:
    def asked() -> tuple[str, dict[str, Any]]:
        (document,) = shell.json("status", "gpu3")[1]["documents"]
        return shell("status", "gpu3")[1], document

    load_batch(Warehouse(settings.warehouse), "earlier", to_tables([result("a", batch="earlier")]))  # a speed is known
    dagster, run = begun(settings, "gpu3.pdf", 3)
    said, document = asked()
    assert said.startswith("inbox/gpu3.pdf: being drawn and read, 3 of ? pages drawn, batch ")
    assert said.endswith(f"about {document['expected_seconds']:.0f} s to go\n")

    dagster.report_run_failed(run, "Ctrl-C")
    said, document = asked()
    assert said == (
        "inbox/gpu3.pdf: stopped: its last run failed; `ocr-pipeline ingest` it again or start Dagster to go on "
        f"(3 of ? pages drawn, batch {document['batch']}, run {run.run_id} failure)\n"
    )
    assert (document["stage"], document["expected_seconds"]) == ("pages", None)

    dagster, run = begun(settings, "again-gpu3.pdf", 0)
    dagster.report_run_canceling(run)
    dagster.report_run_canceled(run)
    said, document = shell("status", "again-gpu3")[1], shell.json("status", "again-gpu3")[1]["documents"][0]
    assert said == (  # `reconcile` leaves what a person ended to a person
        "inbox/again-gpu3.pdf: stopped: its last run was cancelled; `ocr-pipeline ingest` it again or start its batch "
        f"in Dagster to go on (batch {document['batch']}, run {run.run_id} canceled)\n"
    )
    assert (document["stage"], document["expected_seconds"]) == ("batch", None)


def test_retry_has_one_shape_whatever_came_of_it(shell: Shell) -> None:
    keys = {"documents", "pages", "by_status", "failed", "seconds", "batches", "asked"}
    code, said = shell.json("retry", "--reason", "repetition")
    assert (code, set(said), said["asked"]) == (0, keys, {"documents": 0, "pages": 0, "left_out": 0})
    code, said = shell.json("retry", "--reason", "damaged", "--since", "0m")
    assert (code, set(said), said["batches"]) == (0, keys, [])  # nothing failed in the last 0 minutes
    code, said = shell.json("retry", "--reason", "damaged", "--leave-to-sensor")
    assert (code, set(said), len(said["batches"]), said["asked"]["documents"]) == (0, keys, 1, 1)
    code, said = shell.json("retry", "--reason", "damaged", "--since", "1d")
    assert (code, set(said), said["documents"]) == (1, keys, 1)
    assert [entry["reason"] for entry in said["failed"]] == ["damaged"]
    code, _, err = shell("retry", "--reason", "bad_luck")
    assert code == 2
    assert "bad_luck" in err


def test_the_help_of_retry_names_every_reason_that_it_asks_for_unasked(shell: Shell) -> None:
    def failed(reason: Reason) -> PageRecord:
        return PageRecord(RenderedPage(number=1, rotation=0), None, PageStatus.FAILED, reason)

    told = shell("retry", "--help")[1]
    unasked = {reason for reason in REASONS if asks_again(failed(reason), [Reason.REPETITION])} - {Reason.REPETITION}
    assert {reason for reason in REASONS if f"`{reason}`" in told} == unasked


def test_a_rebuild_and_a_purge_say_what_they_did(shell: Shell) -> None:
    code, said = shell.json("rebuild-warehouse")
    assert (code, said["documents"], said["pages"]) == (0, 2, 2)
    code, said = shell.json("purge", "inbox/papers/river.pdf", "--yes")
    assert (code, said["rows"]["pages"], said["left"], said["found"]) == (0, 2, [], True)
    code, said = shell.json("purge", "inbox/papers/river.pdf", "--yes")
    assert (code, said["found"]) == (0, False)
    for arguments in (["inbox/papers/broken.pdf"], ["river.pdf", "--yes"]):
        code, out, err = shell("purge", *arguments)
        assert (code, out) == (2, "")
        assert "Traceback" not in err
    assert shell.json("status", "river") == (1, {"documents": [], "more": 0})


def test_a_purge_with_another_lake_takes_nothing_away(
    shell: Shell, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("OCR_LAKE", str(settings.data / "another-lake"))
        code, out, err = shell("purge", "inbox/papers/river.pdf", "--yes", "--json")
    assert (code, out) == (2, "")
    assert "is OCR_LAKE the right lake?" in err
    assert len(shell.json("search", "river")[1]["hits"]) == 2
    assert shell.json("status", "river")[1]["documents"][0]["stage"] == "tables"


BACKENDS = """
[[backend]]
name = "double"
url = "http://gpu-a.example:8000"
gpu = "rtx-4090"
model = "deepseek-ai/DeepSeek-OCR"
power_usd_per_month = 40.0
"""


def test_a_rebuild_takes_nothing_away_by_mistake_and_brings_prices_back(
    shell: Shell, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("OCR_LAKE", str(settings.data / "another-lake"))
        code, out, err = shell("rebuild-warehouse", "--json")
        assert (code, out) == (1, "")
        assert "is OCR_LAKE the right lake?" in err
        assert "The tables are as they were." in err
    assert shell.json("search", "page", "2")[0] == 0

    file = settings.data / "backends.toml"
    file.write_text(BACKENDS)
    prices = "SELECT backend, power_usd_per_month FROM ocr.backend_costs"
    with monkeypatch.context() as with_servers:
        with_servers.setenv("OCR_BACKENDS", str(file))
        assert shell.json("rebuild-warehouse")[0] == 0
    assert shell.json("rebuild-warehouse")[0] == 0  # on a machine that knows no servers, and no prices
    with Warehouse(settings.warehouse).read() as connection:
        assert connection.execute(prices).fetchall() == [("double", 40.0)]
    file.write_text(BACKENDS.replace("power_usd_per_month = 40.0", ""))
    with monkeypatch.context() as with_servers:
        with_servers.setenv("OCR_BACKENDS", str(file))
        assert shell.json("rebuild-warehouse")[0] == 0
    with Warehouse(settings.warehouse).read() as connection:
        assert connection.execute(prices).fetchall() == []  # the user has taken it back

    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("OCR_LAKE", str(settings.data / "another-lake"))
        code, said = shell.json("rebuild-warehouse", "--force")
    assert (code, said["documents"], len(said["missing_batches"])) == (0, 0, 1)


def test_a_warehouse_that_is_open_elsewhere_is_told_soon(
    shell: Shell, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("status", "search"):
        monkeypatch.setattr(f"ocr_pipeline.commands.{name}.WAIT_SECONDS", 0.1)
        with Warehouse(settings.warehouse).session():
            code, out, err = shell(name, "river")
        assert (code, out) == (2, "")
        assert "open in another program" in err


@pytest.mark.parametrize("name", ["retry", "ingest"])
def test_a_command_that_waits_for_the_tables_says_so_and_goes_on(shell: Shell, settings: Settings, name: str) -> None:
    more = settings.data / "more.pdf"
    more.write_bytes(numbered(1, "more"))
    arguments = {"retry": ["--reason", "damaged"], "ingest": [str(more)]}[name]
    with Warehouse(settings.warehouse).session():
        command = subprocess.Popen(
            [sys.executable, "-c", "from ocr_pipeline.cli import main; main()", name, *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert command.stderr is not None
        said = iter(command.stderr.readline, "")
        assert any(line.startswith(f"waiting for {settings.warehouse}: ") for line in said)
    command.communicate(timeout=120)
    assert command.returncode == (1 if name == "retry" else 0)


def test_a_list_that_cannot_be_read_is_told_by_its_key_and_the_question_is_answered_all_the_same(
    shell: Shell, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = open_storage(settings.lake)
    (batch,) = lake.list(keys.BATCHES)
    lake.write(batch.key, b'{"uploads": 1}')
    code, out, err = shell("status", "river")
    assert (code, "river" in out) == (0, True)
    assert f"{batch.key} is not the JSON that was written there" in err
    assert "settings" not in err
    assert shell("retry", "--reason", "repetition", "--leave-to-sensor")[0] == 0
    monkeypatch.setenv("OCR_BATCH_DOCUMENTS", "none")
    assert "the settings cannot be used: OCR_BATCH_DOCUMENTS" in shell("status", "river")[2]


def test_status_answers_without_dagsters_history_where_that_cannot_be_opened(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "/proc/none")
    code, out, err = shell("status", "river", "--json")
    (document,) = json.loads(out)["documents"]
    assert (code, document["stage"], document["status"], document["run"]) == (0, "tables", "ok", None)
    assert "without Dagster's history there is no run" in err
    assert "/proc/none" in err


@pytest.mark.parametrize(
    "arguments", [["status", "\udcff"], ["search", "river", "\udcff"], ["purge", "\udcff"], ["compare", "\udcff", "a"]]
)
def test_an_argument_that_is_no_utf8_is_a_mistake_and_not_a_traceback(shell: Shell, arguments: list[str]) -> None:
    code, out, err = shell(*arguments)
    assert (code, out) == (2, "")
    assert "'\\udcff' is not valid UTF-8" in err
