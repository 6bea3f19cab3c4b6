"""/metrics: the names, the labels, and that the numbers add up."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor

import httpx

from ocr_pipeline_tests.vllm_contract.asking import (
    MODEL,
    PATH,
    body,
    data_url,
    idle_metrics,
    load,
    metrics,
    paused_when,
    picture,
    sent,
    wait_until,
)
from ocr_pipeline_tests.vllm_contract.conftest import Connect
from ocr_pipeline_tests.vllm_contract.servers import ServerUnderTest

FAMILIES: dict[str, tuple[str, frozenset[str]]] = {
    "vllm:num_requests_running": ("gauge", frozenset()),
    "vllm:num_requests_waiting": ("gauge", frozenset()),
    "vllm:num_requests_waiting_by_reason": ("gauge", frozenset({"reason"})),
    "vllm:engine_sleep_state": ("gauge", frozenset({"sleep_state"})),
    "vllm:kv_cache_usage_perc": ("gauge", frozenset()),
    "vllm:prefix_cache_queries_total": ("counter", frozenset()),
    "vllm:prefix_cache_hits_total": ("counter", frozenset()),
    "vllm:external_prefix_cache_queries_total": ("counter", frozenset()),
    "vllm:external_prefix_cache_hits_total": ("counter", frozenset()),
    "vllm:mm_cache_queries_total": ("counter", frozenset()),
    "vllm:mm_cache_hits_total": ("counter", frozenset()),
    "vllm:num_preemptions_total": ("counter", frozenset()),
    "vllm:prompt_tokens_total": ("counter", frozenset()),
    "vllm:prompt_tokens_by_source_total": ("counter", frozenset({"source"})),
    "vllm:prompt_tokens_cached_total": ("counter", frozenset()),
    "vllm:prompt_tokens_cached_by_source_total": ("counter", frozenset({"source"})),
    "vllm:generation_tokens_total": ("counter", frozenset()),
    "vllm:request_success_total": ("counter", frozenset({"finished_reason"})),
    "vllm:estimated_flops_per_gpu_total": ("counter", frozenset()),
    "vllm:estimated_read_bytes_per_gpu_total": ("counter", frozenset()),
    "vllm:estimated_write_bytes_per_gpu_total": ("counter", frozenset()),
}
"""Type, and labels beside `engine` and `model_name`. Three more are tested by themselves below."""

HISTOGRAMS = (
    "request_prompt_tokens", "request_generation_tokens", "iteration_tokens_total",
    "request_max_num_generation_tokens", "request_params_n", "request_params_max_tokens", "time_to_first_token_seconds",
    "inter_token_latency_seconds", "request_time_per_output_token_seconds", "e2e_request_latency_seconds",
    "request_queue_time_seconds", "request_inference_time_seconds", "request_prefill_time_seconds",
    "request_decode_time_seconds", "request_num_preemptions", "request_prefill_kv_computed_tokens",
)  # fmt: skip

PER_REQUEST = (
    "request_prompt_tokens", "request_generation_tokens", "request_params_max_tokens", "time_to_first_token_seconds",
    "request_time_per_output_token_seconds", "e2e_request_latency_seconds", "request_queue_time_seconds",
    "request_inference_time_seconds", "request_prefill_time_seconds", "request_decode_time_seconds",
    "request_prefill_kv_computed_tokens",
)  # fmt: skip


def test_it_is_prometheus_text(http: httpx.Client) -> None:
    answer = http.get("/metrics")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; version=1.0.0; charset=utf-8")


def test_the_families_have_these_types_and_labels(http: httpx.Client) -> None:
    http.post(PATH, json=body(max_tokens=2))
    reading = metrics(http)
    common = frozenset({"engine", "model_name"})
    for name, (kind, labels) in FAMILIES.items():
        assert reading.types[name] == kind, name
        assert reading.label_names(name) == {common | labels}, name


def test_the_label_values_are_known(http: httpx.Client) -> None:
    reading = metrics(http)
    for reason in ("stop", "length", "abort", "error", "repetition"):
        reading.get("request_success_total", finished_reason=reason, engine="0", model_name=MODEL)
    for reason in ("capacity", "deferred"):
        reading.get("num_requests_waiting_by_reason", reason=reason)
    for reason in ("max_num_queued_reqs", "max_num_queued_tokens"):
        reading.get("admission_rejections_total", reason=reason, model_name=MODEL)
    assert reading.get("engine_sleep_state", sleep_state="awake") == 1


def test_the_size_of_the_kv_memory_is_told(http: httpx.Client) -> None:
    [labels] = [dict(pairs) for (name, pairs) in metrics(http).samples if name == "vllm:cache_config_info"]
    assert int(labels["kv_cache_size_tokens"]) >= 8192
    assert labels["enable_prefix_caching"] == "False"


def test_histograms_end_in_a_bucket_that_holds_all(http: httpx.Client) -> None:
    http.post(PATH, json=body(max_tokens=3))
    reading = idle_metrics(http)
    for name in HISTOGRAMS:
        assert reading.types[f"vllm:{name}"] == "histogram"
        count = reading.get(f"{name}_count")
        assert count > 0, name
        assert reading.get(f"{name}_bucket", le="+Inf") == count, name
        assert reading.get(f"{name}_sum") >= 0, name


def test_buckets_of_the_request_latency_grow(http: httpx.Client) -> None:
    http.post(PATH, json=body(max_tokens=1))
    reading = metrics(http)
    buckets = sorted(
        (float(dict(pairs)["le"]), value)
        for (name, pairs), value in reading.samples.items()
        if name == "vllm:e2e_request_latency_seconds_bucket"
    )
    assert [bound for bound, _ in buckets][:4] == [0.3, 0.5, 0.8, 1.0]
    assert [value for _, value in buckets] == sorted(value for _, value in buckets)


def test_the_counters_add_up_to_what_the_answers_said(http: httpx.Client) -> None:
    before = idle_metrics(http)
    page = data_url(picture(700, 400))
    requests = [body(), body(), body(max_tokens=5), body("loop!"), body("Text.", page), body(max_tokens=0)]
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda request: http.post(PATH, json=request), requests))
    assert [answer.status_code for answer in answers] == [200] * 5 + [400]
    told = [answer.json()["usage"] for answer in answers[:5]]
    after = idle_metrics(http)

    def grown(name: str, **labels: str) -> float:
        return after.get(name, **labels) - before.get(name, **labels)

    assert grown("prompt_tokens_total") == sum(usage["prompt_tokens"] for usage in told)
    assert grown("prompt_tokens_by_source_total", source="local_compute") == grown("prompt_tokens_total")
    assert grown("generation_tokens_total") == sum(usage["completion_tokens"] for usage in told)
    assert grown("request_prompt_tokens_sum") == grown("prompt_tokens_total")
    assert grown("request_generation_tokens_sum") == grown("generation_tokens_total")
    assert grown("iteration_tokens_total_sum") == grown("prompt_tokens_total") + grown("generation_tokens_total")
    assert grown("request_success_total", finished_reason="stop") == 3
    assert grown("request_success_total", finished_reason="length") == 2
    for name in PER_REQUEST:
        assert grown(f"{name}_count") == 5, name


def test_requests_in_flight_are_seen_to_run_and_the_memory_to_fill(server: ServerUnderTest, http: httpx.Client) -> None:
    running, waiting, generated = "num_requests_running", "num_requests_waiting", "generation_tokens_total"
    idle_metrics(http)
    with contextlib.ExitStack() as connections:
        for _ in range(24):  # 8 slots: they stay full although some should be answered before the first look
            connections.enter_context(sent(server.url, body("loop!", max_tokens=8000)))
        with paused_when(server, http, lambda m: m.get(running) == 8 and m.get(waiting) > 0) as full:
            assert full.get("num_requests_waiting_by_reason", reason="capacity") == full.get(waiting)
            assert 0 < full.get("kv_cache_usage_perc") <= 1
        with paused_when(server, http, lambda m: m.get(generated) > full.get(generated)) as later:
            assert later.get(running) == 8
    assert idle_metrics(http).get("kv_cache_usage_perc") == 0


def test_a_client_that_goes_away_ends_its_request_and_is_counted_nowhere(
    plain_server: ServerUnderTest, connect: Connect
) -> None:
    http = connect(plain_server)
    before = idle_metrics(http)
    idle = load(http)
    with contextlib.ExitStack() as connection:
        connection.enter_context(sent(plain_server.url, body("loop!", max_tokens=8000)))
        with paused_when(plain_server, http, lambda m: m.get("num_requests_running") == 1):
            connection.close()
            wait_until(lambda: load(http) == idle, "the server never noticed that the client is gone")
    after = idle_metrics(http)
    for reason in ("stop", "length", "abort", "error"):
        assert after.get("request_success_total", finished_reason=reason) == before.get(
            "request_success_total", finished_reason=reason
        )
    assert after.get("e2e_request_latency_seconds_count") == before.get("e2e_request_latency_seconds_count")
