from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_pipeline.pdf.geometry import effective_dpi, has_area, is_too_large, pixel_size
from ocr_pipeline.records import Geometry

sides = st.floats(min_value=0.01, max_value=200, allow_nan=False)
geometries = st.builds(
    Geometry,
    dpi=st.integers(10, 1200),
    max_long_side=st.integers(64, 8000),
    max_short_side=st.integers(64, 8000),
)


@given(sides, sides, geometries)
def test_an_image_is_never_larger_than_its_caps(width: float, height: float, geometry: Geometry) -> None:
    size = pixel_size(width, height, effective_dpi(width, height, geometry))
    assert max(size) <= geometry.max_long_side
    assert min(size) <= geometry.max_short_side


@given(sides, sides, geometries)
def test_an_image_keeps_the_page_s_proportions_within_a_pixel(width: float, height: float, geometry: Geometry) -> None:
    dpi = effective_dpi(width, height, geometry)
    across, down = pixel_size(width, height, dpi)
    assert abs(across - width * dpi) <= 1
    assert abs(down - height * dpi) <= 1


@given(sides, sides, geometries)
def test_a_cap_costs_no_more_than_it_must(width: float, height: float, geometry: Geometry) -> None:
    """Within the one per cent that rounding to three digits takes, and the hundredth of a pixel kept free."""
    dpi = effective_dpi(width, height, geometry)
    assert dpi <= geometry.dpi
    long_side, short_side = max(width, height) * dpi, min(width, height) * dpi
    full = max(long_side / (geometry.max_long_side - 0.01), short_side / (geometry.max_short_side - 0.01))
    assert dpi == geometry.dpi or 0.99 <= full <= 1.0


@given(sides, sides, geometries)
def test_a_turned_page_has_the_same_resolution(width: float, height: float, geometry: Geometry) -> None:
    assert effective_dpi(width, height, geometry) == effective_dpi(height, width, geometry)


def test_a_page_under_its_caps_has_the_resolution_asked_for() -> None:
    assert effective_dpi(8.27, 11.69, Geometry(150, 1920, 1280)) == 150.0


def test_pages_of_a_scan_that_differ_by_a_few_points_share_a_resolution() -> None:
    geometry = Geometry(300, 1920, 1280)
    assert {effective_dpi((595 + d) / 72, (842 - d) / 72, geometry) for d in (0, 0.25, 0.5, 0.75)} == {154.0}


@pytest.mark.parametrize("side", [100.01, math.inf, math.nan])
def test_what_is_longer_than_the_limit_or_no_number_is_too_large(side: float) -> None:
    assert is_too_large(side, 5, 100)
    assert is_too_large(5, side, 100)
    assert not is_too_large(100, 100, 100)


@pytest.mark.parametrize(("width", "height", "expected"), [(1, 1, True), (0, 1, False), (1, -1, False)])
def test_a_page_without_area_is_known(width: float, height: float, expected: bool) -> None:
    assert has_area(width, height) is expected
