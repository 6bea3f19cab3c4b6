"""/metrics: the families of vLLM 0.32.0 with its names, labels and buckets, in the Prometheus text format.

The numbers are the engine's own, so they add up. Families that say nothing here (caches that are off, FLOPs) are 0.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence

from ocr_pipeline_tests.simulator.engine import Engine, Job
from ocr_pipeline_tests.simulator.options import Options

_TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
_ITERATION = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
_FIRST = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640,
          2560)  # fmt: skip
_BETWEEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
_REQUEST = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)

_HISTOGRAMS: dict[str, tuple[Sequence[float], str]] = {
    "request_prompt_tokens": (_TOKENS, "Number of prefill tokens processed."),
    "request_generation_tokens": (_TOKENS, "Number of generation tokens processed."),
    "iteration_tokens_total": (_ITERATION, "Histogram of number of tokens per engine_step."),
    "request_max_num_generation_tokens": (_TOKENS, "Histogram of maximum number of requested generation tokens."),
    "request_params_n": ((1, 2, 5, 10, 20), "Histogram of the n request parameter."),
    "request_params_max_tokens": (_TOKENS, "Histogram of the max_tokens request parameter."),
    "time_to_first_token_seconds": (_FIRST, "Histogram of time to first token in seconds."),
    "inter_token_latency_seconds": (_BETWEEN, "Histogram of inter-token latency in seconds."),
    "request_time_per_output_token_seconds": (_BETWEEN, "Histogram of time_per_output_token_seconds per request."),
    "e2e_request_latency_seconds": (_REQUEST, "Histogram of e2e request latency in seconds."),
    "request_queue_time_seconds": (_REQUEST, "Histogram of time spent in WAITING phase for request."),
    "request_inference_time_seconds": (_REQUEST, "Histogram of time spent in RUNNING phase for request."),
    "request_prefill_time_seconds": (_REQUEST, "Histogram of time spent in PREFILL phase for request."),
    "request_decode_time_seconds": (_REQUEST, "Histogram of time spent in DECODE phase for request."),
    "request_num_preemptions": ((1, 2, 3, 4, 5, 10, 20), "Histogram of the number of times a request was preempted."),
    "request_prefill_kv_computed_tokens": (_TOKENS, "Histogram of new KV tokens computed during prefill."),
}
_UNUSED_COUNTERS = (
    "estimated_flops_per_gpu", "estimated_read_bytes_per_gpu", "estimated_write_bytes_per_gpu", "prefix_cache_queries",
    "prefix_cache_hits", "external_prefix_cache_queries", "external_prefix_cache_hits", "mm_cache_queries",
    "mm_cache_hits", "prompt_tokens_cached",
)  # fmt: skip


class _Histogram:
    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        self.counts[bisect.bisect_left(self.bounds, value)] += times
        self.sum += value * times


class Exposition:
    def __init__(self, options: Options, engine: Engine) -> None:
        self._options = options
        self._engine = engine
        self._histograms = {name: _Histogram(bounds) for name, (bounds, _) in _HISTOGRAMS.items()}
        self.rejections = 0
        self._frozen: tuple[int, int, float] | None = None

    def freeze_gauges(self, frozen: bool) -> None:
        """A hung engine reports nothing: the gauges keep the values of the moment it hung."""
        self._frozen = self._gauges() if frozen else None

    def _gauges(self) -> tuple[int, int, float]:
        if self._frozen is not None:
            return self._frozen
        return self._engine.running, self._engine.waiting, self._engine.kv_usage

    def observe(self, job: Job, max_tokens: int, n: int) -> None:
        """A job that has ended with an answer."""
        assert job.started is not None
        assert job.first_token is not None
        assert job.ended is not None
        decode = job.ended - job.first_token
        between = decode / (job.tokens - 1) if job.tokens > 1 else 0.0
        values = {
            "request_prompt_tokens": job.prompt_tokens,
            "request_generation_tokens": job.tokens,
            "request_max_num_generation_tokens": job.tokens,
            "request_params_n": n,
            "request_params_max_tokens": max_tokens,
            "time_to_first_token_seconds": job.first_token - job.arrived,
            "request_time_per_output_token_seconds": between,
            "e2e_request_latency_seconds": job.ended - job.arrived,
            "request_queue_time_seconds": job.started - job.arrived,
            "request_inference_time_seconds": job.ended - job.started,
            "request_prefill_time_seconds": job.first_token - job.started,
            "request_decode_time_seconds": decode,
            "request_num_preemptions": job.preemptions,
            "request_prefill_kv_computed_tokens": job.prompt_tokens,
            "iteration_tokens_total": job.prompt_tokens + 1,
        }
        for name, value in values.items():
            self._histograms[name].observe(value)
        if job.tokens > 1:
            self._histograms["inter_token_latency_seconds"].observe(between, job.tokens - 1)
            self._histograms["iteration_tokens_total"].observe(1, job.tokens - 1)

    def text(self) -> bytes:
        lines: list[str] = []
        running, waiting, kv_usage = self._gauges()
        counters = self._engine.counters
        model = self._options.model

        def family(name: str, kind: str, help_text: str, samples: Sequence[tuple[Mapping[str, str], float]]) -> None:
            full = f"vllm:{name}_total" if kind == "counter" else f"vllm:{name}"
            lines.extend((f"# HELP {full} {help_text}", f"# TYPE {full} {kind}"))
            for labels, value in samples:
                lines.append(_sample(full, labels, value))

        def one(value: float, **labels: str) -> tuple[Mapping[str, str], float]:
            return {"engine": "0", "model_name": model, **labels}, value

        family("num_requests_running", "gauge", "Number of requests in model execution batches.", [one(running)])
        family("num_requests_waiting", "gauge", "Number of requests waiting to be processed.", [one(waiting)])
        by_reason = [one(waiting, reason="capacity"), one(0, reason="deferred")]
        family("num_requests_waiting_by_reason", "gauge", "Number of waiting requests by reason.", by_reason)
        states = [one(1, sleep_state="awake"), one(0, sleep_state="weights_offloaded"),
                  one(0, sleep_state="discard_all")]  # fmt: skip
        family("engine_sleep_state", "gauge", "Engine sleep state.", states)
        family("kv_cache_usage_perc", "gauge", "KV-cache usage. 1 means 100 percent usage.", [one(kv_usage)])
        for name in _UNUSED_COUNTERS:
            family(name, "counter", "Always 0 here.", [one(0)])
        family("num_preemptions", "counter", "Cumulative number of preemption from the engine.",
               [one(counters.preemptions)])  # fmt: skip
        prompt = counters.prompt_tokens
        family("prompt_tokens", "counter", "Number of prefill tokens processed.", [one(prompt)])
        sources = [one(prompt, source="local_compute"), one(0, source="local_cache_hit"),
                   one(0, source="external_kv_transfer")]  # fmt: skip
        family("prompt_tokens_by_source", "counter", "Number of prompt tokens by source.", sources)
        tiers = [one(0, source=tier) for tier in ("device", "host", "p2p", "disk", "external_unspecified")]
        family("prompt_tokens_cached_by_source", "counter", "Prefix-cache hit tokens by the cache tier.", tiers)
        family("generation_tokens", "counter", "Number of generation tokens processed.",
               [one(self._engine.generation_tokens)])  # fmt: skip
        finished = {**counters.finished, "abort": 0, "error": 0}
        reasons = [one(finished[reason], finished_reason=reason)
                   for reason in ("stop", "length", "abort", "error", "repetition")]  # fmt: skip
        family("request_success", "counter", "Count of successfully processed requests.", reasons)
        rejected = {"max_num_queued_reqs": self.rejections, "max_num_queued_tokens": 0}
        family("admission_rejections", "counter", "Number of admission attempts rejected by a queue limit, by reason.",
               [({"model_name": model, "reason": reason}, value) for reason, value in rejected.items()])  # fmt: skip
        for name, histogram in self._histograms.items():
            family(name, "histogram", _HISTOGRAMS[name][1], ())
            lines.extend(self._buckets(name, histogram))
        capacity = self._options.kv_capacity
        cache = {"block_size": "16", "cache_dtype": "auto", "enable_prefix_caching": "False",
                 "kv_cache_max_concurrency": f"{capacity / self._options.max_model_len:.1f}",
                 "kv_cache_size_tokens": str(capacity), "num_gpu_blocks": str(capacity // 16)}  # fmt: skip
        family(
            "cache_config_info", "gauge", "Information of the LLMEngine CacheConfig", [({"engine": "0", **cache}, 1)]
        )
        return ("\n".join(lines) + "\n").encode()

    def _buckets(self, name: str, histogram: _Histogram) -> list[str]:
        labels = {"engine": "0", "model_name": self._options.model}
        lines, total = [], 0
        for bound, count in zip([*map(float, histogram.bounds), "+Inf"], histogram.counts, strict=True):
            total += count
            lines.append(_sample(f"vllm:{name}_bucket", {**labels, "le": str(bound)}, total))
        lines.append(_sample(f"vllm:{name}_count", labels, total))
        lines.append(_sample(f"vllm:{name}_sum", labels, histogram.sum))
        return lines


def _sample(name: str, labels: Mapping[str, str], value: float) -> str:
    inner = ",".join(f'{key}="{labels[key]}"' for key in sorted(labels))
    return f"{name}{{{inner}}} {float(value)}"
