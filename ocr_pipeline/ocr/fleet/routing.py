"""Which server a page goes to, and why: one pure function over what is known at this moment.

Here belong the user's rules ("hybrid") and the least expected finish time ("fastest"), and the words that stand in
`attempts.choice`. Not here: the order of the pages (fair_queue.py), how many a server takes (admission.py), whether
it may be asked (health.py), and the sending (dispatcher.py).

A choice is made for now: only servers that can take the page this moment are in the answer, and an empty answer
means that the page waits. With a backlog no slot may idle: a page whose own server is full goes to any other that
has room, whatever its size, and the reason says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from ocr_pipeline.ocr.fleet.health import Condition
from ocr_pipeline.ocr.vllm.backends import Rules
from ocr_pipeline.ocr.vllm.gpus import DocumentShare

SLOW_FACTOR = 3.0  # a server this many times slower than another one is passed by while the other has room
LOW_KV_USAGE = 0.5  # of the KV memory in use: below it one document may have more of a card than its share


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendState:
    """One server at this moment."""

    name: str
    size: Literal["small", "large"]
    condition: Condition = Condition.CLOSED
    why: str = ""  # of the breaker's last opening
    in_flight: int = 0  # our pages there
    limit: int = 1  # of those, from admission
    reserved: bool = False  # kept free for a page that is tried alone
    waiting: float | None = None  # the server's own queue, all its clients together
    kv_usage: float | None = None  # 0 to 1
    seconds: float | None = None  # what a page takes there at present, its wait at the server included
    max_pages: int | None = None  # a longer document goes elsewhere while another server is well
    shares: tuple[DocumentShare, ...] = ()  # pages of one document in flight, by its size

    @property
    def has_room(self) -> bool:
        if self.reserved or self.condition is Condition.OPEN:
            return False
        return self.in_flight < (self.limit if self.condition is Condition.CLOSED else 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PageView:
    """What routing must know of a page."""

    urgent: bool = False
    avoid: Mapping[str, str] = field(default_factory=dict)  # server: what happened to this page there a moment ago
    quality: str = ""  # name of the ladder's rung, "" the first time
    not_on: str | None = None  # the rung wants another server than this one, where there is another
    ahead: int = 0  # pages that wait before this one


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentView:
    """What routing must know of a page's document and of the others."""

    pages: int
    in_flight: Mapping[str, int] = field(default_factory=dict)  # its pages, by server
    shares_lifted: bool = False  # no page that is within its document's share wants the slot
    open_documents: int = 1  # being read at this moment
    documents_today: int | None = None  # uploaded in the last 24 hours; None: not known


@dataclass(frozen=True, slots=True)
class Choice:
    """One server for one page."""

    backend: str
    reason: str  # a code, a colon, the facts: kept in `attempts.choice`
    at_home: bool = True  # where the rules want it; False: it goes there because its own server cannot take it


def choose(page: PageView, document: DocumentView, states: Sequence[BackendState], rules: Rules) -> tuple[Choice, ...]:
    """The servers that can take the page now, best first; () when it must wait."""
    usable = [s for s in states if s.condition is not Condition.OPEN and s.name not in page.avoid]
    elsewhere = [s for s in usable if s.name != page.not_on]
    usable = elsewhere or usable  # "another server, where there is another"
    fitting = [s for s in usable if s.max_pages is None or document.pages <= s.max_pages]
    usable = fitting or usable
    by_rules = rules.policy == "hybrid"
    ranked = _hybrid(page, document, states, usable, rules) if by_rules else _fastest(page, usable)
    return tuple(_with_history(choice, page) for choice in ranked)


def home_of(page: PageView, document: DocumentView, rules: Rules) -> tuple[Literal["small", "large"], str]:
    """The size of machine that the rules name for this page if every machine is well and free, and the rule's words.

    The user's "hybrid deployment" and decision tree, first yes wins. Where the two disagree on the number of pages
    (20 or 30), 20 is right, and it stands before the tree's rules on small numbers. A promised time (SLA) or an
    urgent upload is what the rules call high priority.
    """
    if rules.stage == "development":
        return "small", "development"
    if page.urgent:
        return "large", "urgent"
    if document.pages > rules.large_document_pages:
        return "large", f"large: {document.pages} pages > {rules.large_document_pages}"
    if document.pages < rules.small_document_pages:
        return "small", f"default: {document.pages} pages < {rules.small_document_pages}"
    if document.documents_today is not None and document.documents_today < rules.low_volume_per_day:
        return "small", f"default: documents a day {document.documents_today} < {rules.low_volume_per_day}"
    if document.open_documents > rules.concurrent_limit:
        return "large", f"concurrent: documents at once {document.open_documents} > {rules.concurrent_limit}"
    if rules.sla:
        return "large", "sla"
    return "small", "default"


def share_of(document: DocumentView, state: BackendState) -> int | None:
    """How many pages of this document may be in flight on this server at once; None: as many as it takes.

    The rule keeps a long document from filling the small card. It is lifted where it would only keep the card idle:
    no other page wants the slot, and the server says that most of its memory is free.
    """
    if document.shares_lifted and state.kv_usage is not None and state.kv_usage < LOW_KV_USAGE:
        return None
    for share in state.shares:
        if share.up_to_pages is None or document.pages <= share.up_to_pages:
            return share.pages_in_flight
    return None


def _hybrid(
    page: PageView,
    document: DocumentView,
    states: Sequence[BackendState],
    usable: Sequence[BackendState],
    rules: Rules,
) -> list[Choice]:
    size, rule = home_of(page, document, rules)
    homes = [s for s in states if s.size == size] or list(states)
    home_names = {s.name for s in homes}
    free = [s for s in usable if s.has_room and not _share_used(document, s)]
    held = {s.name: held for s in free if (held := _held_back(s, free, rules)) is not None}
    why_not = next((words for s in homes if (words := _why_not_home(page, document, s, usable, held, rules))), rule)

    def order(state: BackendState) -> tuple[bool, bool, bool, float]:
        probe = state.condition is Condition.HALF_OPEN and not page.urgent
        return not probe, state.name in held, state.name not in home_names, state.in_flight / max(1, state.limit)

    choices = []
    for state in sorted(free, key=order):
        if state.condition is Condition.HALF_OPEN:
            choices.append(Choice(state.name, "recovered: probe"))
        elif state.name in home_names:
            choices.append(Choice(state.name, rule))
        else:
            choices.append(Choice(state.name, why_not, at_home=False))
    return choices


def _share_used(document: DocumentView, state: BackendState) -> bool:
    share = share_of(document, state)
    return share is not None and document.in_flight.get(state.name, 0) >= share


def _held_back(state: BackendState, free: Sequence[BackendState], rules: Rules) -> str | None:
    """Why a server with room is passed by while another has room too."""
    if _is_overloaded(state, rules):
        return f"overloaded: {state.name} waiting {state.waiting:g} > {rules.queue_limit}"
    for other in free:
        if state.seconds and other.seconds and state.seconds > SLOW_FACTOR * other.seconds:
            return f"slow: {state.name} {state.seconds:.1f} s a page, {other.name} {other.seconds:.1f}"
    return None


def _is_overloaded(state: BackendState, rules: Rules) -> bool:
    return state.size == "small" and state.waiting is not None and state.waiting > rules.queue_limit


def _why_not_home(
    page: PageView,
    document: DocumentView,
    home: BackendState,
    usable: Sequence[BackendState],
    held: Mapping[str, str],
    rules: Rules,
) -> str | None:
    """Why a page is not on the machine that the rules name; None where it could be."""
    if home.name in page.avoid:
        return f"failover: {home.name} {page.avoid[home.name]}"
    if home.condition is Condition.OPEN:
        return f"failover: {home.name} {home.why or 'down'}"
    if home.name in held:
        return held[home.name]
    if home not in usable:
        return f"large: {document.pages} pages > {home.max_pages} of {home.name}"
    if home.condition is Condition.HALF_OPEN:
        return f"failover: {home.name} {home.why or 'down'}, probed"
    if not home.has_room and _is_overloaded(home, rules):  # admission has closed it for the same reason
        return f"overloaded: {home.name} waiting {home.waiting:g} > {rules.queue_limit}"
    if not home.has_room:
        return f"overloaded: {home.name} {home.in_flight} of {home.limit} in flight"
    if _share_used(document, home):
        return f"share: {document.in_flight.get(home.name, 0)} of {document.pages} pages on {home.name}"
    return None


def _fastest(page: PageView, usable: Sequence[BackendState]) -> list[Choice]:
    """Least expected finish time. A free slot on a slow server is left empty if a busy fast one will be done sooner."""
    known = [s.seconds for s in usable if s.seconds]
    guess = min(known, default=1.0)  # nothing measured yet: as fast as the best, so that it gets measured

    def finish(state: BackendState) -> float:
        seconds = state.seconds or guess
        if state.has_room:
            return seconds
        return seconds + seconds / max(1, state.limit) * (page.ahead + 1)

    probes = [s for s in usable if s.condition is Condition.HALF_OPEN and s.has_room and not page.urgent]
    ready = [s for s in usable if s.condition is Condition.CLOSED]
    best = min((finish(s) for s in ready), default=float("inf"))
    free = sorted((s for s in ready if s.has_room), key=lambda s: (finish(s), s.in_flight / max(1, s.limit)))
    choices = [Choice(s.name, "recovered: probe") for s in probes]
    for state in free:
        wait_is_better = any(not s.has_room and not s.reserved and finish(s) < finish(state) for s in ready)
        if finish(state) <= best or not wait_is_better:
            words = ", ".join(f"{s.name} {finish(s):.1f} s" for s in sorted(ready, key=finish))
            choices.append(Choice(state.name, f"fastest: {words}"))
    if not ready and not probes:  # urgent, and only probes are there
        choices += [Choice(s.name, "recovered: probe") for s in usable if s.has_room]
    return choices


def _with_history(choice: Choice, page: PageView) -> Choice:
    """The reason with what the page has been through: it was asked before, or comes back after a fault."""
    reason = choice.reason
    if page.not_on is not None and choice.backend != page.not_on:
        reason = "quality: other backend"
    elif page.quality:
        reason = f"quality: {page.quality}, {reason}"
    elif page.avoid and not reason.startswith(("failover", "recovered")):
        where, what = next(iter(page.avoid.items()))
        reason = f"failover: {where} {what}"
    return replace(choice, reason=reason)
