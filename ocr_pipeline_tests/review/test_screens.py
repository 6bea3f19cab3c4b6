"""The screens, asked as a browser would ask."""

from __future__ import annotations

import re
from html import unescape

import httpx
import pytest

from ocr_pipeline_tests.review.conftest import asking
from ocr_pipeline_tests.review.library import HEIGHT, WIDTH, Library, PageMade
from ocr_pipeline_tests.review.shelves import Shelves


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


def test_a_click_on_a_column_sorts_and_a_second_one_turns_the_order(client: httpx.Client) -> None:
    first = client.get("/documents", params={"sort": "source_uri"}).text
    assert names(first) == sorted(names(first), key=lambda name: names(first).index(name))
    turned = re.search(r'href="(/documents\?sort=source_uri&amp;order=desc)"', first)
    assert turned
    assert names(client.get(unescape(turned[1])).text) == names(first)[::-1]


@pytest.mark.parametrize("sort", ["uploaded_at", "processed_at", "source_uri", "status", "page_count", "size_bytes"])
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_next_leads_through_all_documents_once_in_every_order(
    shelves: Shelves, monkeypatch: pytest.MonkeyPatch, sort: str, order: str
) -> None:
    monkeypatch.setattr("ocr_pipeline.review.lists.PAGEFUL", 3)
    with asking(shelves.library) as client:
        whole, text = list[str](), client.get("/documents", params={"sort": sort, "order": order}).text
        while True:
            whole += names(text)
            if ">Next</a>" not in text:
                break
            text = client.get(link(text, "Next")).text
    assert len(whole) == len(set(whole)) == 10


@pytest.mark.parametrize("sort", ["processed_at", "source_uri", "quality", "agreement", "seconds", "attempts"])
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_next_leads_through_all_pages_once_in_every_order(
    shelves: Shelves, monkeypatch: pytest.MonkeyPatch, sort: str, order: str
) -> None:
    monkeypatch.setattr("ocr_pipeline.review.lists.PAGEFUL", 4)
    with asking(shelves.library) as client:
        whole, text = list[str](), client.get("/pages", params={"sort": sort, "order": order}).text
        while True:
            whole += re.findall(r'class="name" href="([^"]*)"', text)
            if ">Next</a>" not in text:
                break
            text = client.get(link(text, "Next")).text
    assert len(whole) == len(set(whole)) == 15


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ({"status": "failed"}, 3),
        ({"status": "failed", "name": "late"}, 1),
        ({"backend": "dgx-spark"}, 1),
        ({"since": "2026-11-04", "until": "2026-11-04"}, 3),
        ({"until": "2026-11-03"}, 9),
        ({"agreement_from": "0.5", "agreement_to": "0.6"}, 1),
        ({"since": "not a day", "agreement_from": "nan"}, 15),
        ({"batch": "20261103T120000Z-1a2b3c", "status": "blank"}, 1),
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
    assert boxes == told == ["0", "1", "2", "3", "4", "5"]
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
        "http://127.0.0.1:3000/assets/ocr_markdown?partition=20261103T120000Z-1a2b3c"
    )
