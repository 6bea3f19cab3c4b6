"""The app in a real browser, without a screen. Screenshots go to OCR_TEST_SCREENSHOTS, else below pytest's own folder.

OCR_TEST_AXE: the path of axe.min.js (`npm install axe-core@4.14.1`), for the accessibility tests.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

selenium = pytest.importorskip("selenium", reason="pip install selenium: `make setup` brings it")

from selenium import webdriver  # noqa: E402
from selenium.common.exceptions import StaleElementReferenceException  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.remote.webelement import WebElement  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402

from ocr_pipeline.records import Region  # noqa: E402
from ocr_pipeline.review.app import build_app  # noqa: E402
from ocr_pipeline.review.asking_again import Asked  # noqa: E402
from ocr_pipeline_tests.review.browser import chromium  # noqa: E402
from ocr_pipeline_tests.review.library import Library, PageMade  # noqa: E402
from ocr_pipeline_tests.review.server import serving  # noqa: E402
from ocr_pipeline_tests.review.shelves import Shelves  # noqa: E402

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

HOVERED = ".box.on"


@pytest.fixture(scope="module")
def site(shelves: Shelves) -> Iterator[str]:
    app = build_app(
        shelves.library.lake, shelves.library.warehouse, allow_retry=lambda request: Asked(("retry-01",), 1)
    )
    with serving(app) as url:
        yield url


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture(scope="module")
def shoot(browser: webdriver.Chrome, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], None]:
    """Keeps what the browser shows, under this name."""
    folder = Path(os.environ.get("OCR_TEST_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return lambda name: browser.save_screenshot(str(folder / f"{name}.png")) and None


@pytest.fixture(autouse=True)
def nothing_is_reported_broken(browser: webdriver.Chrome) -> Iterator[None]:
    """No script error and nothing that the content security policy had to stop, in any test."""
    yield
    said = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert [line for line in said if "/image" not in line or "404" not in line] == []


def one(browser: webdriver.Chrome, selector: str) -> WebElement:
    return browser.find_element(By.CSS_SELECTOR, selector)


def every(browser: webdriver.Chrome, selector: str) -> list[WebElement]:
    return browser.find_elements(By.CSS_SELECTOR, selector)


def wait(browser: webdriver.Chrome, until: Callable[[webdriver.Chrome], object]) -> None:
    """A page that is left while it is looked at is looked at again."""
    WebDriverWait(browser, 30, ignored_exceptions=[StaleElementReferenceException]).until(until)


def press(browser: webdriver.Chrome, *keys: str) -> None:
    ActionChains(browser).send_keys(*keys).perform()


def path(browser: webdriver.Chrome) -> str:
    return "/" + browser.current_url.split("/", 3)[3]


def test_list_filter_and_open_a_document(
    browser: webdriver.Chrome, site: str, shoot: Callable[[str], None], shelves: Shelves
) -> None:
    browser.get(f"{site}/documents")
    assert len(every(browser, "tbody tr")) == 10
    shoot("documents")
    one(browser, "input[name=name]").send_keys("letters")
    Select(one(browser, "select[name=status]")).select_by_visible_text("partial")
    one(browser, ".filter button").click()
    wait(browser, lambda b: len(every(b, "tbody tr")) == 1)
    shoot("documents-filtered")
    one(browser, "a.name").click()
    wait(browser, lambda b: path(b) == f"/documents/{shelves.partial}")
    shoot("document")


def test_search_by_keyboard_and_jump_to_the_page_where_the_words_are_marked(
    browser: webdriver.Chrome, site: str, shoot: Callable[[str], None], shelves: Shelves
) -> None:
    browser.get(f"{site}/documents")
    press(browser, "/")
    press(browser, "invoice enclosed", Keys.ENTER)
    wait(browser, lambda b: "/search" in b.current_url and every(b, ".hits mark"))
    shoot("search")
    press(browser, "j", Keys.ENTER)
    wait(browser, lambda b: f"/documents/{shelves.partial}/pages/1" in b.current_url)
    assert browser.execute_script("return CSS.highlights.get('found').size") == 2
    shoot("search-page")


def test_hovering_a_region_marks_its_text_and_the_other_way_round(
    browser: webdriver.Chrome, site: str, shoot: Callable[[str], None], shelves: Shelves
) -> None:
    browser.get(f"{site}/documents/{shelves.report}/pages/1")
    wait(browser, lambda b: b.execute_script("return document.querySelector('[data-image]').naturalWidth") == 620)
    ActionChains(browser).move_to_element(one(browser, ".box.table")).perform()
    assert "0.1 mm" in one(browser, ".block.on").text
    assert "table" in one(browser, "#region-name").text
    shoot("page")
    ActionChains(browser).move_to_element(one(browser, "math[display=block]")).perform()
    assert [box.get_dom_attribute("data-label") for box in every(browser, HOVERED)] == ["equation"]
    ActionChains(browser).move_to_element(one(browser, "h1")).perform()
    assert every(browser, f"{HOVERED}, .block.on") == []


@contextmanager
def window(browser: webdriver.Chrome, width: int, height: int) -> Iterator[None]:
    """A window that narrow; Chromium's own ends at 500 pixels."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        yield
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_in_a_narrow_window_hovering_marks_and_leaves_the_reader_where_he_is(
    browser: webdriver.Chrome, empty: Library
) -> None:
    texts = [f"Paragraph {n} {'lorem ipsum dolor ' * 12}" for n in range(20)]
    regions = tuple(Region("text", 0.1, n / 20, 0.9, (n + 0.9) / 20, text) for n, text in enumerate(texts))
    document = empty.add("long.pdf", [PageMade(markdown="\n\n".join(texts), regions=regions)])
    empty.load()
    with serving(build_app(empty.lake, empty.warehouse)) as url, window(browser, 700, 900):
        browser.get(f"{url}/documents/{document}/pages/1")
        block, box = every(browser, ".block")[10], one(browser, '.box[data-region="10"]')
        for pointed, other in ((block, box), (box, block)):
            browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", pointed)
            before = browser.execute_script("return scrollY")
            ActionChains(browser).move_to_element(pointed).perform()
            wait(browser, lambda b, other=other: "on" in other.get_dom_attribute("class").split())  # type: ignore[misc]
            assert browser.execute_script("return scrollY") == before
            assert before > 0 or pointed is box
    with serving(build_app(empty.lake, empty.warehouse)) as url:  # side by side, each side goes along by itself
        browser.get(f"{url}/documents/{document}/pages/1")
        ActionChains(browser).move_to_element(one(browser, '.box[data-region="5"]')).perform()
        browser.execute_script("arguments[0].scrollIntoView()", every(browser, ".block")[19])
        ActionChains(browser).move_to_element(every(browser, ".block")[19]).perform()
        wait(browser, lambda b: b.execute_script("return document.querySelector('.sheet-frame').scrollTop") > 0)


def test_a_box_inside_of_a_larger_later_one_can_be_pointed_at(browser: webdriver.Chrome, empty: Library) -> None:
    inner, outer = Region("text", 0.2, 0.2, 0.5, 0.3, "inner"), Region("text", 0.05, 0.05, 0.95, 0.95, "outer")
    document = empty.add("nest.pdf", [PageMade(markdown="inner\n\nouter", regions=(inner, outer))])
    empty.load()
    with serving(build_app(empty.lake, empty.warehouse)) as url:
        browser.get(f"{url}/documents/{document}/pages/1")
        ActionChains(browser).move_to_element(one(browser, '.box[data-region="0"]')).perform()
        assert one(browser, ".block.on").text == "inner"
        press(browser, "j")
        assert "region 1 of 2" in one(browser, "#region-name").text


def test_boxes_are_reached_and_chosen_without_a_mouse_also_beside_the_raw_text(
    browser: webdriver.Chrome, site: str, shelves: Shelves
) -> None:
    browser.get(f"{site}/documents/{shelves.report}/pages/1?show=raw")
    browser.execute_script("document.querySelector('.sheet-frame').focus()")
    press(browser, Keys.TAB)
    assert browser.switch_to.active_element.get_dom_attribute("aria-label") == "Region 1: title"
    press(browser, Keys.ENTER)
    assert browser.switch_to.active_element.get_dom_attribute("aria-pressed") == "true"
    assert browser.current_url.endswith("?show=raw#region-0")
    press(browser, "j")
    assert browser.switch_to.active_element.get_dom_attribute("aria-label") == "Region 2: text"
    press(browser, Keys.ARROW_RIGHT)
    wait(browser, lambda b: path(b) == f"/documents/{shelves.report}/pages/2?show=raw")


def test_the_image_can_be_seen_whole(browser: webdriver.Chrome, site: str, shelves: Shelves) -> None:
    for size in ((1440, 900), (390, 800)):
        with window(browser, *size):
            browser.get(f"{site}/documents/{shelves.report}/pages/1")
            wait(browser, lambda b: b.execute_script("return document.querySelector('[data-image]').naturalWidth > 0"))
            press(browser, "z")
            assert "whole page" in one(browser, "[data-zoom]").text
            image, frame = one(browser, "[data-image]").rect, one(browser, ".sheet-frame").rect
            assert image["height"] <= min(frame["height"], size[1])
            assert image["width"] / image["height"] == pytest.approx(620 / 877, abs=0.01)
            press(browser, "z")
            assert one(browser, "[data-image]").rect["width"] == 620
            press(browser, "z")
            assert "fit width" in one(browser, "[data-zoom]").text


@pytest.mark.parametrize(
    "screen",
    ["/documents", "/pages", "/search?q=text", "/overview", "/documents/{partial}/pages/3?show=attempts", "/retry"],
)
def test_on_a_telephone_no_screen_is_wider_than_it(
    browser: webdriver.Chrome, site: str, shelves: Shelves, shoot: Callable[[str], None], screen: str
) -> None:
    with window(browser, 390, 800):
        browser.get(site + screen.format(partial=shelves.partial))
        assert browser.execute_script("return document.documentElement.scrollWidth") == 390
        shoot(f"telephone-{re.sub(r'[^a-z]+', '-', screen)}")


def test_boxes_lie_where_the_regions_are_on_the_image(browser: webdriver.Chrome, site: str, shelves: Shelves) -> None:
    browser.get(f"{site}/documents/{shelves.report}/pages/1")
    image, box = one(browser, "[data-image]").rect, one(browser, ".box.table").rect
    assert (box["x"] - image["x"]) / image["width"] == pytest.approx(80 / 999, abs=0.01)
    assert (box["y"] - image["y"]) / image["height"] == pytest.approx(340 / 999, abs=0.01)
    assert box["width"] / image["width"] == pytest.approx(820 / 999, abs=0.01)


def test_the_figure_and_the_formula_are_drawn(browser: webdriver.Chrome, site: str, shelves: Shelves) -> None:
    browser.get(f"{site}/documents/{shelves.report}/pages/1")
    wait(browser, lambda b: b.execute_script("return document.querySelector('.read img').naturalWidth > 100"))
    fraction = one(browser, "mfrac").rect
    assert fraction["height"] > 1.5 * one(browser, "math mi").rect["height"]


def test_a_region_has_a_link_that_can_be_copied_and_followed(
    browser: webdriver.Chrome, site: str, shelves: Shelves
) -> None:
    address = f"{site}/documents/{shelves.report}/pages/1"
    browser.get(address)
    press(browser, "j", "j", "j", "j")
    assert browser.current_url == f"{address}#region-3"
    allowed = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"], "origin": site}
    browser.execute_cdp_cmd("Browser.grantPermissions", allowed)
    press(browser, "c")
    wait(browser, lambda b: one(b, "#told").text == "Link copied")
    assert browser.execute_async_script("navigator.clipboard.readText().then(arguments[0])") == f"{address}#region-3"
    browser.get("about:blank")
    browser.get(f"{address}#region-3")
    assert "0.1 mm" in one(browser, ".block.on").text
    press(browser, Keys.ESCAPE)
    assert browser.current_url == address
    assert every(browser, HOVERED) == []


def test_the_keyboard_leads_from_page_to_page_and_to_every_failed_one(
    browser: webdriver.Chrome, site: str, shoot: Callable[[str], None], shelves: Shelves
) -> None:
    partial = f"/documents/{shelves.partial}"
    browser.get(f"{site}{partial}/pages/1")
    for key, place in (
        ("f", f"{partial}/pages/2"),
        ("f", f"{partial}/pages/4"),
        ("p", f"{partial}/pages/3"),
        (Keys.ARROW_LEFT, f"{partial}/pages/2"),
        ("n", f"{partial}/pages/3"),
        ("a", f"{partial}/pages/3?show=attempts"),
        ("w", f"{partial}/pages/3?show=raw"),
        (Keys.ARROW_RIGHT, f"{partial}/pages/4?show=raw"),
        ("t", f"{partial}/pages/4"),
        ("f", f"/documents/{shelves.rejected}"),
        ("f", f"/documents/{shelves.late}/pages/1"),
        ("F", f"/documents/{shelves.rejected}"),
        ("F", f"{partial}/pages/4"),
        ("u", partial),
        ("1", "/documents"),
        ("2", "/pages"),
        ("3", "/overview"),
    ):
        press(browser, key)
        wait(browser, lambda b, place=place: path(b) == place)  # type: ignore[misc]
        if place.endswith(("show=attempts", "show=raw", "pages/2")):
            shoot(re.sub(r"\W+", "-", place.split("/", 3)[-1]))


def test_a_list_is_walked_with_j_and_k_and_the_keys_are_told(
    browser: webdriver.Chrome, site: str, shoot: Callable[[str], None]
) -> None:
    browser.get(f"{site}/documents")
    press(browser, "f")
    wait(browser, lambda b: path(b) == "/pages?status=failed%2Cskipped")
    assert len(every(browser, "tbody tr")) == 3
    browser.get(f"{site}/documents")
    press(browser, "j", "j", "k")
    assert browser.switch_to.active_element.text == every(browser, "a.name")[0].text
    press(browser, "?")
    assert one(browser, "#keys").is_displayed()
    shoot("keys")
    press(browser, "j", Keys.ESCAPE)
    assert not one(browser, "#keys").is_displayed()
    one(browser, "input[name=name]").send_keys("j2?f")
    assert path(browser) == "/documents"


def test_the_overview_and_the_pages_behind_a_bar(
    browser: webdriver.Chrome, site: str, shoot: Callable[[str], None]
) -> None:
    browser.get(f"{site}/overview")
    browser.set_window_size(1440, 1500)
    shoot("overview")
    browser.set_window_size(1440, 900)
    bar = one(browser, 'svg a[aria-label="failed: repetition: 3 pages"]')
    ActionChains(browser).move_to_element(bar).click().perform()
    wait(browser, lambda b: path(b) == "/pages?status=failed&reason=repetition")
    assert len(every(browser, "tbody tr")) == 3
    shoot("pages")


def test_asking_again_from_a_page(
    browser: webdriver.Chrome, site: str, shoot: Callable[[str], None], shelves: Shelves
) -> None:
    browser.get(f"{site}/documents/{shelves.partial}/pages/2")
    browser.find_element(By.LINK_TEXT, "Ask again…").click()
    wait(browser, lambda b: "/retry" in b.current_url)
    shoot("ask-again")
    one(browser, "button.main").click()
    wait(browser, lambda b: "retry-01" in one(b, "main").text)


def test_a_script_in_text_name_or_title_does_not_run_on_any_screen(
    browser: webdriver.Chrome, site: str, shoot: Callable[[str], None], shelves: Shelves
) -> None:
    page = f"/documents/{shelves.hostile}/pages/1"
    screens = ["/documents", "/pages", f"/documents/{shelves.hostile}", f"{page}?show=raw", f"{page}?show=attempts"]
    for screen in (
        *screens,
        "/search?q=hostile",
        "/search?q=%3Cscript%3Ewindow.__canary=1",
        "/documents?name=%3Cscript",
        page,
    ):
        browser.get(f"{site}{screen}")
        assert "canary" in browser.page_source or screen == "/search?q=hostile", screen
        for link in every(browser, ".read a[href^=javascript]"):
            link.click()
        ActionChains(browser).move_to_element(one(browser, "main")).perform()
        assert browser.execute_script("return window.__canary") is None, screen
        assert path(browser) == screen
        assert len(browser.window_handles) == 1
    shoot("hostile")
    assert (
        every(browser, "main iframe, main object, main form, main style, main [onclick], main [style], #main #main")
        == []
    )
    asked = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert [address for address in asked if not address.startswith(site)] == []


def test_an_image_that_is_gone_is_told_in_its_place(
    browser: webdriver.Chrome, empty: Library, shoot: Callable[[str], None]
) -> None:
    from ocr_pipeline.lake import keys
    from ocr_pipeline_tests.review.library import BATCH

    document = empty.add(
        "a.pdf", [PageMade(markdown="still here", regions=(Region("text", 0.1, 0.1, 0.5, 0.2, "still here"),))]
    )
    empty.load()
    empty.lake.delete([keys.page_image(BATCH, document, 1)])
    with serving(build_app(empty.lake, empty.warehouse)) as url:
        browser.get(f"{url}/documents/{document}/pages/1")
        wait(browser, lambda b: "no longer in the lake" in one(b, "[data-gone]").text)
        shoot("image-gone")
        assert one(browser, ".read").text == "still here"


def test_a_heavy_page_is_shown_and_answers(
    browser: webdriver.Chrome, empty: Library, shoot: Callable[[str], None]
) -> None:
    """5,000 regions, a table of 300 columns, text from right to left, 2 MB: all on one page."""
    regions = tuple(
        Region("text", (n % 50) / 50, (n // 50) / 100, (n % 50 + 1) / 50, (n // 50 + 1) / 100, f"line {n}")
        for n in range(5000)
    )
    row = "|" + "|".join(f"column {n}" for n in range(300)) + "|"
    head = f"{row}\n{'|-' * 300}|\n{row}\n\nשלום עולם, זה כתוב מימין לשמאל.\n\n"
    lines = "\n\n".join(region.text for region in regions)
    document = empty.add("heavy.pdf", [PageMade(markdown=f"{head}{lines}\n\n{'word ' * 400_000}", regions=regions)])
    empty.load()
    with serving(build_app(empty.lake, empty.warehouse)) as url:
        browser.get(f"{url}/documents/{document}/pages/1")
        assert len(every(browser, ".box")) == 5000
        assert one(browser, ".text-frame").rect["width"] < 800  # the table scrolls in its block, not the page
        hebrew = next(p for p in every(browser, ".read p") if "שלום" in p.text)
        right_edge = browser.execute_script(
            "const r = new Range(); r.selectNodeContents(arguments[0]); return r.getBoundingClientRect().right", hebrew
        )
        assert right_edge > hebrew.rect["x"] + hebrew.rect["width"] * 0.9
        shoot("heavy")
        press(browser, "j", "j", "j")
        assert one(browser, ".block.on").text == "line 2"


@pytest.fixture(scope="module")
def axe() -> str:
    place = os.environ.get("OCR_TEST_AXE")
    if not place:
        pytest.fail("set OCR_TEST_AXE to axe.min.js: `npm install axe-core@4.14.1` puts it into node_modules/axe-core")
    return Path(place).read_text()


@pytest.mark.parametrize(
    "screen",
    [
        "/documents",
        "/documents?name=nothing-has-this-name",
        "/pages",
        "/search?q=text",
        "/overview",
        "/documents/{report}",
        "/documents/{rejected}",
        "/documents/{report}/pages/1#region-3",
        "/documents/{partial}/pages/2",
        "/documents/{partial}/pages/3?show=attempts",
        "/documents/{partial}/pages/3?show=raw",
        "/retry?status=failed",
        "/nothing",
    ],
)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(
    browser: webdriver.Chrome, site: str, shelves: Shelves, axe: str, screen: str, scheme: str
) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    address = screen.format(report=shelves.report, partial=shelves.partial, rejected=shelves.rejected)
    browser.get("about:blank")
    browser.get(site + address)
    browser.execute_script(axe)  # by the driver: the page's own policy would not let it in
    found = browser.execute_async_script("axe.run().then(arguments[arguments.length - 1])")
    browser.get_log("browser")
    faults = [
        f"{fault['impact']}: {fault['id']}: {fault['nodes'][0]['html'][:200]}: {fault['nodes'][0]['failureSummary']}"
        for fault in found["violations"]
    ]
    assert faults == []
    assert len(found["passes"]) > 10
