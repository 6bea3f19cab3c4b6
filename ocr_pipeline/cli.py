"""The `ocr-pipeline` command: its list of subcommands, and how errors become exit codes. Each subcommand is a module of
`commands/`, imported when it is called, so that `--help` does not import Dagster.
"""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from ocr_pipeline.commands import interrupts, streams

COMMANDS = {
    "ingest": "Put PDFs into the inbox and take them all the way to the tables.",
    "demo": "Take the sample PDFs through the whole pipeline and say what to look at.",
    "doctor": "Check lake, warehouse and every backend; each failure with its mend.",
    "status": "Where is my document: stage, batch, run, pages done, reason.",
    "search": "Find the pages whose text holds some words.",
    "retry": "Ask again for the pages that failed for some reasons.",
    "compare": "What a new recipe (model, prompt, sampling) changed, page by page.",
    "purge": "Forget a document everywhere, and prove it.",
    "rebuild-warehouse": "Make all tables again from the Parquet files in the lake.",
    "serve-command": "Print the exact `vllm serve` line of a GPU profile.",
    "benchmark": "How fast your own servers read your own pages, and the setting for each.",
    "review": "Look at what was read: a web app on this machine, pages beside their images, search, overview.",
    "metrics": "Serve figures for Prometheus: pages by status, each backend's queue and condition, cost.",
    "dagster-home": "Print the folder where Dagster keeps its history (made where it is missing).",
}


@contextmanager
def _no_collection() -> Iterator[None]:
    """What is imported stays: looking for garbage meanwhile, and at all of it again later, finds nothing.

    With Dagster it was 0.25 CPU s and more of the 3.5 that a command of one page takes on a quiet machine.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


class _Text(click.types.StringParamType):
    """Text that can be looked for, stored and printed. An argument that is no UTF-8 arrives with lone surrogates."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text: str = super().convert(value, param, ctx)
        try:
            text.encode()
        except UnicodeEncodeError:
            self.fail(f"{text!a} is not valid UTF-8", param, ctx)
        return text


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        with _no_collection():
            module = importlib.import_module(f"ocr_pipeline.commands.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        for parameter in command.params:
            if isinstance(parameter.type, click.types.StringParamType):  # paths are bytes, and may be anything
                parameter.type = _Text()
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ocr-pipeline")
def cli() -> None:
    """PDFs from a bucket become markdown in tables, Parquet and files.

    Settings come from the environment and a .env file; `ocr-pipeline doctor` prints those in force.
    """


def main() -> None:
    """Entry point of the process."""
    streams.prepare()
    interrupts.watch()
    sys.exit(run())


def run() -> int:
    """Exit code of the command in `sys.argv`: 0 fine, 1 something failed and is listed, 2 usage or configuration, 130
    Ctrl-C."""
    from pydantic import ValidationError

    try:
        code = cli.main(standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Abort:
        code = interrupts.CODE
    except click.ClickException as error:
        error.show()
        code = 2
    except ValidationError as error:
        if error.title != "Settings":
            raise
        lines = "; ".join(
            f"{'.'.join(map(str, e['loc']))}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors(include_input=False)
        )
        click.echo(f"Error: the settings cannot be used: {lines}", err=True)
        code = 2
    except KeyboardInterrupt:
        code = interrupts.CODE
    except Exception as error:
        code = _exit_code_of(error)
    return code if isinstance(code, int) else 0


def _exit_code_of(error: Exception) -> int:
    """Errors that tell the user what to do are shown as they are; anything else is a bug and keeps its traceback."""
    from ocr_pipeline.commands import errors

    told = errors.message(error)
    if told is None:
        raise error
    click.echo(f"Error: {told}", err=True)
    return 2
