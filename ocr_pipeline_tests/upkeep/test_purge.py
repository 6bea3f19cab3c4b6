"""Forgetting a document: nothing in the lake or the tables names it afterwards, and nothing of others goes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta

import pytest

from ocr_pipeline.flow.published import read_manifest
from ocr_pipeline.flow.publishing import publish
from ocr_pipeline.lake import batches, keys, planner
from ocr_pipeline.records import Batch, Geometry, Reason
from ocr_pipeline.upkeep.rebuild import rebuild_warehouse
from ocr_pipeline.upkeep.retry import ask_again
from ocr_pipeline.upkeep.traces import traces
from ocr_pipeline.warehouse.errors import WarehouseError
from ocr_pipeline_tests.flow.doubles import ScriptedTranscriber
from ocr_pipeline_tests.pdfs import numbered, pdf
from ocr_pipeline_tests.upkeep.pipeline import Pipeline


def test_a_purge_leaves_nothing_but_what_others_share(pipeline: Pipeline) -> None:
    shared = pdf(["this page is in both"])
    batch = pipeline.cut({"a.pdf": pdf(["this page is in both", "a page of its own"]), "b.pdf": shared})
    pipeline.process(batch)
    done = pipeline.purge("inbox/a.pdf")
    assert done.left == ()
    assert done.rows.pages == 2
    assert pipeline.rows("SELECT parse_filename(source_uri) FROM ocr.documents") == [("b.pdf",)]
    left = [info.key for info in pipeline.lake.list("")]
    assert not [key for key in left if keys.document_id("inbox/a.pdf") in key or "a.pdf" in key]
    assert len([key for key in left if key.startswith("transcripts/")]) == 1
    rebuild_warehouse(pipeline.lake, pipeline.warehouse)
    assert pipeline.rows("SELECT count(*) FROM ocr.documents") == [(1,)]


def test_a_purge_that_died_can_be_repeated(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline.process(pipeline.cut({"a.pdf": numbered(2), "b.pdf": numbered(1, "b")}))

    def in_use(*_: object) -> None:
        raise WarehouseError("open in another program")

    with monkeypatch.context() as broken:
        broken.setattr("ocr_pipeline.upkeep.purge.purge_rows", in_use)
        with pytest.raises(WarehouseError):
            pipeline.purge("inbox/a.pdf")
    assert pipeline.lake.stat("inbox/a.pdf") is None
    assert pipeline.purge("inbox/a.pdf").left == ()
    assert pipeline.rows("SELECT parse_filename(source_uri) FROM ocr.documents") == [("b.pdf",)]


def test_a_purge_finds_the_transcripts_of_recipes_whose_images_nothing_names_any_more(pipeline: Pipeline) -> None:
    batch = pipeline.cut({"a.pdf": pdf(["a secret of its own"])})
    pipeline.process(batch)
    pipeline.service.close()
    finer = ScriptedTranscriber()
    finer.recipe_id, finer.geometry = "finer", Geometry(dpi=100, max_long_side=1200, max_short_side=900)
    pipeline.use(finer)
    pipeline.process(batch)  # other images: records, Parquet and rows know only these
    assert len(pipeline.naming("a secret of its own")) >= 2
    done = pipeline.purge("inbox/a.pdf")
    assert done.left == ()
    assert pipeline.naming("a secret of its own", keys.document_id("inbox/a.pdf"), "inbox/a.pdf") == []


def test_a_shared_transcript_stays_and_forgets_who_asked_for_it(pipeline: Pipeline) -> None:
    pipeline.process(pipeline.cut({"a.pdf": pdf(["this page is in both"])}))  # it asks
    pipeline.process(pipeline.cut({"b.pdf": pdf(["this page is in both"])}))  # it takes what is there
    done = pipeline.purge("inbox/a.pdf")
    assert done.left == ()
    assert pipeline.naming(keys.document_id("inbox/a.pdf"), "inbox/a.pdf") == []
    assert len(list(pipeline.lake.list(keys.TRANSCRIPTS))) == 1
    asked = len(pipeline.transcriber.asked)
    pipeline.process(next(batch for batch in batches.load(pipeline.lake) if batch.uploads))
    assert len(pipeline.transcriber.asked) == asked
    assert pipeline.rows("SELECT markdown FROM ocr.pages") == [("this page is in both",)]


def test_a_record_that_shares_a_page_and_is_not_published_yet_forgets_who_asked_for_it(pipeline: Pipeline) -> None:
    pipeline.process(pipeline.cut({"a.pdf": pdf(["this page is in both"])}))
    pipeline.service.run(pipeline.cut({"b.pdf": pdf(["this page is in both"])}))
    done = pipeline.purge("inbox/a.pdf")
    assert done.left == ()
    assert pipeline.naming(keys.document_id("inbox/a.pdf"), "inbox/a.pdf") == []


def test_a_purge_waits_for_runs_of_documents_with_the_same_page_image_though_their_records_do_not_name_it_yet(
    pipeline: Pipeline,
) -> None:
    pipeline.transcriber.script = lambda image: Reason.BACKEND_UNAVAILABLE
    other = pipeline.cut({"b.pdf": numbered(2)})
    pipeline.process(other)
    pipeline.transcriber.script = lambda image: None
    pipeline.process(pipeline.cut({"a.pdf": numbered(1)}))  # b.pdf's first page: asked again, and answered
    found = traces(pipeline.lake, pipeline.warehouse, "inbox/a.pdf")
    assert found.sharers == ((other.name, keys.document_id("inbox/b.pdf")),)


def test_a_purge_takes_the_copies_of_records_that_name_the_document(pipeline: Pipeline) -> None:
    pipeline.process(pipeline.cut({"a.pdf": numbered(1)}))
    batch = pipeline.cut({"b.pdf": numbered(1)})
    pipeline.process(batch)
    record = pipeline.lake.read(keys.reading(batch.name, keys.document_id("inbox/b.pdf")))
    for folder in ("backup", "backup/of/yesterday"):
        pipeline.lake.write(f"{keys.PAGES}{folder}/reading.json", record)
    assert pipeline.purge("inbox/a.pdf").left == ()
    assert pipeline.naming(keys.document_id("inbox/a.pdf"), "inbox/a.pdf") == []


def test_a_purge_takes_the_copies_of_batch_lists_that_name_the_document(pipeline: Pipeline) -> None:
    batch = pipeline.cut({'a "1" ü\n.pdf': numbered(1), "b.pdf": numbered(1, "b")})
    other = pipeline.cut({"c.pdf": numbered(1, "c")})
    for one in (batch, other):
        pipeline.process(one)
        pipeline.lake.write(keys.batch(f"{one.name} (1)"), batches.dump(one))
    done = pipeline.purge('inbox/a "1" ü\n.pdf')
    assert done.left == ()
    assert list(batches.others(pipeline.lake)) == [keys.batch(f"{other.name} (1)")]


def test_a_purge_takes_the_bundles_of_pages_that_killed_a_server(pipeline: Pipeline) -> None:
    pipeline.process(pipeline.cut({"a.pdf": numbered(1), "b.pdf": numbered(1, "b")}))
    for key, sha in pipeline.rows("SELECT document_id, image_sha256 FROM ocr.pages"):
        about = json.dumps({"document_id": key})
        pipeline.lake.write(keys.poisoned("scripted", str(sha), "request.json"), about.encode())
        pipeline.lake.write(keys.poisoned("scripted", str(sha), "page.jpg"), b"jpeg")
    assert pipeline.purge("inbox/a.pdf").left == ()
    left = list(pipeline.lake.list(keys.POISONED))
    assert len(left) == 2
    assert keys.document_id("inbox/b.pdf") in pipeline.lake.read(left[1].key).decode()


def test_a_purge_takes_the_upload_workers_record_of_the_content(pipeline: Pipeline) -> None:
    pipeline.process(pipeline.cut({"ü a.pdf": numbered(1), "b.pdf": numbered(1, "b")}))
    for sha, key in (("0" * 64, "ocr/inbox/ü a.pdf"), ("1" * 64, "ocr/inbox/b.pdf")):
        pipeline.lake.write(f"{keys.UPLOADERS}{sha}", json.dumps({"key": key, "at": 1}).encode())
    assert pipeline.purge("inbox/ü a.pdf").left == ()
    assert [info.key for info in pipeline.lake.list(keys.UPLOADERS)] == [f"{keys.UPLOADERS}{'1' * 64}"]


def test_what_a_run_that_was_at_work_brought_back_is_found_by_the_next_purge(pipeline: Pipeline) -> None:
    batch = pipeline.cut({"a.pdf": numbered(2), "b.pdf": numbered(1, "b")})
    pipeline.process(batch)
    assert pipeline.purge("inbox/a.pdf").left == ()
    pipeline.lake.write("inbox/a.pdf", numbered(2))
    again = replace(batch, uploads=tuple(info.as_upload() for info in pipeline.lake.list("inbox/")))
    pipeline.process(again)  # with the list as it was before; the list in the lake no longer names the document
    assert pipeline.rows("SELECT count(*) FROM ocr.documents") == [(2,)]
    assert pipeline.purge("inbox/a.pdf").left == ()
    assert pipeline.naming(keys.document_id("inbox/a.pdf"), "inbox/a.pdf") == []
    assert pipeline.purge("inbox/a.pdf").objects == 0


def test_a_run_that_was_at_work_during_a_purge_writes_nothing_of_the_document(pipeline: Pipeline) -> None:
    batch = pipeline.cut({"a.pdf": numbered(2), "b.pdf": numbered(1, "b")})
    assert pipeline.purge("inbox/a.pdf").left == ()
    pipeline.service.run(batch)  # it read its list before
    assert pipeline.naming(keys.document_id("inbox/a.pdf"), "inbox/a.pdf") == []


def unnamed_by_its_manifest(pipeline: Pipeline, batch: Batch) -> None:
    """The state that a run leaves which was killed between its Parquet files and its first manifest."""
    pipeline.service.run(batch)
    publish(pipeline.lake, batch)
    pipeline.lake.delete([keys.manifest(batch.name)])


def test_a_purge_finds_the_parquet_files_of_a_run_that_was_killed_before_its_manifest(pipeline: Pipeline) -> None:
    batch = pipeline.cut({"a.pdf": numbered(2), "b.pdf": numbered(1, "b")})
    unnamed_by_its_manifest(pipeline, batch)
    assert pipeline.purge("inbox/a.pdf").left == ()
    assert pipeline.naming(keys.document_id("inbox/a.pdf"), "inbox/a.pdf") == []
    pipeline.process(batches.read(pipeline.lake, batch.name))  # the other document loses nothing
    assert pipeline.rows("SELECT parse_filename(source_uri) FROM ocr.documents") == [("b.pdf",)]
    assert pipeline.rows("SELECT count(*) FROM ocr.attempts") == [(1,)]


def test_a_parquet_file_that_no_list_record_or_manifest_leads_to_is_found(pipeline: Pipeline) -> None:
    batch = pipeline.cut({"a.pdf": numbered(2), "b.pdf": numbered(1, "b")})
    pipeline.process(batch)
    pages = pipeline.lake.read(read_manifest(pipeline.lake, batch.name).tables["pages"].key)
    assert pipeline.purge("inbox/a.pdf").left == ()
    pipeline.lake.write(keys.table("pages", date(2020, 1, 1), batch.name), pages)
    assert traces(pipeline.lake, pipeline.warehouse, "inbox/a.pdf").batches == {batch.name}
    before = pipeline.everything()
    assert pipeline.purge("inbox/a.pdf").left == ()
    assert pipeline.naming(keys.document_id("inbox/a.pdf"), "inbox/a.pdf") == []
    rebuild_warehouse(pipeline.lake, pipeline.warehouse)
    assert pipeline.everything() == before


@pytest.mark.parametrize("whose", ["another", "its own"])
@pytest.mark.parametrize("kind", ["unnamed", "parquet", "manifest", "list"])
def test_what_cannot_be_read_stops_no_purge_and_is_named_until_it_is_mended(
    pipeline: Pipeline, kind: str, whose: str
) -> None:
    batch = pipeline.cut({"a.pdf": numbered(2), "b.pdf": numbered(1, "b")})
    other = pipeline.cut({"c.pdf": numbered(1, "c")})
    for one in (batch, other):
        pipeline.process(one)
    of = batch if whose == "its own" else other
    key = {
        "unnamed": keys.table("regions", date(2026, 11, 1), "of-a-killed-run" if whose == "another" else of.name),
        "parquet": read_manifest(pipeline.lake, of.name).tables["attempts"].key,
        "manifest": keys.manifest(of.name),
        "list": keys.batch(of.name),
    }[kind]
    pipeline.lake.write(key, b"torn")
    done = pipeline.purge("inbox/a.pdf")
    assert pipeline.lake.stat("inbox/a.pdf") is None
    assert pipeline.rows("SELECT parse_filename(source_uri) FROM ocr.documents ORDER BY 1") == [("b.pdf",), ("c.pdf",)]
    if (kind, whose) == ("unnamed", "its own"):  # the batch makes it again from its records: it has gone too
        assert (done.left, done.unread) == ((), ())
    else:
        (error,) = done.unread
        assert key in error
        # files of which nobody knows what is published are kept: they hold what others were asked
        assert done.left == ((f"batch {batch.name}",) if (kind, whose) == ("manifest", "its own") else ())
    if kind == "list":
        pipeline.lake.write(key, batches.dump(of))
    elif kind == "unnamed":
        pipeline.lake.delete([key])
    else:
        publish(pipeline.lake, batches.read(pipeline.lake, of.name))
    done = pipeline.purge("inbox/a.pdf")
    assert (done.left, done.unread) == ((), ())
    assert pipeline.naming(keys.document_id("inbox/a.pdf"), "inbox/a.pdf") == []
    rebuild_warehouse(pipeline.lake, pipeline.warehouse)
    assert pipeline.rows("SELECT document_id, page_number FROM ocr.attempts ORDER BY 1") == sorted(
        (keys.document_id(f"inbox/{name}.pdf"), 1) for name in ("b", "c")
    )


def test_a_broken_record_of_a_document_with_the_same_page_is_found_and_stops_no_purge(pipeline: Pipeline) -> None:
    batch = pipeline.cut({"a.pdf": pdf(["this page is in both"])})
    pipeline.process(batch)
    other = pipeline.cut({"b.pdf": pdf(["this page is in both"])})
    pipeline.process(other)
    key = keys.reading(other.name, keys.document_id("inbox/b.pdf"))
    pipeline.lake.write(key, pipeline.lake.read(key)[:-1])
    assert pipeline.purge("inbox/a.pdf").left == (key,)
    pipeline.lake.delete([key])
    assert pipeline.purge("inbox/a.pdf").left == ()


def test_a_batch_whose_newest_upload_was_purged_is_published_again_where_it_was(pipeline: Pipeline) -> None:
    for name in ("a.pdf", "b.pdf"):
        pipeline.lake.write(f"inbox/{name}", numbered(2, name))
    older, newer = sorted(info.as_upload() for info in pipeline.lake.list("inbox/"))
    older = replace(older, last_modified=older.last_modified - timedelta(days=1))
    (batch,) = planner.plan([older, newer], set(), planner.BatchLimits()).batches
    batches.write(pipeline.lake, batch)
    pipeline.process(batch)
    assert pipeline.purge("inbox/b.pdf").left == ()
    files = sorted(info.key for info in pipeline.lake.list(keys.TABLES))

    pipeline.service.close()
    another = ScriptedTranscriber(lambda image: "quite another")
    another.recipe_id = "another"
    pipeline.use(another)
    pipeline.process(batches.read(pipeline.lake, batch.name))

    assert sorted(info.key for info in pipeline.lake.list(keys.TABLES)) == files
    before = pipeline.everything()
    assert pipeline.rows("SELECT recipe_id, count(*) FROM ocr.attempts GROUP BY ALL ORDER BY 1") == [
        ("another", 2),
        ("scripted", 2),
    ]
    rebuild_warehouse(pipeline.lake, pipeline.warehouse)
    assert pipeline.everything() == before  # with the attempts of the recipe before
    assert pipeline.purge("inbox/a.pdf").left == ()
    assert pipeline.naming(*(keys.document_id(f"inbox/{name}") for name in ("a.pdf", "b.pdf"))) == []


def test_a_retry_that_waited_for_a_purge_asks_for_nothing_of_the_document(pipeline: Pipeline) -> None:
    pipeline.transcriber.script = lambda image: Reason.REPETITION
    pipeline.process(pipeline.cut({"a.pdf": numbered(2), "b.pdf": numbered(1, "b")}))

    @contextmanager
    def intake() -> Iterator[None]:
        assert pipeline.purge("inbox/a.pdf").left == ()  # it held the intake, and is over now
        yield

    plan = ask_again(
        pipeline.lake, pipeline.warehouse, [Reason.REPETITION], limits=planner.BatchLimits(), intake=intake
    )
    assert (plan.documents, plan.pages, plan.gone) == (1, 1, 1)
    (retry,) = plan.batches
    assert [upload.key for upload in retry.uploads] == ["inbox/b.pdf"]
    assert pipeline.naming(keys.document_id("inbox/a.pdf"), "inbox/a.pdf") == []
