# ruff: noqa: E501  # one line a case
"""What is a good text, what is not, and which try is taken."""

from __future__ import annotations

import random
from base64 import b64encode

import pytest

from ocr_pipeline.ocr.quality.repetition import find_loop
from ocr_pipeline.ocr.quality.verdict import Verdict, judge, plain
from ocr_pipeline.records import PageImage, Reason
from ocr_pipeline_tests.growth import growth

T = pytest.mark.parametrize

WORDS = """
the of and in to a is that for it was on with as are by be this from at have not which or an page report result value
system method table figure number increase measured between during however company revenue quarter growth customer
product market analysis section data model energy water temperature pressure north south river council
""".split()  # noqa: SIM905


def prose(words: int, seed: int = 1) -> str:
    rng = random.Random(seed)
    text = [rng.choice(WORDS) for _ in range(words)]
    return " ".join(word + ("." if number % 13 == 12 else "") for number, word in enumerate(text))


def image(ink: float = 0.1, layer: str = "") -> PageImage:
    return PageImage(
        document_id="d",
        page_number=1,
        pages_in_document=1,
        urgent=False,
        jpeg=b"",
        sha256="",
        width=1240,
        height=1754,
        ink=ink,
        text_layer=layer,
    )


def grounded(*blocks: tuple[str, str]) -> str:
    return "\n\n".join(
        f"<|ref|>{label}<|/ref|><|det|>[[50, {10 + 9 * n}, 940, {18 + 9 * n}]]<|/det|>\n{text}"
        for n, (label, text) in enumerate(blocks)
    )


def judged(text: str, finish: str | None = "stop", *, ink: float = 0.1, layer: str = "") -> Verdict:
    return judge(text, finish, image(ink, layer), "grounding")


def rows(*cells: str) -> str:
    return "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row.split("|")) + "</tr>" for row in cells)


def numbers(seed: int, count: int, columns: int) -> list[str]:
    rng = random.Random(seed)
    return ["|".join(str(rng.randint(0, 9999)) for _ in range(columns)) for _ in range(count)]


# -- pages as they are -------------------------------------------------------------------------------------------------

LEGITIMATE = {
    "prose": prose(600),
    "a table of numbers": f"<table>{rows(*numbers(1, 60, 8))}</table>",
    "an empty form of 40 rows and 10 columns": f"<table>{rows('Name|Date' + '|' * 8, *['|' * 9] * 40)}</table>",
    "a table of zeros": f"<table>{rows(*[f'{n}|0|0|0|0|0|0|0|0|0' for n in range(45)])}</table>",
    "an empty form with pipes": "| Name | Date |" + " |" * 8 + ("\n|" + " |" * 10) * 40,
    "equal rows with pipes": "| Item | Price |\n| --- | --- |\n" + "| Coffee | 2.50 |\n" * 20,
    "a calendar": f"<table>{rows('Mo|Tu|We|Th|Fr|Sa|Su', *['|' * 6] * 6)}</table>" * 12,
    "equal rows": f"<table>{rows('Item|Price', *['Coffee|2.50'] * 20)}</table>",
    "a contents page": "\n".join(f"{n}. {prose(5, n)} {'.' * 80} {n * 3}" for n in range(1, 45)),
    "a contents page of spaced leaders": "\n".join(f"{n}. {prose(4, n)} {'. ' * 40} {n * 3}" for n in range(1, 30)),
    "a form to fill in": "\n".join(f"{prose(2, n)}: {'_' * 60}" for n in range(30)),
    "answers": "\n".join(["Yes", "No"] * 20) + "\n\n" + prose(60),
    "boxes to tick": "\n".join(f"☐ Yes ☐ No ☐ Unknown {prose(3, n)}" for n in range(30)),
    "a sign-in sheet": "\n".join(["Name: ________ Date: ________ Signature: ________"] * 7) + "\n" + prose(30),
    "a refrain": "\n\n".join(f"{prose(30, n)}\n\nAnd the river runs on, and the river runs on to the sea." for n in range(7)),
    "a list of one unit": "\n".join(f"- {n} mm" for n in range(80)),
    "a rule": "-" * 300 + "\n" + prose(80) + "\n" + "=" * 300,
    "a legal text": "\n\n".join(f"({n}) The {prose(3, n)} shall, subject to paragraph ({n + 1}), {prose(25, n)}." for n in range(20)),
    "code": "\n".join(f"    if (x[{n}] == {n * 7}) {{ return y[{n}]; }}" for n in range(50)),
    "Chinese": "中华人民共和国是工人阶级领导的、以工农联盟为基础的人民民主专政的社会主义国家。社会主义制度是中华人民共和国的根本制度。" * 2,
    "zeros and ones": " ".join(random.Random(3).choice("01") for _ in range(400)),
    "Russian with Latin terms": "Система OCR читает страницу через API и пишет markdown в таблицу DuckDB за 2 мс. " + "Отчёт за квартал: " + "рост выручки и прибыли " * 3,
    "Japanese with kana and Latin": "このシステムはPDFをページ画像にして、モデルに読ませ、Markdownとしてテーブルに書きます。ログとメトリクスも見られます。",
    "Greek in formulas": "The angle α and the mean μ of Δx are 5 μm and 3 kΩ; β, γ, λ and Σ follow from \\(\\alpha + \\beta\\). " + prose(80),
    "a page of six languages": "Welcome. Willkommen. Добро пожаловать. Καλώς ήρθατε. 欢迎. ようこそ. مرحبا. " + prose(60),
    "base64": b64encode(random.Random(5).randbytes(2000)).decode(),
}  # fmt: skip


@T("text", LEGITIMATE.values(), ids=LEGITIMATE)
def test_a_page_as_people_print_them_is_good(text: str) -> None:
    verdict = judged(grounded(("title", "# A heading"), ("text", text)))
    assert verdict.reason is None, verdict.detail
    assert verdict.score == 1.0


# -- loops -------------------------------------------------------------------------------------------------------------

LOOPS = {
    "a word to the end": prose(80) + " the" * 900,
    "a sentence to the end": prose(80) + " The report was measured in the north." * 60,
    "a sentence, broken off by the n-gram guard": prose(200) + " The report was measured in the north." * 25 + " " + prose(30, 2),
    "a paragraph to the end": prose(50) + ("\n\n" + prose(120, 9)) * 6,
    "a long paragraph, broken off": prose(50) + ("\n\n" + prose(90, 9)) * 12 + "\n\n" + prose(20, 4),
    "cells that never end": "<table><tr><td>Name</td>" + "<td></td>" * 900,
    "cells that never end, closed by the guard": "<table><tr><td>Name</td>" + "<td></td>" * 400 + "</tr></table>\n" + prose(20),
    "the same number in every cell": "<table>" + rows(*numbers(2, 5, 3)) + "<tr>" + "<td>0.00</td>" * 700,
    "rows to the end": "<table>" + rows(*numbers(2, 5, 3)) + rows("Coffee|2.50") * 200,
    "empty rows to the end": "<table>" + rows(*numbers(2, 5, 3)) + "<tr><td></td><td></td></tr>" * 300,
    "Chinese": "社会主义制度是根本制度。" + "人民民主专政的国家。" * 120,
    "Chinese, broken off": "社会主义制度是根本制度。" + "人民民主专政的国家。" * 150 + "中华人民共和国是工人阶级领导的。" * 3,
    "one letter": prose(40) + " " + "a" * 3000,
    "one syllable": prose(40) + " " + "haha" * 500,
    "dots to the end": prose(40) + "\n" + "." * 5000,
    "a list that counts nothing": prose(40) + "\n- see the annual report of the council" * 40,
}  # fmt: skip


@T("text", LOOPS.values(), ids=LOOPS)
@T("finish", ["stop", "length", None])
def test_a_loop_is_found_whether_it_was_cut_off_or_broken_off(text: str, finish: str | None) -> None:
    verdict = judged(grounded(("title", "# A heading"), ("text", text)), finish)
    assert verdict.reason is Reason.REPETITION
    assert verdict.score < 0.5


def test_a_loop_of_whole_blocks_is_found_although_each_has_its_own_box() -> None:
    blocks = [("text", prose(200))] + [("text", "The council measured the river in the north.")] * 60
    assert judged(grounded(*blocks)).reason is Reason.REPETITION


def test_what_the_server_stopped_as_a_loop_is_one() -> None:
    assert judged(prose(100), "repetition").reason is Reason.REPETITION


def test_a_page_that_repeats_itself_in_its_own_text_layer_is_no_loop() -> None:
    labels = "\n\n".join(["Council of the North, 12 River Road, Quarter Town"] * 30)
    assert judged(labels).reason is Reason.REPETITION
    assert judged(labels, layer=labels).reason is None


def test_the_less_of_a_text_is_a_loop_the_more_it_is_worth() -> None:
    short = judged(prose(400) + " The report was measured in the north." * 12)
    long = judged(prose(40) + " The report was measured in the north." * 120)
    assert short.reason is long.reason is Reason.REPETITION
    assert short.score > long.score


@T("unit", ["a", "ab ", "a b c d e f ", "<td></td>", "<table>", "<tr>", "<", "中", "\n", " ", "[[", "the end. "])
def test_finding_loops_takes_no_square_of_the_length_and_no_more_beyond_60000_characters(unit: str) -> None:
    def text(size: int) -> str:
        return (prose(50) + unit * (size // len(unit)))[:size]

    assert growth(find_loop, text(7500), text(60_000)) < 20  # a square would be 64
    assert growth(find_loop, text(60_000), text(2_000_000)) < 4


# -- cut off, empty, garbage -------------------------------------------------------------------------------------------


def test_a_text_at_its_length_limit_is_truncated() -> None:
    verdict = judged(prose(900), "length")
    assert verdict.reason is Reason.TRUNCATED
    assert 0 < verdict.score < 1


@T("text", ["", "   \n", "<|ref|>text<|/ref|><|det|>[[1, 2, 3, 4]]<|/det|>\n", "\u200b", "…", "<table></table>"])
def test_no_word_for_a_page_with_ink_is_empty(text: str) -> None:
    verdict = judged(text, ink=0.05)
    assert (verdict.reason, verdict.score) == (Reason.EMPTY_TEXT, 0.0)


def test_no_word_for_a_page_with_next_to_no_ink_is_right() -> None:
    assert judged("", ink=0.00005).reason is None


def test_a_page_that_is_one_picture_needs_no_word() -> None:
    assert judged("<|ref|>image<|/ref|><|det|>[[0, 0, 999, 999]]<|/det|>\n").reason is None


@T(
    "text",
    [
        "\ufffd" * 30 + prose(20),
        prose(40).replace("e", "\ue010"),
        "Die GrÃ¶ÃŸe der FlÃ¤che Ã¼ber dem Ã„rmel: schÃ¶n, fÃ¼r MÃ¼ller und SÃ¶hne",
        "It wasnâ€™t â€œgoodâ€\x9d, they donâ€™t say; itâ€™s here",
        " ".join("kмalтoпrжs" for _ in range(15)) + " рlаnеt " * 20,
        "system กขฃคฅ ابجدهوز 시스템 모델 кириллица अआइईउऊ עברית ქართული " * 12,
    ],
    ids=["lost", "private use", "mojibake", "mojibake quotes", "two scripts in a word", "scripts of the world"],
)
def test_what_is_no_text_is_garbage(text: str) -> None:
    verdict = judged(text)
    assert verdict.reason in (Reason.GARBAGE, Reason.REPETITION)
    assert verdict.score < 0.5


def test_tags_that_the_server_stripped_make_a_text_unusable() -> None:
    """Table cells are special tokens too: what is left of a table is one word after the other."""
    verdict = judged("title[[56, 48, 941, 102]]\n# Tiny title\n\ntext[[56, 148, 941, 202]]\n" + prose(50))
    assert verdict.reason is Reason.GARBAGE
    assert "strips special tokens" in verdict.detail


def test_broken_tags_cost_a_text_some_of_its_score() -> None:
    whole = grounded(("text", prose(50)), ("text", prose(50, 2)))
    broken = whole.replace("<|/det|>", "", 1)
    assert judged(broken).reason is None
    assert judged(broken).score < judged(whole).score


def test_agreement_with_the_text_layer_orders_texts_and_fails_none() -> None:
    right = judged(prose(100), layer=prose(100))
    wrong = judged(prose(100, 7), layer="nothing of this stands in the text that came back " * 3)
    assert right.reason is wrong.reason is None
    assert (right.agreement, right.score) == (1.0, 1.0)
    assert wrong.agreement is not None
    assert wrong.agreement < 0.3
    assert wrong.score < right.score


def test_tables_agree_with_a_layer_that_has_no_tags() -> None:
    cells = numbers(4, 20, 5)
    layer = "\n".join(row.replace("|", " ") for row in cells)
    assert judged(f"<table>{rows(*cells)}</table>", layer=layer).agreement == 1.0


def test_plain_words_are_without_tags_and_links() -> None:
    assert plain("![](figure:0)\n<table><tr><td>a < b</td></tr></table>").split() == ["a", "<", "b"]
