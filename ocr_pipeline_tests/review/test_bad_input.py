"""What is shown when the data is hostile, huge or half gone: as much as can be, and never a stack trace."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb
import httpx
import pytest

from ocr_pipeline.lake import keys
from ocr_pipeline.records import PageStatus, Reason, Region
from ocr_pipeline.warehouse.connection import Warehouse
from ocr_pipeline_tests.review.conftest import asking
from ocr_pipeline_tests.review.library import BATCH, RECIPE, Library, PageMade, picture
from ocr_pipeline_tests.review.shelves import Shelves
from ocr_pipeline_tests.warehouse.account import Account


def one(library: Library, made: PageMade, key: str = "a.pdf") -> str:
    document = library.add(key, [made])
    library.load()
    return f"/documents/{document}/pages/1"


def test_scripts_in_text_name_title_and_detail_are_shown_as_text_on_every_screen(
    client: httpx.Client, shelves: Shelves
) -> None:
    page = f"/documents/{shelves.hostile}/pages/1"
    screens = ("/documents", "/pages", "/search?q=hostile", f"/documents/{shelves.hostile}", page, f"{page}?show=raw")
    for path in (
        *screens,
        f"{page}?show=attempts",
        "/search?q=%3Cscript%3Ewindow",
        "/documents?name=%22%3E%3Cscript%3E",
    ):
        text = client.get(path).text
        assert text.count("<script") == 1, path  # our own
        assert "<svg onload" not in text
        assert not re.search(r"<img[^>]*onerror", text)


def test_a_name_that_turns_the_direction_of_text_is_written_out(client: httpx.Client) -> None:
    text = client.get("/documents?name=evil").text
    assert "\\u202egnp.exe" in text
    assert "\u202e" not in text


def test_a_page_with_5000_regions_is_shown_with_all_of_them(empty: Library) -> None:
    regions = tuple(Region("text", 0.1, n / 5000, 0.9, (n + 1) / 5000, f"line {n}") for n in range(5000))
    page = one(empty, PageMade(markdown="\n\n".join(region.text for region in regions), regions=regions))
    with asking(empty) as client:
        text = client.get(page).text
    assert text.count("<rect ") == text.count("data-regions=") == 5000


def test_a_table_of_300_columns_is_a_table(empty: Library) -> None:
    row = "|" + "|".join(f"c{n}" for n in range(300)) + "|"
    page = one(empty, PageMade(markdown=f"{row}\n{'|-' * 300}|\n{row}"))
    with asking(empty) as client:
        text = client.get(page).text
    assert text.count("<th>") == text.count("<td>") == 300


def test_a_markdown_of_2_mb_is_shown_whole(empty: Library) -> None:
    page = one(empty, PageMade(markdown="**word** " * 222_222 + "the very end"))
    with asking(empty) as client:
        text = client.get(page).text
    assert text.count("**word**") == 222_222
    assert "the very end" in text
    assert "This text is very long" in text


def test_right_to_left_text_takes_its_own_direction(empty: Library) -> None:
    page = one(empty, PageMade(markdown="# שלום עולם\n\nمرحبا بالعالم\n\nand left to right"), "שלום.pdf")
    with asking(empty) as client:
        text = client.get(page).text
        style = client.get("/static/review.css").text
    assert "<h1>שלום עולם</h1>" in text
    assert "unicode-bidi: plaintext" in style


def test_a_page_whose_image_is_gone_shows_its_text_and_the_image_says_why(empty: Library) -> None:
    page = one(empty, PageMade(markdown="still here"))
    empty.lake.delete([keys.page_image(BATCH, page.split("/")[2], 1)])
    with asking(empty) as client:
        assert "still here" in client.get(page).text
        answer = client.get(f"{page}/image")
    assert (answer.status_code, answer.text) == (404, "the image is no longer in the lake")


def test_a_page_whose_transcript_is_gone_or_broken_still_shows_the_markdown(empty: Library) -> None:
    page = one(empty, PageMade(markdown="still here"))
    sha256 = empty.results[0].pages[0].image_sha256
    assert sha256
    key = keys.transcript(RECIPE, sha256)
    for data, words in ((b"{", "cannot be read"), (None, "no transcript")):
        if data is None:
            empty.lake.delete([key])
        else:
            empty.lake.write(key, data)
        with asking(empty) as client:
            text = client.get(f"{page}?show=raw").text
        assert words in text
        assert "still here" in text


@pytest.mark.parametrize(
    "uri",
    [
        "{root}/../secret.jpg",
        "{root}/pages/../../secret.jpg",
        "{root}/inbox/secret.jpg",
        "{root}x/pages/secret.jpg",
        "/etc/passwd",
        "s3://other/pages/a.jpg",
        "https://evil.example/pages/a.jpg",
        "pages/a.jpg",
        "{root}/pages/link.jpg",
        "{root}/pages/text.jpg",
        "{root}/pages//a\x00.jpg",
        "",
    ],
)
def test_an_image_uri_that_leaves_the_lakes_pages_is_never_followed(empty: Library, uri: str) -> None:
    page = one(empty, PageMade(markdown="x"))
    root = empty.lake.uri_of("").rstrip("/")
    secret = Path(root).parent / "secret.jpg"
    for path in (secret, Path(root) / "inbox" / "secret.jpg", Path(f"{root}x") / "pages" / "secret.jpg"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture("secret"))
    (Path(root) / "pages" / "link.jpg").symlink_to(secret)
    (Path(root) / "pages" / "text.jpg").write_text("<html><script>alert(1)</script>")
    with empty.warehouse.transaction() as connection:
        connection.execute("UPDATE ocr.pages SET image_uri = ?", [uri.format(root=root)])
    with asking(empty) as client:
        answer = client.get(f"{page}/image")
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/plain")
    assert "secret" not in answer.text


@pytest.mark.parametrize(
    "path",
    [
        "/documents/none",
        "/documents/none/pages/1",
        "/documents/{id}/pages/0",
        "/documents/{id}/pages/99",
        "/documents/{id}/pages/99999999999999999999",
        "/documents/{id}/pages/-1",
        "/documents/{id}/pages/1/figures/99999999999999",
        "/documents/..%2F..%2Fetc%2Fpasswd",
        "/documents/%00/pages/1/image",
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "/nothing",
    ],
)
def test_what_is_not_there_is_a_404_in_words(client: httpx.Client, shelves: Shelves, path: str) -> None:
    answer = client.get(path.format(id=shelves.report))
    assert answer.status_code == 404
    assert "Traceback" not in answer.text
    assert "def " not in answer.text


@pytest.mark.parametrize("path", ["/documents", "/pages", "/search", "/documents/{id}", "/documents/{id}/pages/1"])
@pytest.mark.parametrize(
    "query",
    [
        "after=garbage",
        "after=[1]",
        'after=["x","y"]',
        'after=["x","y","z"]',
        'after=[1e999,"y",1]',
        'after=["2026-13-99","y"]',
        'after=[99999999999999999999999,"y"]&sort=size_bytes',
        'after=[99999999999999999999999,"y",99999999999999999999]&sort=attempts',
        "sort=;drop table ocr.pages&order=x",
        "since=9999-12-31&until=9999-12-31",
        "since=0001-01-01&until=0001-01-01",
        "agreement_from=1e308&agreement_to=-inf",
        "name=%00&q=%00&status=%00&reason=%ff&backend=%ed%a0%80",
        "q=" + "a+" * 400,
        "q=%25_%5C'%22;--",
        'after=["\\ud800","y"]&sort=source_uri',
        'after=["x","\\udfff"]&sort=source_uri',
        'before=["\\ud800","y",1]&sort=source_uri',
        'before=["x","y"]&seen=50',
        'before=["2026-13-99","y",1]',
        "from=-5&seen=x&show=../../x",
        "from=99999999999999999999999",
    ],
)
def test_no_query_string_breaks_a_screen(client: httpx.Client, shelves: Shelves, path: str, query: str) -> None:
    assert client.get(f"{path.format(id=shelves.report)}?{query}").status_code == 200


def test_regions_with_impossible_boxes_are_left_out_and_the_others_cut_to_the_page(empty: Library) -> None:
    boxes = [(-5, -5, 5, 5), (float("nan"), 0, 1, 1), (0, 0, float("inf"), 1), (0.9, 0.1, 0.1, 0.2), (2, 2, 3, 3)]
    regions = tuple(Region("a\" onload='x", *map(float, box), "") for box in boxes)
    page = one(empty, PageMade(markdown="x", regions=regions, image=picture("x")))
    with asking(empty) as client:
        text = client.get(page).text
    drawn = re.findall(r'<rect .* x="([^"]*)" y="([^"]*)" width="([^"]*)" height="([^"]*)"', text)
    assert drawn == [("0.0", "0.0", "620.0", "877.0")]
    assert "onload='x\"" not in text


def test_a_reason_that_this_release_does_not_know_is_shown_as_it_is(empty: Library) -> None:
    page = one(empty, PageMade(status=PageStatus.FAILED, reason=Reason.POISONED))
    with empty.warehouse.transaction() as connection:
        connection.execute("UPDATE ocr.pages SET reason = 'of_next_year', status = 'odd'")
    with asking(empty) as client:
        assert "of_next_year" in client.get(page).text
        assert client.get("/overview").status_code == 200


def test_a_warehouse_that_is_being_loaded_is_told_in_words_and_asked_again_later(empty: Library) -> None:
    one(empty, PageMade(markdown="x"))
    impatient = Library(empty.lake, Warehouse(empty.warehouse.target, wait_seconds=0.2))
    with empty.warehouse.session(), asking(impatient) as client:
        answer = client.get("/documents")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"
    assert "Traceback" not in answer.text
    with asking(impatient) as client:
        assert client.get("/documents").status_code == 200


def test_a_warehouse_that_is_broken_is_not_called_in_use(empty: Library) -> None:
    Path(empty.warehouse.target).write_bytes(b"no database" * 1000)
    with asking(empty) as client:
        answer = client.get("/documents")
    assert answer.status_code == 500
    assert "Tables out of order" in answer.text
    assert "in use" not in answer.text
    assert "retry-after" not in answer.headers


def test_a_motherduck_that_does_not_answer_is_told_in_words_and_asked_again_later(empty: Library) -> None:
    away = [False]

    def refuse(statement: str) -> duckdb.Error | None:
        gone = away[0] and "ocr.documents" in statement
        return duckdb.Error("Request failed: request timed out (DEADLINE_EXCEEDED, RPC 'PULL')") if gone else None

    remote = Library(empty.lake, Warehouse("md:scans", "s3cret", connect=Account(refuse=refuse).connect))
    with asking(remote) as client:
        assert client.get("/documents").status_code == 200
        away[0] = True
        answer = client.get("/documents")
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "60"
        assert "md:scans does not answer" in answer.text
        away[0] = False
        assert client.get("/documents").status_code == 200


def test_a_fault_of_ours_shows_no_stack_trace(empty: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocr_pipeline.review.queries.choices", lambda _: 1 / 0)
    with asking(empty) as client:
        answer = client.get("/documents")
    assert answer.status_code == 500
    assert "ZeroDivisionError" not in answer.text
    assert "Something went wrong" in answer.text
