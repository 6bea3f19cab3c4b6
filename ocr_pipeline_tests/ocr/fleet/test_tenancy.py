"""When a page can be said to be alone at a server, by looks at the server's own numbers."""

from __future__ import annotations

import pytest

from ocr_pipeline.ocr.fleet.failover import Evidence
from ocr_pipeline.ocr.fleet.server_metrics import ServerMetrics
from ocr_pipeline.ocr.fleet.tenancy import Tenancy

EMPTY = ServerMetrics(running=0, waiting=0)
PATIENCE = 30.0


def evidence(tenancy: Tenancy, now: float = 1.0) -> Evidence | None:
    return tenancy.evidence_if_sent(now, PATIENCE)


def test_a_page_is_alone_only_once_a_look_has_shown_the_server_empty():
    tenancy = Tenancy()
    assert evidence(tenancy) is None
    tenancy.observe(ServerMetrics(running=1, waiting=0), ours=0)
    assert evidence(tenancy) is None
    tenancy.observe(EMPTY, ours=0)
    assert evidence(tenancy) is Evidence.PROVED
    tenancy.invalidate()  # a page of ours was sent
    assert evidence(tenancy) is None


def test_on_a_server_where_other_runs_were_seen_being_alone_is_never_sure():
    tenancy = Tenancy()
    tenancy.observe(ServerMetrics(running=3, waiting=0), ours=2)  # may be one that we have just cancelled
    assert not tenancy.shared
    tenancy.observe(ServerMetrics(running=2, waiting=1), ours=2)
    assert tenancy.shared
    tenancy.observe(EMPTY, ours=0)
    assert evidence(tenancy) is Evidence.DOUBTFUL


def test_a_server_that_is_never_empty_gets_the_page_when_patience_is_over():
    tenancy = Tenancy()
    for now in (100.0, 110.0):
        tenancy.mark_reserved(now)
        tenancy.observe(ServerMetrics(running=4), ours=0)
    assert evidence(tenancy, 129.0) is None
    assert evidence(tenancy, 130.0) is Evidence.DOUBTFUL
    tenancy.observe(EMPTY, ours=0)  # and from then on it is waited for anew
    tenancy.invalidate()
    assert evidence(tenancy, 200.0) is None


def test_a_page_that_keeps_quiet_first_is_not_sent_earlier_and_its_patience_begins_then():
    tenancy = Tenancy()
    tenancy.mark_reserved(90.0)
    tenancy.begin_reservation(100.0, quiet=8.0)
    tenancy.observe(EMPTY, ours=0)
    assert evidence(tenancy, 107.0) is None
    assert evidence(tenancy, 108.0) is Evidence.PROVED
    for now in (107.0, 109.0):
        tenancy.mark_reserved(now)
        tenancy.observe(ServerMetrics(running=4), ours=0)
    assert evidence(tenancy, 138.0) is None
    assert evidence(tenancy, 139.0) is Evidence.DOUBTFUL


def test_where_no_metrics_are_to_be_had_a_page_keeps_quiet_all_the_same():
    tenancy = Tenancy(metrics_available=False)
    tenancy.begin_reservation(100.0, quiet=8.0)
    assert evidence(tenancy, 107.0) is None
    assert evidence(tenancy, 108.0) is Evidence.DOUBTFUL


@pytest.mark.parametrize("metrics_available", [False, True])
def test_a_server_that_does_not_tell_is_taken_for_a_shared_one(metrics_available):
    tenancy = Tenancy(metrics_available=metrics_available)
    tenancy.observe(ServerMetrics(generated=5), ours=0)
    assert evidence(tenancy) is Evidence.DOUBTFUL
