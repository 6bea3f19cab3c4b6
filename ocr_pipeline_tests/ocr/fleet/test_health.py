"""The circuit breaker, the watch for hung servers, and what is read from /metrics."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_pipeline.ocr.fleet.health import Breaker, BreakerRules, Condition, Progress
from ocr_pipeline.ocr.fleet.server_metrics import ServerMetrics, parse_metrics

RULES = BreakerRules(faults=3, first_wait=1.0, longest_wait=8.0, health_interval=3.0, misconfigured_wait=300.0)


def test_single_faults_between_good_answers_never_open_the_breaker():
    breaker = Breaker(RULES)
    for now in range(100):
        breaker = breaker.failure(now, "http_503").failure(now, "http_503").success()
    assert breaker == Breaker(RULES)


def test_faults_in_a_row_open_it_and_a_good_look_lets_one_page_through():
    breaker = Breaker(RULES).failure(0, "http_503").failure(0, "http_503").failure(0, "http_503")
    assert (breaker.condition, breaker.why, breaker.retry_at) == (Condition.OPEN, "http_503", 1.0)
    assert breaker.health_checked(0.5, healthy=True).condition is Condition.OPEN
    assert breaker.health_checked(1.0, healthy=True).condition is Condition.HALF_OPEN
    assert breaker.health_checked(1.0, healthy=True).success().condition is Condition.CLOSED


def test_a_failed_probe_doubles_the_wait_up_to_the_longest():
    breaker, now, waits = Breaker(RULES).opened(0, "died"), 0.0, []
    for _ in range(6):
        waits.append(breaker.retry_at - now)
        now = breaker.retry_at
        breaker = breaker.health_checked(now, healthy=True).failure(now, "connect_failed")
    assert waits == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


def test_a_server_that_stays_away_is_looked_at_again_and_again():
    breaker, now, waits = Breaker(RULES).opened(0, "died"), 0.0, []
    for _ in range(5):
        waits.append(breaker.retry_at - now)
        now = breaker.retry_at
        breaker = breaker.health_checked(now, healthy=False)
    assert waits == [1.0, 3.0, 3.0, 3.0, 3.0]
    assert breaker.health_checked(now + 3.0, healthy=True).condition is Condition.HALF_OPEN


def test_an_answer_from_before_the_trouble_does_not_close_an_open_breaker():
    assert Breaker(RULES).opened(0, "hung").success().condition is Condition.OPEN


def test_a_servers_retry_after_is_waited_for():
    breaker = Breaker(RULES).failure(0, "a").failure(0, "a").failure(0, "http_503", retry_after=20)
    assert breaker.retry_at == 20


def test_a_wrong_key_takes_the_server_out_for_a_long_while():
    breaker = Breaker(RULES).misconfigured(10, "unauthorized")
    assert breaker.is_misconfigured
    assert breaker.retry_at == 310
    assert breaker.health_checked(310, healthy=True).condition is Condition.HALF_OPEN


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["success", "failure", "opened", "misconfigured", "healthy", "unhealthy"]), st.floats(0, 100)
    )
)


@given(EVENTS)
def test_for_any_history_an_open_breaker_can_be_probed_and_closes_with_one_good_answer(events):
    breaker, now = Breaker(RULES), 0.0
    for event, passes in events:
        now += passes
        match event:
            case "success":
                breaker = breaker.success()
            case "failure":
                breaker = breaker.failure(now, "timeout", jitter=0.5)
            case "opened":
                breaker = breaker.opened(now, "died", jitter=1.0)
            case "misconfigured":
                breaker = breaker.misconfigured(now, "x")
            case "healthy":
                breaker = breaker.health_checked(now, healthy=True)
            case "unhealthy":
                breaker = breaker.health_checked(now, healthy=False)
        if breaker.condition is Condition.OPEN:
            assert breaker.retry_at <= now + max(RULES.longest_wait * 1.25, RULES.misconfigured_wait)
            probed = breaker.health_checked(breaker.retry_at, healthy=True)
            assert probed.condition is Condition.HALF_OPEN
            assert probed.success().condition is Condition.CLOSED


METRICS = """\
# HELP vllm:num_requests_running Number of requests
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="deepseek-ai/DeepSeek-OCR"} 3.0
vllm:num_requests_running{engine="1",model_name="a } b"} 1.0
vllm:num_requests_waiting{engine="0",model_name="m"} 2.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 99.0
vllm:kv_cache_usage_perc{engine="0"} 0.25
vllm:kv_cache_usage_perc{engine="1"} 0.5
vllm:generation_tokens_total{engine="0"} 1.5e+03
vllm:generation_tokens_created{engine="0"} 1.7e+09
process_start_time_seconds 1.79e+09
"""


def test_the_few_numbers_that_matter_are_read_over_all_engines():
    assert parse_metrics(METRICS) == ServerMetrics(
        running=4.0, waiting=2.0, kv_usage=0.5, generated=1500.0, started=1.79e9
    )


def test_metrics_of_another_program_say_nothing():
    assert parse_metrics("<html>login</html>") == ServerMetrics()


@given(st.text())
def test_no_text_breaks_the_reading_of_metrics(text):
    parse_metrics(text)


@given(st.lists(st.sampled_from(METRICS.splitlines()), max_size=8), st.text(max_size=10))
def test_broken_lines_never_give_a_number_that_is_none(lines, noise):
    metrics = parse_metrics("\n".join(line[: len(line) - index] + noise for index, line in enumerate(lines)))
    for value in (metrics.running, metrics.waiting, metrics.kv_usage, metrics.generated, metrics.started):
        assert value is None or 0 <= value < float("inf")


def test_a_server_that_runs_requests_and_makes_no_token_has_stalled():
    watch = Progress()
    for now in range(0, 50, 10):
        watch = watch.observe(ServerMetrics(running=4, generated=1000), in_flight=4, now=now)
    assert watch.stalled_for(40) == 40


def test_a_server_that_makes_tokens_or_runs_nothing_has_not_stalled():
    watch = Progress()
    for now in range(5):
        watch = watch.observe(ServerMetrics(running=4, generated=1000 + now), in_flight=4, now=now)
    assert watch.stalled_for(4) == 0
    watch = watch.observe(ServerMetrics(running=0, generated=1004), in_flight=0, now=100)
    assert watch.stalled_for(200) == 0


def test_a_server_that_does_not_count_tokens_is_never_called_hung():
    watch = Progress()
    for now in range(5):
        watch = watch.observe(ServerMetrics(running=4), in_flight=4, now=now)
    assert watch.stalled_for(1000) == 0


def test_counters_that_go_back_mean_a_restarted_server():
    watch = Progress().observe(ServerMetrics(generated=1000), 1, 0)
    assert watch.observe(ServerMetrics(generated=10), 1, 1).restarted
    assert not watch.observe(ServerMetrics(generated=1001), 1, 1).restarted
    watch = Progress().observe(ServerMetrics(started=1000.0), 1, 0)
    assert watch.observe(ServerMetrics(started=1060.0), 1, 1).restarted


STARTED = Progress(generated=500.0, started=1000.0)


@pytest.mark.parametrize(
    ("before", "says", "restarted"),
    [
        (STARTED, ServerMetrics(generated=0.0, started=1060.0), True),
        (STARTED, ServerMetrics(generated=501.0, started=1000.2), False),
        (Progress(generated=500.0), ServerMetrics(generated=20.0), True),
        (Progress(generated=500.0), ServerMetrics(generated=510.0), False),
        (Progress(generated=0.0), ServerMetrics(generated=0.0), None),  # nothing had been read yet: it may be either
        (Progress(), ServerMetrics(generated=0.0, started=1060.0), None),
        (STARTED, ServerMetrics(), None),
    ],
)
def test_another_process_is_told_from_the_same_one_where_its_numbers_can_tell(before, says, restarted):
    assert before.has_restarted(says) is restarted
