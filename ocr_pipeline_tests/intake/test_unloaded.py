"""Batches whose rows are gone from the tables: found in turn, and what superseded them costs no request for ever."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from ocr_pipeline.intake import unloaded
from ocr_pipeline.intake.options import IntakeOptions
from ocr_pipeline.lake import batches, keys, planner
from ocr_pipeline.lake.batch_index import BatchIndex
from ocr_pipeline.lake.local import LocalStorage
from ocr_pipeline.lake.storage import ObjectInfo, StorageError
from ocr_pipeline.records import Batch, Reason, Upload
from ocr_pipeline.warehouse.connection import Warehouse

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


class Counting(LocalStorage):
    """A lake that keeps which objects it was asked for, and refuses those in `refused`."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.asked: list[str] = []
        self.refused: set[str] = set()

    def stat(self, key: str) -> ObjectInfo | None:
        self.asked.append(key)
        if key in self.refused:
            raise StorageError(f"{key}: it answers 403 AccessDenied")
        return super().stat(key)

    def read(self, key: str) -> bytes:
        self.asked.append(key)
        return super().read(key)


class Library:
    """A lake, its index and tables, and how often the tables were opened."""

    def __init__(self, folder: Path) -> None:
        self.lake = Counting(folder / "lake")
        self.options = IntakeOptions(folder / "data")
        self.opened = 0
        self.meanwhile: Callable[[], object] = lambda: None
        """What another process does as soon as the tables are closed."""
        self.warehouse = Warehouse(str(folder / "tables.duckdb"), connect=self._connect)

    @contextlib.contextmanager
    def _connect(
        self, database: str, read_only: bool, config: Mapping[str, Any]
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        self.opened += 1
        with contextlib.closing(duckdb.connect(database, read_only=read_only, config=dict(config))) as connection:
            yield connection
        self.meanwhile()

    def uploaded(self, name: str, data: bytes = b"%PDF-") -> Upload:
        self.lake.write(f"inbox/{name}", data)
        info = self.lake.stat(f"inbox/{name}")
        assert info is not None
        return info.as_upload()

    def listed(self, batch: Batch) -> Batch:
        batches.write(self.lake, batch)
        return batch

    def cut(self, *uploads: Upload) -> Batch:
        return self.listed(Batch(planner.name(uploads), uploads))

    def loaded(self, batch: Batch) -> None:
        """The row that counts of each document is this batch's."""
        with self.warehouse.transaction() as connection:
            for upload in batch.uploads:
                row = [keys.document_id(upload.key), upload.key, upload.etag, upload.last_modified, batch.name]
                connection.execute(
                    "INSERT OR REPLACE INTO ocr.documents (document_id, source_uri, etag, uploaded_at, batch,"
                    " size_bytes, page_count, status, ingest_date, recipe_id, processed_at)"
                    " VALUES (?, ?, ?, ?, ?, 5, 1, 'ok', ?, 'r1', ?)",
                    [*row, NOW.date(), NOW],
                )

    def lost(self, most: int = 20, out_of_time: Callable[[], bool] = lambda: False) -> list[str]:
        with BatchIndex(self.lake, self.options.index) as index:
            assert index.refresh()
            names = list(index.listed)
        self.lake.asked.clear()
        self.opened = 0
        return unloaded.lost(self.lake, self.warehouse, self.options, names, most, out_of_time)


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path)


def test_batches_that_others_took_the_place_of_cost_one_connection_and_no_request(library: Library) -> None:
    replaced = library.cut(library.uploaded("replaced.pdf"))
    newer = library.cut(library.uploaded("replaced.pdf", b"%PDF-1.7"))
    first = library.cut(library.uploaded("retried.pdf"))
    again = library.listed(planner.retry({first.uploads[0]: first.name}, [Reason.REPETITION], NOW))
    for number in range(5):
        library.listed(planner.deletion([f"inbox/{number}.pdf"], NOW + timedelta(minutes=number)))
    for batch in (replaced, newer, first, again):
        library.loaded(batch)
    assert library.lost() == []
    assert (library.lake.asked, library.opened) == ([], 1)


def test_what_is_lost_is_found_but_not_what_is_gone_from_the_inbox(library: Library) -> None:
    kept, gone, deleted = (library.cut(library.uploaded(f"{name}.pdf")) for name in ("kept", "gone", "deleted"))
    library.lake.delete(["inbox/gone.pdf", "inbox/deleted.pdf"])
    library.listed(planner.deletion(["inbox/deleted.pdf"], datetime.now(UTC), deleted.uploads, [deleted.name]))
    library.loaded(library.cut(library.uploaded("other.pdf")))
    assert library.lost() == [kept.name]
    # what the lists say is deleted is not asked for
    assert sorted(library.lake.asked) == ["inbox/gone.pdf", "inbox/kept.pdf"]
    assert gone.name not in library.lost()


def test_what_a_purge_takes_out_of_its_list_meanwhile_is_not_lost(library: Library) -> None:
    both = library.cut(library.uploaded("purged.pdf"), library.uploaded("kept.pdf"))
    alone = library.cut(library.uploaded("purged too.pdf"))
    library.loaded(library.cut(library.uploaded("other.pdf")))

    def purge() -> None:
        for smaller in (replace(both, uploads=both.uploads[1:]), replace(alone, uploads=())):
            library.lake.write(keys.batch(smaller.name), batches.dump(smaller))
        with BatchIndex(library.lake, library.options.index) as index:
            index.refresh()

    library.meanwhile = purge
    assert library.lost() == [both.name]


def test_two_lost_versions_of_a_document_are_told_apart(library: Library) -> None:
    library.cut(library.uploaded("a.pdf"))
    newer = library.cut(library.uploaded("a.pdf", b"%PDF-1.7"))
    assert library.lost() == [newer.name]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_row_of_a_version_that_was_replaced_does_not_stand_for_the_one_of_the_same_second(
    library: Library, order: tuple[int, int]
) -> None:
    newer = library.uploaded("a.pdf", b"%PDF-1.7")
    replaced = replace(newer, etag="another")
    names = sorted(planner.name([upload]) for upload in (newer, replaced))
    of_newer, of_replaced = (names[place] for place in order)
    library.listed(Batch(of_newer, (newer,)))
    library.loaded(library.listed(Batch(of_replaced, (replaced,))))
    with library.warehouse.transaction() as connection:
        connection.execute("UPDATE ocr.documents SET status = 'rejected', reason = 'replaced'")
    assert library.lost() == [of_newer]
    library.loaded(Batch(of_newer, (newer,)))
    assert library.lost() == []


def test_one_object_that_the_store_refuses_keeps_no_other_batch_from_being_found(library: Library) -> None:
    refused, sound = library.cut(library.uploaded("refused.pdf")), library.cut(library.uploaded("sound.pdf"))
    library.lake.refused = {"inbox/refused.pdf"}
    assert library.lost() == [sound.name]
    library.lake.refused = set()
    assert set(library.lost()) == {refused.name, sound.name}


def test_each_look_goes_on_behind_the_last_one_and_comes_round(library: Library) -> None:
    names = sorted(library.cut(library.uploaded(f"{number}.pdf")).name for number in range(5))
    assert library.lost(most=2) == names[:2]
    assert library.lost(most=2) == names[2:4]
    assert library.lost(most=2) == [names[4], names[0]]


def test_batches_that_are_never_found_take_no_turn_from_those_behind_them(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unloaded, "LOOKED_AT", 2)
    cut = sorted((library.cut(library.uploaded(f"{number}.pdf")) for number in range(5)), key=lambda b: b.name)
    library.lake.delete([upload.key for batch in cut[:4] for upload in batch.uploads])
    assert [library.lost(), library.lost(), library.lost()] == [[], [], [cut[4].name]]


def test_a_look_whose_time_is_over_stops_after_a_batch_and_one_without_any_asks_nothing(library: Library) -> None:
    names = sorted(library.cut(library.uploaded(f"{number}.pdf")).name for number in range(3))
    for name in names:
        answers = iter([False, True])  # the time ends while the tables are asked
        assert library.lost(out_of_time=lambda answers=answers: next(answers)) == [name]  # type: ignore[misc]
        assert len(library.lake.asked) == 1
    assert library.lost(out_of_time=lambda: True) == []
    assert (library.lake.asked, library.opened) == ([], 0)
