"""Many keys are asked for in parallel, and what is no fault of one of them stops them all."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from ocr_pipeline.lake.current import any_current, current, is_current, stat_many
from ocr_pipeline.lake.local import LocalStorage
from ocr_pipeline.lake.storage import ObjectInfo, StorageError


class Bucket(LocalStorage):
    refuses: str | None = None
    down = False
    pair: threading.Barrier | None = None

    def stat(self, key: str) -> ObjectInfo | None:
        if self.pair is not None:
            self.pair.wait()
        if self.down or key == self.refuses:
            raise StorageError("it answers 400 InvalidRequest")
        return super().stat(key)


@pytest.fixture
def lake(tmp_path: Path) -> Bucket:
    lake = Bucket(tmp_path / "lake")
    for name in ("a", "b", "c"):
        lake.write(f"inbox/{name}.pdf", name.encode())
    return lake


def test_a_key_that_the_store_refuses_fails_alone_and_a_store_that_is_down_is_an_error(lake: Bucket) -> None:
    lake.refuses = "inbox/b.pdf"
    results = stat_many(lake, ["inbox/a.pdf", "inbox/b.pdf", "inbox/none.pdf"])
    assert (list(results.found), results.missing, list(results.refused)) == (
        ["inbox/a.pdf"],
        ["inbox/none.pdf"],
        ["inbox/b.pdf"],
    )
    lake.down = True
    with pytest.raises(StorageError):
        stat_many(lake, ["inbox/a.pdf"])


def test_uploads_that_are_current_are_found_in_parallel(lake: Bucket) -> None:
    a, b, c = (info.as_upload() for info in lake.list("inbox/"))
    older = replace(b, etag="another")
    lake.pair = threading.Barrier(2, timeout=20)
    assert current(lake, [a, older, c, replace(a, key="inbox/none.pdf")]) == {a, c}
    lake.pair = None
    lake.refuses = c.key
    assert current(lake, [a, c]) == {a}
    assert is_current(lake, a)
    assert any_current(lake, [older, a])
    assert not any_current(lake, [older, c])
