"""What a server says of itself in /metrics: the few numbers that matter, out of Prometheus text. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerMetrics:
    """What a server says of itself at one moment. None: it does not say."""

    running: float | None = None
    waiting: float | None = None
    kv_usage: float | None = None  # 0 to 1
    generated: float | None = None  # tokens since the server started
    started: float | None = None  # unix time of the server's process


_NAMES = {
    "vllm:num_requests_running": "running",
    "vllm:num_requests_waiting": "waiting",
    "vllm:kv_cache_usage_perc": "kv_usage",
    "vllm:gpu_cache_usage_perc": "kv_usage",  # the name up to 0.11
    "vllm:generation_tokens_total": "generated",
    "process_start_time_seconds": "started",
}
_FIRST_LETTERS = ("v", "p")


def parse_metrics(text: str) -> ServerMetrics:
    """Reads the few gauges and counters that matter from Prometheus text; everything else, broken or not, is skipped.

    Several engines behind one server (label `engine`) are added up; KV use and start time are the highest.
    """
    found: dict[str, float] = {}
    for line in text.splitlines():
        if not line.startswith(_FIRST_LETTERS):
            continue
        name, brace, rest = line.partition("{")
        if brace:
            labels_end = rest.rfind("}")
            number = rest[labels_end + 1 :] if labels_end >= 0 else ""
        else:
            name, _, number = line.partition(" ")
        field = _NAMES.get(name)
        if field is None:
            continue
        try:
            value = float(number.split()[0])
        except (ValueError, IndexError):
            continue
        if not 0 <= value < float("inf"):  # NaN fails this too
            continue
        highest = field in ("kv_usage", "started")
        found[field] = max(found.get(field, 0.0), value) if highest else found.get(field, 0.0) + value
    return ServerMetrics(**found)
