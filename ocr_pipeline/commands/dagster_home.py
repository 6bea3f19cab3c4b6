"""`ocr-pipeline dagster-home`: for scripts that start Dagster themselves."""

from __future__ import annotations

import click

from ocr_pipeline.runs import instance
from ocr_pipeline.settings import Settings


@click.command("dagster-home")
def command() -> None:
    """Print the folder where Dagster keeps its history (made where it is missing).

    \b
    export DAGSTER_HOME=$(ocr-pipeline dagster-home)
    """
    click.echo(instance.home(Settings()))
