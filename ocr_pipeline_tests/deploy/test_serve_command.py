"""`ocr-pipeline serve-command`: a line that a script can take, and no line for a server that cannot work."""

from __future__ import annotations

import shlex

import pytest
from click.testing import CliRunner

from ocr_pipeline.commands.serve_command import command


def test_the_line_stands_alone_on_stdout_and_what_to_know_about_it_is_on_stderr() -> None:
    done = CliRunner().invoke(command, ["dgx-spark"], standalone_mode=False)
    assert done.return_value == 0
    (line,) = done.stdout.splitlines()
    assert shlex.split(line)[1:3] == ["vllm", "serve"]
    notes = done.stderr.splitlines()
    assert [note for note in notes if "restart it always" in note]
    assert all(note.startswith("# ") for note in notes)


def test_no_line_is_printed_that_quantises_the_models_own_weights() -> None:
    done = CliRunner().invoke(command, ["rtx-4090", "--quantization", "awq"])
    assert done.exit_code == 2
    assert not done.stdout
    assert "--quantization awq needs --checkpoint" in done.stderr
    own = CliRunner().invoke(command, ["rtx-4090", "--quantization", "awq", "--checkpoint", "/models/own-awq"])
    assert "serve /models/own-awq" in own.stdout


@pytest.mark.parametrize("port", ["0", "-1", "65536", "99999"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    done = CliRunner().invoke(command, ["rtx-4090", "--port", port])
    assert done.exit_code == 2
    assert not done.stdout
