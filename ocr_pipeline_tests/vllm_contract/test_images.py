"""Images: what they cost in tokens, and which kinds are read."""

from __future__ import annotations

import httpx
import pytest

from ocr_pipeline_tests.vllm_contract.asking import PATH, PROMPT, body, data_url, picture

WITHOUT_IMAGE = 36  # prompt tokens of PROMPT and the line end after the image


@pytest.mark.parametrize(
    ("width", "height", "tokens"),
    [
        (1, 1, 273),
        (640, 640, 273),  # the global view alone
        (641, 641, 693),  # 2 x 2 tiles
        (1280, 720, 483),  # 2 x 1
        (1240, 1754, 903),  # A4 at 150 dpi: 2 x 3
        (2480, 3508, 903),  # A4 at 300 dpi: not one token more
        (3508, 2480, 893),  # 3 x 2
        (600, 6000, 933),  # 1 x 6
        (100, 641, 933),
        (2000, 1999, 693),
    ],
)
def test_an_image_costs_tokens_by_its_shape_and_not_by_its_size(
    http: httpx.Client, width: int, height: int, tokens: int
) -> None:
    answer = http.post(PATH, json=body(PROMPT, data_url(picture(width, height)), max_tokens=1))
    assert answer.json()["usage"]["prompt_tokens"] == WITHOUT_IMAGE + tokens


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        ("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"),
        ("PNG", "RGB"), ("PNG", "L"), ("PNG", "1"), ("PNG", "RGBA"), ("PNG", "P"), ("PNG", "I;16"), ("PNG", "LA"),
        ("WEBP", "RGB"), ("WEBP", "RGBA"), ("TIFF", "RGB"), ("TIFF", "CMYK"), ("GIF", "P"), ("BMP", "RGB"),
    ],
)  # fmt: skip
def test_all_these_kinds_of_image_are_read(http: httpx.Client, kind: str, mode: str) -> None:
    answer = http.post(PATH, json=body(PROMPT, data_url(picture(kind=kind, mode=mode)), max_tokens=1))
    assert (answer.status_code, answer.json()["usage"]["prompt_tokens"]) == (200, 309)


def test_the_mime_type_of_a_data_url_does_not_matter(http: httpx.Client) -> None:
    answer = http.post(PATH, json=body(PROMPT, data_url(picture(), "application/pdf"), max_tokens=1))
    assert answer.status_code == 200


def test_a_png_that_lacks_only_its_end_mark_is_read(http: httpx.Client) -> None:
    answer = http.post(PATH, json=body(PROMPT, data_url(picture()[:-12]), max_tokens=1))
    assert answer.status_code == 200


def test_a_jpeg_that_lacks_only_its_end_mark_is_refused(http: httpx.Client) -> None:
    answer = http.post(PATH, json=body(PROMPT, data_url(picture(kind="JPEG")[:-2]), max_tokens=1))
    assert answer.status_code == 400
    assert "image file is truncated" in answer.json()["error"]["message"]


def test_one_hundred_megapixels_are_read(http: httpx.Client) -> None:
    answer = http.post(PATH, json=body(PROMPT, data_url(picture(10_000, 10_000, "PNG", "1")), max_tokens=1))
    assert (answer.status_code, answer.json()["usage"]["prompt_tokens"]) == (200, WITHOUT_IMAGE + 693)
