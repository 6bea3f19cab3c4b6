"""MotherDuck: with a token, every test here that takes `warehouse` runs there too; this file has what only it has."""

from __future__ import annotations

import pytest

from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline.warehouse.errors import WarehouseError
from ocr_pipeline.warehouse.motherduck import make_r2_secret
from ocr_pipeline_tests.warehouse.conftest import TOKEN


@pytest.mark.motherduck
@pytest.mark.skipif(not TOKEN, reason="MOTHERDUCK_TOKEN is not set: nothing was run on MotherDuck")
def test_a_wrong_token_is_an_error_that_does_not_repeat_it() -> None:
    with pytest.raises(WarehouseError) as caught:
        Warehouse("md:test_never_made", f"{TOKEN}wrong").run(lambda _: None)
    assert str(TOKEN) not in str(caught.value)


def test_a_secret_that_is_not_taken_shows_no_key_in_the_error(duckdb_file: Warehouse) -> None:
    """A DuckDB file knows no storage named MOTHERDUCK, so the statement fails there."""
    with pytest.raises(WarehouseError, match="did not take the R2 secret") as caught:
        make_r2_secret(duckdb_file, key_id="key-of-mine", secret="it's secret", account_id="acc")
    assert "key-of-mine" not in str(caught.value)
    assert "secret'" not in str(caught.value)
    assert caught.value.__cause__ is None
