"""The documents that the tests look at: ordinary ones, and one for each trouble."""

# ruff: noqa: E501  lines of hostile markup

from __future__ import annotations

from dataclasses import dataclass

from ocr_pipeline.records import PageStatus, Reason, Region
from ocr_pipeline_tests.review.library import GROUNDED, Library, PageMade

CANARY = (
    "<script>window.__canary = 1</script><img src=x onerror=\"window.__canary = 2\"><svg onload='window.__canary=3'>"
)

FAILED = PageMade(
    status=PageStatus.FAILED, reason=Reason.REPETITION, detail="12 times the same line", attempts=("repetition",) * 3
)
HOSTILE = f"""# Before {CANARY}

{CANARY}

[link](javascript:window.__canary=4) <a href="javascript:window.__canary=5" onclick="window.__canary=6">click</a>
<a href="/retry">inside</a> <a href="https://outside.example/x" target="_top" style="position:fixed">outside</a>

![picture](https://tracker.example/pixel.png) <img src="https://tracker.example/2.png"> ![](/static/icon.svg)

<iframe src="https://frame.example/"></iframe><object data="x"></object><embed src="x"><form action="/retry" method="post"><input name="token"><button>send</button></form>
<style>body {{ display: none }}</style><link rel="stylesheet" href="https://style.example/"><meta http-equiv="refresh" content="0;url=https://go.example/"><base href="https://base.example/">

$\\text{{<script>window.__canary=7</script>}}$ and $\\href{{javascript:window.__canary=8}}{{x}}$ and $\\style{{position:fixed}}{{x}}$

<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=x onerror=window.__canary=9&gt;"></table></mtext></math>

<div id="main" name="told" class="top" data-key="next" data-region="0" tabindex="0">clobber</div></div></div></article></section>

after the hostile part
"""


@dataclass(frozen=True, slots=True)
class Shelves:
    """Ids of the documents."""

    library: Library
    report: str  # 3 pages, all fine; page 1 grounded
    partial: str  # 4 pages; 2 and 4 failed
    late: str  # failed on page 1, after `partial` by key
    rejected: str
    hostile: str


def shelves(library: Library) -> Shelves:
    """Ten documents, loaded."""
    report = library.add(
        "physics/heat in thin wires.pdf",
        [
            PageMade(raw=GROUNDED),
            PageMade(markdown="A second page about copper and tin.", days=1, backend="dgx-spark", seconds=9.0),
            PageMade(status=PageStatus.BLANK, days=1),
        ],
        title="Heat in thin wires",
        minutes=1,
    )
    partial = library.add(
        "letters/partial.pdf",
        [
            PageMade(markdown="Dear Sir, the invoice is enclosed.", agreement=0.55),
            FAILED,
            PageMade(markdown="Yours faithfully", attempts=("http_503", "ok")),
            FAILED,
        ],
        minutes=2,
    )
    late = library.add("zebra/late.pdf", [FAILED, PageMade(markdown="zebra crossing")], minutes=3)
    rejected = library.add("locked.pdf", rejected=Reason.ENCRYPTED, detail="the file asks for a password", minutes=4)
    hostile = library.add(
        "evil/<script>window.__canary=10<%2Fscript>\"'><img src=x onerror=window.__canary=11>.pdf",
        [
            PageMade(
                markdown=HOSTILE,
                regions=(Region(CANARY, 0.1, 0.1, 0.5, 0.2, "after the hostile part"),),
                detail=CANARY,
            )
        ],
        title=f"{CANARY} \u202egnp.exe",
        minutes=5,
    )
    for number in range(5):
        library.add(
            f"many/file-{number}.pdf",
            [PageMade(markdown=f"Ordinary text number {number}.", days=number, agreement=0.9 - number / 20)],
            minutes=10 + number,
        )
    library.load()
    return Shelves(library, report, partial, late, rejected, hostile)
