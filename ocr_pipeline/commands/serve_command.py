"""`ocr-pipeline serve-command`: the exact `vllm serve` line of a GPU profile."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from ocr_pipeline.ocr.vllm.gpus import GPUS
from ocr_pipeline.ocr.vllm.models import MODELS
from ocr_pipeline.ocr.vllm.serve import serve_command


@click.command("serve-command")
@click.argument("gpu", type=click.Choice(sorted(GPUS)))
@click.option("--model", default="deepseek-ai/DeepSeek-OCR", show_default=True, type=click.Choice(sorted(MODELS)))
@click.option("--checkpoint", help="Other weights of the same model: a path or a name.")
@click.option("--quantization", help="How those weights are quantised, as vLLM names it.")
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, and nothing else there.")
def command(gpu: str, model: str, checkpoint: str | None, quantization: str | None, port: int, as_json: bool) -> int:
    """Print how to start vLLM on this machine: the flags that the client's profile counts on.

    The line goes to stdout, alone, so that a script can take it; what to know about it, as comments, to stderr.
    """
    if quantization and not checkpoint:
        raise click.UsageError(
            f"--quantization {quantization} needs --checkpoint: {model} itself is in BF16, and vLLM loads weights that "
            "somebody has quantised, it does not make them"
        )
    line = serve_command(GPUS[gpu], MODELS[model], checkpoint=checkpoint, quantization=quantization, port=port)
    if as_json:
        click.echo(json.dumps(asdict(line)))
        return 0
    for note in line.notes:
        click.echo(f"# {note}", err=True)
    click.echo(line.line())
    return 0
