"""When a page can be said to be alone at a server, by looks at the server's own numbers."""

from __future__ import annotations

import pytest

from ocr_pipeline.ocr.fleet.company import Company
from ocr_pipeline.ocr.fleet.failover import Evidence
from ocr_pipeline.ocr.fleet.vitals import Vitals

EMPTY = Vitals(running=0, waiting=0)
PATIENCE = 30.0


def solitude(company: Company, now: float = 1.0) -> Evidence | None:
    return company.solitude(now, PATIENCE)


def test_a_page_is_alone_only_once_a_look_has_shown_the_server_empty():
    company = Company()
    assert solitude(company) is None
    company.looked(Vitals(running=1, waiting=0), ours=0)
    assert solitude(company) is None
    company.looked(EMPTY, ours=0)
    assert solitude(company) is Evidence.PROVED
    company.changed()  # a page of ours was sent
    assert solitude(company) is None


def test_on_a_server_where_other_runs_were_seen_being_alone_is_never_sure():
    company = Company()
    company.looked(Vitals(running=3, waiting=0), ours=2)  # may be one that we have just taken back
    assert not company.shared
    company.looked(Vitals(running=2, waiting=1), ours=2)
    assert company.shared
    company.looked(EMPTY, ours=0)
    assert solitude(company) is Evidence.DOUBTFUL


def test_a_server_that_is_never_empty_gets_the_page_when_patience_is_over():
    company = Company()
    for now in (100.0, 110.0):
        company.kept_free(now)
        company.looked(Vitals(running=4), ours=0)
    assert solitude(company, 129.0) is None
    assert solitude(company, 130.0) is Evidence.DOUBTFUL
    company.looked(EMPTY, ours=0)  # and from then on it is waited for anew
    company.changed()
    assert solitude(company, 200.0) is None


@pytest.mark.parametrize("tells", [False, True])
def test_a_server_that_does_not_tell_is_taken_for_a_shared_one(tells):
    company = Company(tells=tells)
    company.looked(Vitals(generated=5), ours=0)
    assert solitude(company) is Evidence.DOUBTFUL
