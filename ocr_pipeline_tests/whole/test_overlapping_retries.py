"""`ocr-pipeline retry` beside another retry of the same document: the command itself runs what brings both together."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta

import pytest

from ocr_pipeline import cli, wiring
from ocr_pipeline.flow.batch_run import StreamOptions
from ocr_pipeline.flow.loading import load
from ocr_pipeline.flow.publishing import publish
from ocr_pipeline.flow.service import OcrService
from ocr_pipeline.lake import planner
from ocr_pipeline.records import PageImage, Reason
from ocr_pipeline.settings import Settings
from ocr_pipeline.upkeep.retry import ask_again
from ocr_pipeline_tests.flow.doubles import Answer, ScriptedTranscriber
from ocr_pipeline_tests.pdfs import numbered


def test_a_retry_that_is_overtaken_while_it_reads_runs_the_follow_up_too(
    settings: Settings, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCR_TEXT_LAYER", "never")
    engine = ScriptedTranscriber(lambda image: {1: Reason.REPETITION, 2: Reason.TRUNCATED}.get(image.page_number))
    monkeypatch.setattr(wiring, "transcriber", lambda settings: lambda: engine)
    lake, warehouse = wiring.lake(settings), wiring.warehouse(settings)

    def command(*arguments: str) -> tuple[int, dict[str, object]]:
        capfd.readouterr()
        monkeypatch.setattr("sys.argv", ["ocr-pipeline", *arguments, "--json"])
        code = cli.run()
        return code, json.loads(capfd.readouterr().out)

    path = settings.data / "a.pdf"
    path.write_bytes(numbered(3))
    code, said = command("ingest", str(path))
    assert (code, said["by_status"]) == (1, {"ok": 1, "failed": 2})

    def another_retry() -> None:
        """For the other page, named later and done before."""
        now = datetime.now(UTC) + timedelta(seconds=5)  # batches are named by the second
        (later,) = ask_again(lake, warehouse, [Reason.TRUNCATED], limits=planner.BatchLimits(), now=now).batches
        service = OcrService(lake, ScriptedTranscriber, StreamOptions(render_workers=1, text_layer="never"))
        try:
            service.run(later)
        finally:
            service.close()
        publish(lake, later)
        load(lake, warehouse, later)

    pending = [another_retry]

    def script(image: PageImage) -> Answer | None:
        if pending:
            other = threading.Thread(target=pending.pop())
            other.start()
            other.join()
        return None

    engine.script = script
    code, said = command("retry", "--reason", "repetition")
    assert (code, said["by_status"], said["failed"]) == (0, {"ok": 3}, [])
    assert isinstance(said["batches"], list)
    assert len(said["batches"]) == 2
    with warehouse.read() as connection:
        rows = connection.execute("SELECT status, batch FROM ocr.pages").fetchall()
    assert rows == [("ok", said["batches"][1])] * 3
