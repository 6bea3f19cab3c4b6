"""The `vllm serve` line for a GPU profile and a model profile: the same numbers that the client counts on.

Here belongs the line only; containers and clusters are under deploy/.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from ocr_pipeline.ocr.vllm.gpus import GpuProfile
from ocr_pipeline.ocr.vllm.models import ModelProfile


@dataclass(frozen=True, slots=True)
class ServeCommand:
    """`env` goes before `argv`; `notes` are for the person who runs it."""

    env: Mapping[str, str]
    argv: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def line(self) -> str:
        """One line for a POSIX shell."""
        return " ".join((*(f"{name}={shlex.quote(value)}" for name, value in self.env.items()), shlex.join(self.argv)))


def serve_command(
    gpu: GpuProfile,
    model: ModelProfile,
    *,
    served_model: str | None = None,
    checkpoint: str | None = None,
    quantization: str | None = None,
    port: int = 8000,
) -> ServeCommand:
    """How to start vLLM for this machine and model.

    `checkpoint` is another set of weights of the same model (a path or a name), served under the model's name, so
    that no recipe changes; `quantization` goes with it. The environment makes one line right for every release that
    knows the model.
    """
    name = served_model or model.model
    argv = ["vllm", "serve", checkpoint or model.model, "--served-model-name", name, "--port", str(port)]
    if model.revision and not checkpoint:
        argv += ["--revision", model.revision]
    if model.logits_processor:
        argv += ["--logits-processors", model.logits_processor]
    argv += [
        *model.serve_args,
        "--max-model-len",
        str(gpu.max_model_len or model.context_length),
        "--max-num-batched-tokens",
        str(gpu.max_num_batched_tokens),
        "--max-num-seqs",
        str(gpu.max_num_seqs),
        "--max-num-queued-reqs",
        str(gpu.max_num_queued_reqs),
        "--gpu-memory-utilization",
        f"{gpu.gpu_memory_utilization:.2f}",
        "--scheduling-policy",
        "priority",
        "--enable-request-id-headers",
    ]
    if quantization:
        argv += ["--quantization", quantization]
    return ServeCommand(env=dict(model.later_env), argv=tuple(argv), notes=_notes(gpu, model))


def _notes(gpu: GpuProfile, model: ModelProfile) -> tuple[str, ...]:
    least = max(gpu.min_vllm, model.min_vllm or gpu.min_vllm)
    return (
        f"vLLM {gpu.pinned_vllm} is the release to pin; {dotted(least)} is the first that serves {model.model} here, "
        "and --max-num-queued-reqs is not known before 0.29",
        "restart it always, not on failure: a server whose engine died can exit with code 0",
        "set VLLM_API_KEY, or let nobody reach the port: /metrics and /health stay open even so",
        f"{model.model}: licence {model.licence}, {model.weights_gb:g} GB of weights",
        *(f"{field}: {row.in_force} (asked: {row.asked}): {row.why}" for field, row in gpu.table.items()),
        *(f"{about}: {why}" for about, why in model.why.items()),
    )


def dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
