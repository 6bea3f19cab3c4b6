"""How a simulated server is set up: its options and the speeds of the GPU profiles.

Not here: the command line (`__main__`), what is wrong with a server (`faults`).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Profile:
    """The speed of one kind of machine with DeepSeek-OCR on vLLM.

    A decode step gives each running sequence one token and takes `step_seconds + n * step_seconds_each` for n of them.
    No trustworthy figure exists for either machine; these follow from memory bandwidth (6.7 GB of BF16 weights, all
    experts read at batch: 1008 GB/s gives at most 150 steps/s, 273 GB/s at most 41) and the vendor's 2500 tokens/s on
    an A100-40G. The `-as-asked` profiles are what the user's deployment documents expect of the machines instead.
    """

    max_num_seqs: int
    kv_tokens: int  # tokens that the KV cache holds
    prefill_tokens_per_second: float  # vision encoder included
    step_seconds: float
    step_seconds_each: float


PROFILES: dict[str, Profile] = {
    # 0.90 of 24 GB leaves 12.9 GiB at 60 KiB a token. 64 sequences: 3,077 tokens/s together, 122 for one alone.
    "rtx-4090": Profile(64, 226_000, 11_000.0, 0.008, 0.0002),
    # 0.30 of the unified memory. 64 sequences: 1,185 tokens/s together, 44 for one alone.
    "dgx-spark": Profile(64, 490_000, 4_000.0, 0.022, 0.0005),
    # Asked: --max-num-seqs 4 and 800 to 1,200 tokens/s.
    "rtx-4090-as-asked": Profile(4, 226_000, 11_000.0, 0.0038, 0.0),
    # Asked: --max-num-seqs 16 and 2,500 tokens/s.
    "dgx-spark-as-asked": Profile(16, 490_000, 11_000.0, 0.0064, 0.0),
    # The lab's server on one CPU core (serve.sh: --max-num-seqs 8, 1 GiB of KV cache), a little faster.
    "lab": Profile(8, 524_288, 5_000.0, 0.005, 0.0005),
}


@dataclass(frozen=True, slots=True)
class Options:
    """One server. Names are those of `vllm serve` where it has them."""

    port: int = 0  # 0: the system picks a free one
    profile: str = "rtx-4090"
    mode: str = "page"  # "page": grounded markdown made from the image's hash; "scripted": as the lab's tiny model
    speed: float = 1.0  # all model times are divided by this
    seconds_per_page: float | None = None  # each page holds its slot exactly this long, divided by speed
    mean_tokens: int = 800  # of a page's text, page mode
    model: str = "deepseek-ai/DeepSeek-OCR"
    max_model_len: int = 8192
    max_num_seqs: int | None = None  # None: the profile's
    kv_tokens: int | None = None
    max_num_queued_reqs: int | None = None  # vLLM's meaning: waiting and running together
    images_per_prompt: int | None = None  # vLLM: --limit-mm-per-prompt
    api_key: str | None = None
    scheduling_policy: str = "fcfs"  # or "priority"
    logits_processor: bool = True
    load_tracking: bool = False  # vLLM: --enable-server-load-tracking
    vllm_version: str = "0.32.0"  # before 0.32 prompt + max_tokens over the context: 400; then clamped
    journal: str | None = None  # file that every event is appended to, so that figures outlive a kill

    @property
    def speeds(self) -> Profile:
        return PROFILES[self.profile]

    @property
    def slots(self) -> int:
        return self.max_num_seqs if self.max_num_seqs is not None else self.speeds.max_num_seqs

    @property
    def kv_capacity(self) -> int:
        return self.kv_tokens if self.kv_tokens is not None else self.speeds.kv_tokens

    @property
    def clamps_max_tokens(self) -> bool:
        return tuple(int(part) for part in self.vllm_version.split(".")[:2]) >= (0, 32)

    def check(self) -> None:
        """ValueError for a server that vLLM would not start either, or that makes no sense."""
        if self.profile not in PROFILES:
            raise ValueError(f"no profile {self.profile!r}; there are {', '.join(PROFILES)}")
        if self.mode not in ("page", "scripted"):
            raise ValueError(f"mode is page or scripted, not {self.mode!r}")
        if self.scheduling_policy not in ("fcfs", "priority"):
            raise ValueError(f"scheduling policy is fcfs or priority, not {self.scheduling_policy!r}")
        if self.speed <= 0 or self.slots < 1 or self.mean_tokens < 20:
            raise ValueError("speed must be positive, max_num_seqs at least 1 and mean_tokens at least 20")
        if self.kv_capacity < self.max_model_len:
            raise ValueError(f"the KV cache of {self.kv_capacity} tokens is smaller than max_model_len")
