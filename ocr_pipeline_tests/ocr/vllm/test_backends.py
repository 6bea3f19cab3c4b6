"""The user's file of GPU servers: what it becomes, and what a mistake in it says."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ocr_pipeline
from ocr_pipeline.ocr.vllm import backends_file
from ocr_pipeline.ocr.vllm.backends import BackendsConfig, geometry
from ocr_pipeline.ocr.vllm.backends_file import ConfigError, load_backends
from ocr_pipeline.ocr.vllm.gpus import DGX_SPARK, GPUS, RTX_4090, DocumentShare
from ocr_pipeline.ocr.vllm.models import DEEPSEEK_OCR, DEEPSEEK_OCR_2

EXAMPLE = Path(ocr_pipeline.__file__).parents[1] / "deploy" / "backends.example.toml"
VARIABLES = {
    "GPU_A_API_KEY": "key-a",
    "GPU_B_API_KEY": "key-b",
    "CF_ACCESS_CLIENT_ID": "id.access",
    "CF_ACCESS_CLIENT_SECRET": "s3cret",
}

ONE = """
[[backend]]
name = "rtx4090"
url = "http://gpu-a.example:8000/"
gpu = "rtx-4090"
model = "deepseek-ai/DeepSeek-OCR"
"""


@pytest.fixture
def load(tmp_path: Path):  # type: ignore[no-untyped-def]
    def load(text: str, variables: dict[str, str] | None = None) -> BackendsConfig:
        path = tmp_path / "backends.toml"
        path.write_text(text, encoding="utf-8")
        return load_backends(path, (VARIABLES if variables is None else variables).get)

    return load


def complaint(load, text: str, variables: dict[str, str] | None = None) -> str:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError) as told:
        load(text, variables)
    assert "backends.toml" in str(told.value)
    return str(told.value)


def test_an_entry_takes_the_numbers_of_its_profiles(load) -> None:
    config = load(ONE)
    [backend] = config.backends
    assert (backend.name, backend.url) == ("rtx4090", "http://gpu-a.example:8000")
    assert (backend.gpu, backend.model) == (RTX_4090, DEEPSEEK_OCR)
    assert backend.served_model == "deepseek-ai/DeepSeek-OCR"
    assert (backend.max_in_flight, backend.dpi, backend.max_pages) == (RTX_4090.max_in_flight, 150, None)
    assert backend.max_model_len == 8192
    assert backend.api_key is None
    assert (config.policy, config.large_document_pages, config.queue_limit) == ("hybrid", 20, 5)


def test_numbers_of_an_entry_and_of_the_rules_can_be_given(load) -> None:
    config = load(
        'policy = "fastest"\nqueue_limit = 0\nlarge_document_pages = 30\nstage = "development"\nsla = true\n'
        + ONE
        + 'max_in_flight = 4\ndpi = 200\nmax_pages = 50\ntimeout = 30\nserved_model = "ocr"\nmax_model_len = 4096\n'
    )
    [backend] = config.backends
    assert (backend.max_in_flight, backend.dpi, backend.max_pages, backend.timeout) == (4, 200, 50, 30.0)
    assert (backend.served_model, backend.max_model_len) == ("ocr", 4096)
    assert (config.policy, config.queue_limit, config.large_document_pages) == ("fastest", 0, 30)
    assert (config.stage, config.sla) == ("development", True)


def test_a_machine_without_a_profile_has_its_own_numbers(load) -> None:
    own = 'gpu = { name = "a100", size = "large", max_in_flight = 64, dpi = 120, document_shares = [[9, 0], [0, 4]] }'
    [backend] = load(ONE.replace('gpu = "rtx-4090"', own)).backends
    assert (backend.gpu.name, backend.gpu.size, backend.max_in_flight, backend.dpi) == ("a100", "large", 64, 120)
    assert backend.gpu.document_shares == (DocumentShare(9, None), DocumentShare(None, 4))


def test_secrets_come_from_variables_and_are_in_no_text(load) -> None:
    config = load(
        ONE
        + 'api_key_env = "GPU_A_API_KEY"\n[backend.headers_env]\nCF-Access-Client-Secret = "CF_ACCESS_CLIENT_SECRET"'
    )
    [backend] = config.backends
    assert backend.api_key is not None
    assert backend.api_key.get_secret_value() == "key-a"
    assert backend.headers["CF-Access-Client-Secret"].get_secret_value() == "s3cret"
    assert "key-a" not in repr(config)
    assert "s3cret" not in repr(config)


@pytest.mark.parametrize(("model", "long", "short"), [(DEEPSEEK_OCR, 1920, 1280), (DEEPSEEK_OCR_2, 2304, 1536)])
def test_pages_are_drawn_at_the_lowest_dpi_listed_under_the_cap_of_the_model(load, model, long, short) -> None:
    two = ONE + ONE.replace("rtx4090", "spark").replace("rtx-4090", "dgx-spark").replace("gpu-a", "gpu-b")
    drawn = geometry(load(two.replace("deepseek-ai/DeepSeek-OCR", model.model)))
    assert (drawn.dpi, drawn.max_long_side, drawn.max_short_side) == (150, long, short)
    spark = ONE.replace("rtx-4090", "dgx-spark").replace("deepseek-ai/DeepSeek-OCR", model.model)
    assert geometry(load(spark)).dpi == 300


WRONG = [
    ("", "top of the file: lists no backend"),
    ("backend = 5", "lists no backend"),
    ("[backend]\nname = 'x'", "lists no backend"),
    ("polcy = 'hybrid'" + ONE, "top of the file polcy: unknown key; known are policy"),
    ("policy = 'quickest'" + ONE, 'must be one of "hybrid", "fastest"'),
    ("sla = 1" + ONE, "must be one of true, false"),
    ("queue_limit = -1" + ONE, "queue_limit: must be a whole number"),
    ("queue_limit = true" + ONE, "queue_limit: must be a whole number"),
    (ONE + "max_inflight = 5", "(rtx4090) max_inflight: unknown key"),
    (ONE + "dpi = 150.5", "dpi: must be a whole number"),
    (ONE + "max_in_flight = 0", "max_in_flight: must be a whole number of at least 1"),
    (ONE + "timeout = nan", "timeout: must be a number"),
    (ONE + "timeout = 0", "timeout: must be from 1"),
    (ONE + "max_model_len = 1000", "max_model_len: deepseek-ai/DeepSeek-OCR takes 1000 tokens"),
    (ONE + "max_model_len = 9000", "at most 8192"),
    (ONE + 'served_model = ""', "served_model: must be a text"),
    (ONE.replace("rtx-4090", "rtx-409"), "gpu: no profile 'rtx-409'; one of rtx-4090, dgx-spark"),
    (ONE.replace('"rtx-4090"', '{ name = "x" }'), "size: is missing"),
    (ONE.replace('"rtx-4090"', "5"), "gpu: no profile 5"),
    (ONE.replace("DeepSeek-OCR", "DeepSeek-OCR-9"), "no profile 'deepseek-ai/DeepSeek-OCR-9'; known are"),
    (ONE.replace('name = "rtx4090"', ""), "name: is missing"),
    (ONE.replace('gpu = "rtx-4090"', ""), "gpu: is missing"),
    (ONE.replace('model = "deepseek-ai/DeepSeek-OCR"', ""), "model: is missing"),
    (ONE.replace('url = "http://gpu-a.example:8000/"', ""), "url: is missing"),
    (ONE.replace("http://gpu-a.example:8000/", "gpu-a.example:8000"), "url: must be the server's root"),
    (ONE.replace("http://gpu-a.example:8000/", "ftp://gpu-a.example"), "url: must be the server's root"),
    (ONE.replace("http://gpu-a.example:8000/", "http://gpu-a.example:99999"), "url: not an address"),
    (ONE.replace("http://gpu-a.example:8000/", "http://[::1"), "url: not an address"),
    (ONE.replace(":8000/", ":8000/v1"), "without /v1: 'http://gpu-a.example:8000'"),
    (ONE.replace("http://gpu-a.example:8000/", "http://me:pw@gpu-a.example"), "must hold no user or password"),
    (ONE.replace(":8000/", ":8000/v1/models"), "without /v1: 'http://gpu-a.example:8000'"),
    (ONE + ONE, "'rtx4090' is there 2 times"),
    (ONE + ONE.replace("rtx4090", "b"), "url: http://gpu-a.example:8000 is there 2 times; one server is one backend"),
    (ONE + '[backend.headers_env]\nContent-Length = "GPU_A_API_KEY"', "is written by this program"),
    (ONE + '[backend.headers_env]\nhost = "GPU_A_API_KEY"', "is written by this program"),
    (
        ONE + 'api_key_env = "GPU_A_API_KEY"\n[backend.headers_env]\nAuthorization = "GPU_B_API_KEY"',
        "stands beside api_key_env",
    ),
    (ONE + ONE.replace("rtx4090", "b").replace("DeepSeek-OCR", "DeepSeek-OCR-2"), "serve one model"),
    (ONE + 'api_key_env = "NOBODY_SET_THIS"', "the variable NOBODY_SET_THIS is not set"),
    (ONE + "headers_env = 5", "headers_env: must be a table"),
    (ONE + '[backend.headers_env]\n"bad header" = "GPU_A_API_KEY"', "is not a header's name"),
    (ONE + "[backend.headers_env]\nX-A = 5", "must name a variable"),
    ("not toml = = ", "not TOML"),
]


@pytest.mark.parametrize(("text", "said"), WRONG, ids=[said for _, said in WRONG])
def test_a_mistake_says_where_it_is_and_what_to_write_instead(load, text: str, said: str) -> None:
    assert said in complaint(load, text)


def test_all_mistakes_are_told_at_once(load) -> None:
    told = complaint(load, "a = 1\nb = 2\n" + ONE + "c = 3\ndpi = 0")
    assert all(f" {key}: " in told for key in "abc")
    assert "dpi: " in told


def test_a_secret_that_stands_where_a_name_belongs_is_not_repeated(load) -> None:
    for secret in ("sk-live-5f3", "sk_live_5f3", "hf_AbCdEf0123", "eyJhbGciOi"):
        assert secret not in complaint(load, ONE + f'api_key_env = "{secret}"')
        assert secret not in complaint(load, ONE.replace(":8000/", f":8000/?token={secret}"))
        assert secret not in complaint(load, ONE.replace(":8000/", f":{secret}/"))
        assert secret not in complaint(load, ONE.replace("http://", f"ftp://me:{secret}@"))
        assert secret not in complaint(load, ONE.replace("http://", f"me:{secret}@"))
    assert "two\nlines" not in complaint(load, ONE + 'api_key_env = "K"', {"K": "two\nlines"})


def test_a_file_that_is_not_there_or_not_utf8_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_backends(tmp_path / "none.toml", VARIABLES.get)
    (tmp_path / "latin.toml").write_bytes("# Größe".encode("latin-1"))
    with pytest.raises(ConfigError, match="in UTF-8"):
        load_backends(tmp_path / "latin.toml", VARIABLES.get)


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "windows.toml").write_text(ONE, encoding="utf-8-sig")
    assert load_backends(tmp_path / "windows.toml", VARIABLES.get).backends[0].name == "rtx4090"


VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEY = st.sampled_from(
    ["name", "url", "gpu", "model", "served_model", "api_key_env", "headers_env", "dpi", "max_pages", "timeout", "x"]
)


@given(st.dictionaries(KEY, VALUE, max_size=6), st.dictionaries(st.sampled_from(["policy", "sla", "z"]), VALUE))
def test_no_value_of_any_type_gets_past_as_an_exception(entry: dict[str, object], top: dict[str, object]) -> None:

    problems: list[str] = []
    assert backends_file._config({**top, "backend": [entry]}, VARIABLES.get, problems) is None
    assert problems


def test_the_example_file_loads_and_names_only_example_hosts() -> None:
    config = load_backends(EXAMPLE, lambda name: f"value-of-{name}")
    assert [backend.gpu for backend in config.backends[:2]] == [RTX_4090, DGX_SPARK]
    for entry in tomllib.loads(EXAMPLE.read_text())["backend"]:
        assert ".example" in entry["url"]


def test_each_profile_gives_a_reason_beside_each_number_that_is_not_as_asked() -> None:
    for gpu in GPUS.values():
        assert {"max_in_flight", "dpi", "max_pages", "max_model_len", "gpu_memory_utilization"} <= set(gpu.table)
        for field, row in gpu.table.items():
            assert row.why, field
            value = getattr(gpu, field, None)
            if isinstance(value, int | float) and not isinstance(value, bool):
                assert f"{value:g}" in row.in_force.replace(",", ""), field
