"""The GPU machines, as data: what was asked for each, the number that is in force, and why.

Here belongs one `GpuProfile` per machine and nothing that acts. A backend of the user's file names one of these or
gives its own numbers. None of it is part of the recipe but the dpi.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class DocumentShare:
    """How many pages of one document may be in flight on a machine at once, by the document's size."""

    up_to_pages: int | None  # None: every larger document
    pages_in_flight: int | None  # None: as many as the machine takes


@dataclass(frozen=True, slots=True)
class Asked:
    """One number of the deployment documents, what is in force instead, and the reason. Texts, for printing."""

    asked: str
    in_force: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProfile:
    """One kind of machine. Sizes in GB (10^9), speeds in tokens a second."""

    name: str
    size: Literal["small", "large"]  # the place in the routing rules: small is the default, large takes what is over
    max_in_flight: int  # pages it works on at once, where admission starts; one or two more wait there (admission.py)
    dpi: int  # pages are drawn at the lowest of the backends listed, under the model's cap
    max_pages: int | None = None  # a longer document goes to another backend while one is well; None: no limit
    document_shares: tuple[DocumentShare, ...] = (DocumentShare(None, None),)
    # serving
    max_model_len: int | None = None  # None: what the model itself can take
    gpu_memory_utilization: float
    max_num_seqs: int
    max_num_batched_tokens: int
    max_num_queued_reqs: int = 128  # waiting and running together; over it the server answers 503 at once
    min_vllm: tuple[int, int, int] = (0, 11, 1)
    pinned_vllm: str = "0.30.0"  # the release the serve command names: the last that serves both machines as it stands
    memory_gb: float
    table: Mapping[str, Asked] = field(default_factory=dict)  # by field: asked, in force, why


RTX_4090 = GpuProfile(
    name="rtx-4090",
    size="small",
    max_in_flight=24,
    dpi=150,
    max_pages=None,
    document_shares=(DocumentShare(9, None), DocumentShare(30, 8), DocumentShare(None, 1)),
    gpu_memory_utilization=0.90,
    max_num_seqs=64,
    max_num_batched_tokens=8192,
    memory_gb=24.0,
    table={
        "max_in_flight": Asked(
            "2 to 4",
            "24",
            "24 GB at 0.90 leave 12.9 GB for the KV cache, 60 KiB a token: 27 answers of full length at once, or 100 "
            "typical ones; 4 leave the card idle. Admission goes down from here by what the server says",
        ),
        "dpi": Asked("150 to 200", "150", "more than about 160 dpi changes nothing for this model"),
        "max_pages": Asked(
            "50 pages or out of memory",
            "none",
            "a request carries one page, so a document's length never touches the card's memory",
        ),
        "document_shares": Asked(
            "below 10 pages normally, 10 to 30 in batches of 5 to 10, above 30 one after the other",
            "below 10 all, up to 30 eight at a time, above that one (policy hybrid)",
            "as asked; it keeps one long document from filling the small card. Policy fastest has no such rule",
        ),
        "tokens_per_second": Asked(
            "800 to 1200", "what is measured", "no figure can be trusted; `fastest` gives each machine a page and looks"
        ),
        "max_model_len": Asked(
            "4096",
            "8192 (the model's)",
            "4096 leaves 3,180 tokens of text and cuts dense pages; 8192 is the model's own limit",
        ),
        "gpu_memory_utilization": Asked("0.90", "0.90", "right where the card drives no display"),
        "max_num_seqs": Asked("4", "64", "more slots than are asked for at once, so that two runs can share the card"),
        "max_num_batched_tokens": Asked("2048", "8192", "vLLM's recipe raises it for throughput: nine pages' images"),
        "quantization": Asked(
            "AWQ or GPTQ 4-bit", "none", "BF16 weights are 6.7 GB and fit; the checkpoints named do not exist"
        ),
        "mm_processor_kwargs": Asked(
            "max_image_size 1024", "none", "not a parameter of this model, silently ignored; pages are drawn to size"
        ),
        "vllm": Asked("0.6.4.post1", "0.30.0", "0.11.1 is the first release that knows the model"),
    },
)

DGX_SPARK = GpuProfile(
    name="dgx-spark",
    size="large",
    max_in_flight=20,
    dpi=300,
    max_pages=None,
    gpu_memory_utilization=0.30,
    max_num_seqs=64,
    max_num_batched_tokens=8192,
    min_vllm=(0, 24, 0),
    memory_gb=128.0,
    table={
        "hardware": Asked(
            "900 GB/s, 500 W, sm_100",
            "273 GB/s, about 140 W, sm_121",
            "what the machine is: aarch64, CUDA 13, 128 GB that system and GPU share",
        ),
        "max_in_flight": Asked("16 to 20", "20", "as asked; by memory bandwidth (273 GB/s) more would slow each page"),
        "dpi": Asked(
            "300",
            "300, under the model's cap of 1280x1920 pixels",
            "one image a page serves both machines, so the lowest dpi listed is drawn; more than about 160 dpi "
            "changes nothing for this model",
        ),
        "max_pages": Asked("no limit", "none", "as asked"),
        "tokens_per_second": Asked(
            "2500",
            "what is measured",
            "no figure can be trusted; by bandwidth the 4090 (1008 GB/s) should be "
            "the faster for this model. `ocr-pipeline benchmark` tells",
        ),
        "max_model_len": Asked("8192", "8192 (the model's)", "as asked, the model's own limit"),
        "gpu_memory_utilization": Asked(
            "0.95", "0.30", "the memory is shared with the system: 0.95 can freeze the machine; 0.30 is 490,000 tokens"
        ),
        "max_num_seqs": Asked("16", "64", "more slots than are asked for at once, so that two runs can share it"),
        "max_num_batched_tokens": Asked("8192", "8192", "as asked"),
        "vllm": Asked(
            "NGC 25.02",
            "0.30.0",
            "before 0.24 a failed start keeps the unified memory until a reboot; GB10 (sm_121) needs CUDA 13",
        ),
    },
)

GPUS: Mapping[str, GpuProfile] = {profile.name: profile for profile in (RTX_4090, DGX_SPARK)}
