"""The screens, asked as a browser would ask."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape

import httpx
import pytest

from ocr_pipeline.records import PageStatus, Reason, Region
from ocr_pipeline_tests.review.conftest import asking
from ocr_pipeline_tests.review.library import HEIGHT, WIDTH, Library, PageMade, library
from ocr_pipeline_tests.review.shelves import FAILED, Shelves


def names(text: str) -> list[str]:
    """File names of a list, in its order."""
    return [unescape(name) for name in re.findall(r'class="name"[^>]*><bdi>(.*?)</bdi>', text)]


def link(text: str, words: str) -> str:
    """The address of the link that says these words."""
    found = re.search(rf'<a [^>]*href="([^"]*)"[^>]*>{re.escape(words)}</a>', text)
    assert found, f"no link {words!r}"
    return unescape(found[1])


def test_the_root_leads_to_the_documents(client: httpx.Client) -> None:
    assert client.get("/").url.path == "/documents"


def test_the_list_shows_status_pages_failures_backends_quality_and_time(client: httpx.Client) -> None:
    text = client.get("/documents", params={"name": "heat"}).text
    row = re.sub(r"<[^>]+>|\s+", " ", text.split("<tbody>")[1])
    assert names(text) == ["heat in thin wires.pdf"]
    for part in ("ok", " 3 ", "dgx-spark, rtx4090", "0.93", "11.5 s", "2026-11-03 12:01"):
        assert part in row


def test_documents_are_filtered_by_name_status_and_reason(client: httpx.Client) -> None:
    assert len(names(client.get("/documents").text)) == 10
    assert names(client.get("/documents", params={"status": "rejected"}).text) == ["locked.pdf"]
    assert set(names(client.get("/documents", params={"reason": "repetition"}).text)) == {"late.pdf", "partial.pdf"}
    assert "No document passes" in client.get("/documents", params={"name": "heat", "status": "failed"}).text


def test_documents_are_filtered_by_backend_quality_day_and_batch(client: httpx.Client) -> None:
    def found(**query: str) -> list[str]:
        return names(client.get("/documents", params=query).text)

    assert found(backend="dgx-spark") == ["heat in thin wires.pdf"]
    assert found(quality_below="0.5") == []
    assert len(found(quality_below="0.99")) == 9  # a rejected document has no quality
    assert len(found(since="2026-11-03", until="2026-11-03")) == 10
    assert found(since="2026-11-04") == []
    assert len(found(batch="20261103T120000Z-1a2b3c4d5e6f")) == 10
    assert found(batch="another") == []
    assert len(found(quality_below="nan", since="yesterday")) == 10


def cells(text: str, column: str) -> list[str]:
    """What stands in one column of a list, from top to bottom."""
    heads = [re.sub(r"<[^>]+>|[↑↓]", "", head).strip() for head in re.findall(r"<th [^>]*>(.*?)</th>", text, re.S)]
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row, re.S) for row in re.findall(r"<tr>(.*?)</tr>", text, re.S)[1:]]
    return [" ".join(unescape(re.sub(r"<[^>]+>", " ", row[heads.index(column)])).split()) for row in rows]


def of_seconds(text: str) -> float:
    number, unit = text.split()
    return float(number) * {"s": 1, "min": 60, "h": 3600}[unit]


DOCUMENT_SORTS: dict[str, tuple[str, Callable[[str], object]]] = {
    "source_uri": ("Document", lambda text: " ".join(text.split(" inbox/")[1].split(" · ")[:1])),  # their folders
    "status": ("Status", lambda text: text.split()[0]),
    "page_count": ("Pages", int),
    "bad_pages": ("Failed", int),
    "backend": ("Backend", lambda text: text),
    "quality": ("Quality", float),
    "seconds": ("Time", of_seconds),
    "size_bytes": ("Size", lambda text: float(text.split()[0])),
    "uploaded_at": ("Uploaded (UTC)", lambda text: text),
    "processed_at": ("Processed (UTC)", lambda text: text),
}
PAGE_SORTS: dict[str, tuple[str, Callable[[str], object]]] = {
    "source_uri": DOCUMENT_SORTS["source_uri"],
    "quality": ("Quality", float),
    "agreement": ("Agreement", float),
    "seconds": ("Time", of_seconds),
    "attempts": ("Attempts", int),
    "processed_at": ("Processed (UTC)", lambda text: text),
}


def sorts(of: dict[str, tuple[str, Callable[[str], object]]]) -> list[object]:
    return [(name, *of[name]) for name in of]


@pytest.fixture(scope="module")
def varied(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """Seven documents with other values in every column, none of them in the order of another."""
    found = library(tmp_path_factory.mktemp("varied"))
    for number, (folder, quality, time, backend) in enumerate(
        [
            ("m", 0.31, 5.0, "c-card"),
            ("c", 0.99, 700.0, "a-card"),
            ("z", 0.52, 0.4, "b-card"),
            ("a", 0.75, 80.0, "c-card"),
            ("k", 0.11, 9000.0, "a-card"),
        ]
    ):
        pages = [
            PageMade(markdown="x", quality=quality, agreement=1 - quality, seconds=time, backend=backend, days=number)
        ]
        pages += [FAILED] * (number * 3 % 4) + [PageMade(markdown="y", attempts=("http_503",) * number + ("ok",))]
        found.add(f"{folder}{'x' * (number * 300)}/same.pdf", pages, minutes=number * 7 % 5)
    found.add("r/locked.pdf", rejected=Reason.ENCRYPTED, minutes=9)
    found.add("b/blank.pdf", [PageMade(status=PageStatus.BLANK)], minutes=8)
    return found.load()


def ordered(texts: list[str], value: Callable[[str], object]) -> tuple[list[object], int]:
    """Values of a column, and how many of its cells hold none; those must be the last."""
    known = [value(text) for text in texts if text != "–"]
    assert "–" not in texts[: len(known)]
    return known, len(texts) - len(known)


def test_a_click_on_a_column_sorts_and_a_second_one_turns_the_order(varied: Library) -> None:
    with asking(varied) as client:
        text = client.get("/documents").text
        heads = re.findall(HEADS, text)
        assert len(heads) == len(DOCUMENT_SORTS)
        for address, title in heads:
            first = client.get(unescape(address)).text
            value = next(value for name, value in DOCUMENT_SORTS.values() if name == title.strip())
            there, _ = ordered(cells(first, title.strip()), value)
            again = next(href for href, name in re.findall(HEADS, first) if name == title)
            back, _ = ordered(cells(client.get(unescape(again)).text, title.strip()), value)
            assert there != back
            assert {True, False} == {there == sorted(there), back == sorted(back)}, title  # type: ignore[type-var]


HEADS = r'<th scope="col"[^>]*>\s*<a href="([^"]*)">([^<]*)<'


def walked(client: httpx.Client, address: str, column: str) -> tuple[list[str], list[str], str]:
    """The addresses and one column's cells of all screens of a list, and the last screen."""
    links, values = list[str](), list[str]()
    while True:
        text = client.get(address).text
        links += re.findall(r'class="name" href="([^"]*)"', text)
        values += cells(text, column)
        if ">Next</a>" not in text:
            return links, values, text
        address = link(text, "Next")


def walked_back(client: httpx.Client, text: str) -> list[str]:
    links = re.findall(r'class="name" href="([^"]*)"', text)
    while ">Previous</a>" in text:
        text = client.get(link(text, "Previous")).text
        links = re.findall(r'class="name" href="([^"]*)"', text) + links
    assert ">First</a>" not in text
    assert "\n  <span>1–" in text
    return links


@pytest.mark.parametrize(("sort", "column", "value"), sorts(DOCUMENT_SORTS))
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_next_leads_through_all_documents_once_in_every_order_and_previous_back(
    varied: Library,
    monkeypatch: pytest.MonkeyPatch,
    sort: str,
    column: str,
    value: Callable[[str], object],
    order: str,
) -> None:
    monkeypatch.setattr("ocr_pipeline.review.lists.PAGEFUL", 2)
    with asking(varied) as client:
        whole, texts, last = walked(client, f"/documents?sort={sort}&order={order}", column)
        assert walked_back(client, last)[-len(whole) :] == whole
    values, _ = ordered(texts, value)
    assert len(whole) == len(set(whole)) == 7
    assert values == sorted(values, reverse=order == "desc")  # type: ignore[type-var]
    assert len(set(values)) > 1


@pytest.mark.parametrize(("sort", "column", "value"), sorts(PAGE_SORTS))
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_next_leads_through_all_pages_once_in_every_order_and_previous_back(
    varied: Library,
    monkeypatch: pytest.MonkeyPatch,
    sort: str,
    column: str,
    value: Callable[[str], object],
    order: str,
) -> None:
    monkeypatch.setattr("ocr_pipeline.review.lists.PAGEFUL", 4)
    with asking(varied) as client:
        whole, texts, last = walked(client, f"/pages?sort={sort}&order={order}", column)
        assert walked_back(client, last)[-len(whole) :] == whole
    values, _ = ordered(texts, value)
    assert len(whole) == len(set(whole)) == 17
    assert values == sorted(values, reverse=order == "desc")  # type: ignore[type-var]
    assert len(set(values)) > 1


def test_a_list_of_very_long_and_unreadable_names_is_walked_to_its_end(
    empty: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ocr_pipeline.review.lists.PAGEFUL", 1)
    for number in range(3):
        key = "/".join(("\x01" * 200, "ü" * 100, "\x02" * 200, f"{number}.pdf"))
        empty.add(key, [PageMade(markdown="x", image=b"")])
    empty.load()
    with asking(empty) as client:
        whole, _, _ = walked(client, "/documents?sort=source_uri", "Pages")
        pages, _, _ = walked(client, "/pages?sort=source_uri", "Page")
    assert len(set(whole)) == len(set(pages)) == 3


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ({"status": "failed"}, 3),
        ({"status": "failed", "name": "late"}, 1),
        ({"status": "failed,blank"}, 4),
        ({"backend": "dgx-spark"}, 1),
        ({"since": "2026-11-04", "until": "2026-11-04"}, 3),
        ({"until": "2026-11-03"}, 9),
        ({"agreement_from": "0.5", "agreement_to": "0.6"}, 1),
        ({"since": "not a day", "agreement_from": "nan"}, 15),
        ({"batch": "20261103T120000Z-1a2b3c4d5e6f", "status": "blank"}, 1),
    ],
)
def test_pages_are_filtered_by_what_a_bar_stands_for(client: httpx.Client, query: dict[str, str], count: int) -> None:
    assert client.get("/pages", params=query).text.count('class="name"') == count


def test_search_finds_pages_by_all_their_words_and_jumps_to_them(client: httpx.Client) -> None:
    text = client.get("/search", params={"q": "INVOICE enclosed"}).text
    assert "the <mark>invoice</mark> is <mark>enclosed</mark>" in text
    page = client.get(unescape(re.findall(r'class="name" href="([^"]*)"', text)[0]))
    assert page.status_code == 200
    assert "the invoice is enclosed" in page.text
    assert "No page has" in client.get("/search", params={"q": "invoice zebra"}).text
    assert client.get("/search").status_code == 200


def test_a_search_of_too_many_words_is_told_so(client: httpx.Client) -> None:
    answer = client.get("/search", params={"q": " ".join(f"w{number}" for number in range(17))})
    assert answer.status_code == 200
    assert "A search takes at most 16 words, 17 were given" in answer.text


def test_the_document_screen_shows_its_pages_and_why_some_failed(client: httpx.Client, shelves: Shelves) -> None:
    text = client.get(f"/documents/{shelves.partial}").text
    assert re.findall(r">(\d+ (?:failed|ok))<", text) == ["2 failed", "2 ok"]
    assert "the model repeated itself" in text
    assert link(text, "First failed page") == f"/documents/{shelves.partial}/pages/2"
    rejected = client.get(f"/documents/{shelves.rejected}").text
    assert "a password is needed" in rejected
    assert "the file asks for a password" in rejected


def test_a_page_shows_image_regions_and_text_that_know_each_other(client: httpx.Client, shelves: Shelves) -> None:
    text = client.get(f"/documents/{shelves.report}/pages/1").text
    boxes = re.findall(r'data-region="(\d+)"', text)
    told = re.findall(r'data-regions="(\d+)"', text)
    assert told == sorted(boxes) == ["0", "1", "2", "3", "4", "5"]
    drawn = re.search(r'<rect class="box table" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"', text)
    assert drawn
    box = [80 / 999 * WIDTH, 340 / 999 * HEIGHT, 820 / 999 * WIDTH, 180 / 999 * HEIGHT]
    assert list(map(float, drawn.groups())) == pytest.approx(box, abs=0.1)
    assert "<math" in text
    assert "<td>0.1 mm</td>" in text
    image = client.get(unescape(re.findall(r'<img src="([^"]*/image[^"]*)"', text)[0]))
    assert image.headers["content-type"] == "image/jpeg"
    assert "immutable" in image.headers["cache-control"]
    figure = client.get(re.findall(r'<img src="([^"]*/figures/4)"', text)[0])
    assert figure.content.startswith(b"\xff\xd8\xff")


def test_the_raw_text_and_the_attempts_are_one_click_away(client: httpx.Client, shelves: Shelves) -> None:
    page = f"/documents/{shelves.partial}/pages/3"
    text = client.get(page).text
    raw, attempts = client.get(f"{page}?show=raw").text, client.get(f"{page}?show=attempts").text
    assert f"{page}?show=raw" in text
    assert f"{page}?show=attempts" in text
    assert ">Yours faithfully</pre>" in raw
    assert "loop loop loop 1" in raw  # of the attempt that was not taken
    for part in ("http_503", "shortest wait", "913", "640", "2.5 s", "rtx4090"):
        assert part in attempts
    grounded = client.get(f"/documents/{shelves.report}/pages/1?show=raw").text
    assert "&lt;|ref|&gt;title&lt;|/ref|&gt;" in grounded


def test_next_failed_goes_through_all_failed_pages_and_rejected_documents_by_key(
    client: httpx.Client, shelves: Shelves
) -> None:
    places, page = [], f"/documents/{shelves.partial}/pages/1"
    for _ in range(6):
        found = re.search(r'href="([^"]*)" data-key="next-failed"', client.get(page).text)
        if not found:
            break
        page = found[1]
        places.append(page)
    assert places == [
        f"/documents/{shelves.partial}/pages/2",
        f"/documents/{shelves.partial}/pages/4",
        f"/documents/{shelves.rejected}",
        f"/documents/{shelves.late}/pages/1",
    ]
    back = re.search(r'href="([^"]*)" data-key="previous-failed"', client.get(places[-1]).text)
    assert back
    assert back[1] == places[-2]


def test_the_overview_links_every_bar_to_the_pages_behind_it(client: httpx.Client) -> None:
    text = client.get("/overview").text
    bars = [(unescape(a), unescape(b)) for a, b in re.findall(r'<a href="([^"]*)" aria-label="([^"]*)">', text)]
    assert ("/pages?status=failed&reason=repetition", "failed: repetition: 3 pages") in bars
    for address, label in bars:
        count = re.search(r": ([\d,]+) (page|document)", label)
        if count:
            shown = client.get(address).text
            assert f"of {count[1]} {count[2]}" in shown or (count[1] == "0" and "passes this filter" in shown), label
    assert "0.37 pages/s" in text


def test_the_overview_shows_what_a_page_costs_where_prices_are_set(empty: Library) -> None:
    from ocr_pipeline.warehouse.costs import BackendCost, set_backend_costs

    empty.add("a.pdf", [PageMade(markdown="a")])
    empty.load()
    with asking(empty) as client:
        assert "No prices are set" in client.get("/overview").text
        set_backend_costs(empty.warehouse, {"rtx4090": BackendCost(40.0)})
        assert re.search(r"\$0\.03\d / 1,000", client.get("/overview").text)  # 2.5 s of 730 h at 40 dollars


def test_nothing_in_the_tables_is_said_in_words(empty: Library) -> None:
    with asking(empty) as client:
        assert "ocr-pipeline ingest" in client.get("/documents").text
        for path in ("/pages", "/overview", "/search?q=a"):
            assert client.get(path).status_code == 200


def test_a_deleted_document_leaves_the_lists_and_its_screen_says_so(empty: Library) -> None:
    from datetime import timedelta

    from ocr_pipeline.warehouse.load import mark_deleted
    from ocr_pipeline_tests.review.library import NOON

    document = empty.add("a.pdf", [PageMade(markdown="words")])
    empty.load()
    mark_deleted(empty.warehouse, {document: NOON + timedelta(hours=1)})
    with asking(empty) as client:
        assert names(client.get("/documents").text) == []
        assert "The upload was deleted" in client.get(f"/documents/{document}").text


def test_the_batch_is_linked_to_dagster_where_its_address_is_known(shelves: Shelves) -> None:
    with asking(shelves.library, dagster_url="http://127.0.0.1:3000/") as client:
        text = client.get(f"/documents/{shelves.report}").text
    assert link(text, "Batch in Dagster") == (
        "http://127.0.0.1:3000/assets/ocr_markdown?partition=20261103T120000Z-1a2b3c4d5e6f"
    )


def test_the_overview_leads_to_all_bad_pages_and_counts_one_as_one(empty: Library) -> None:
    skipped = PageMade(status=PageStatus.SKIPPED, reason=Reason.PAGE_TOO_LARGE)
    empty.add("a.pdf", [PageMade(markdown="x"), skipped])
    empty.load()
    with asking(empty) as client:
        text = client.get("/overview").text
        found = re.search(r'<a href="([^"]*)"[^>]*><strong>1</strong> page failed or skipped</a>', text)
        assert found
        behind = client.get(unescape(found[1])).text
    assert "<strong>1</strong> document</a>" in text
    assert cells(behind, "Page") == ["2"]
    assert '<option value="failed,skipped" selected>failed or skipped</option>' in behind


def test_a_backend_whose_speed_is_not_known_has_no_bar(empty: Library) -> None:
    empty.add("a.pdf", [PageMade(markdown="x", backend="slow")])
    empty.add("b.pdf", [PageMade(markdown="x", backend="instant", seconds=0.0)])
    empty.load()
    with asking(empty) as client:
        text = client.get("/overview").text
    assert 'aria-label="instant: not known"' in text
    assert text.count('class="bar speed"') == 2  # of one backend, for a wide and for a narrow window


def test_a_region_inside_of_a_larger_one_is_drawn_above_it(empty: Library) -> None:
    inner, outer = Region("text", 0.2, 0.2, 0.5, 0.3, "inner"), Region("text", 0.05, 0.05, 0.95, 0.95, "outer")
    document = empty.add("a.pdf", [PageMade(markdown="inner\n\nouter", regions=(inner, outer))])
    empty.load()
    with asking(empty) as client:
        text = client.get(f"/documents/{document}/pages/1").text
    assert re.findall(r'data-region="(\d)"', text) == ["1", "0"]
