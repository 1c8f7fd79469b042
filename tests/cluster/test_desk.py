"""The rules of a lease: one borrower at a time, and a server for each lease alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from punch.access import Refusal
from punch.capability import PeerId
from punch.cluster.leases import (
    ENDINGS,
    MAX_LEASE_SECONDS,
    MIN_LEASE_SECONDS,
    REFUSALS,
    Desk,
    Ending,
    Take,
    Tenancy,
    seconds_given,
)
from punch.exceptions import LocalProtocolError

GIB = 1 << 30
LENT = ("CPU", "CUDA0")


def taken(desk: Desk, lease: str = "a", *, by: str = "b1", **wish: Any) -> Tenancy | Refusal:
    """What becomes of a wish that breaks no rule unless *wish* says so."""
    take = Take(**{"seconds": 30.0, "certificate": lease.encode(), **wish})
    return desk.take(lease, PeerId(by), take, free=8 * GIB, lent=LENT)


def leased(desk: Desk, lease: str = "a", *, server: int = 1, now: float = 0.0) -> Tenancy:
    found = taken(desk, lease)
    assert isinstance(found, Tenancy)
    return desk.opened(lease, server=server, now=now)


def rule_of(found: object) -> str:
    assert isinstance(found, Refusal)
    assert found.rule in REFUSALS
    assert found.reason
    return found.rule


def test_a_lease_gets_what_it_asks_for() -> None:
    """Or all that is lent, where it asks for nothing in particular."""
    desk = Desk()
    tenancy = leased(desk, now=100.0)
    assert (tenancy.memory, tenancy.devices) == (8 * GIB, LENT)
    assert (tenancy.borrower, tenancy.server, tenancy.ends_at) == ("b1", 1, 130.0)
    desk.end("a", "end")
    desk.cleared()
    found = taken(desk, "b", memory=GIB, devices=("CUDA0",))
    assert isinstance(found, Tenancy)
    assert (found.memory, found.devices, found.ends_at) == (GIB, ("CUDA0",), math.inf)


def test_nobody_borrows_beside_another() -> None:
    """Neither while the server starts, nor while it is ended."""
    desk = Desk()
    taken(desk, "a")
    assert rule_of(taken(desk, "b", by="b2")) == "leased"
    desk.opened("a", server=1, now=0.0)
    assert rule_of(taken(desk, "b", by="b2")) == "leased"
    desk.end("a", "end")
    assert rule_of(taken(desk, "b", by="b2")) == "busy"
    desk.cleared()
    assert isinstance(taken(desk, "b", by="b2"), Tenancy)


@pytest.mark.parametrize(
    ("wish", "rule"),
    [
        ({"memory": 9 * GIB}, "memory"),
        ({"devices": ("Metal",)}, "device"),
        ({"devices": ("CPU", "CPU")}, "device"),
    ],
)
def test_what_is_not_lent_is_refused(wish: dict[str, Any], rule: str) -> None:
    """And leaves the lease to others."""
    desk = Desk()
    assert rule_of(taken(desk, **wish)) == rule
    assert desk.state == "free"


def test_nothing_is_lent_where_nothing_is_free() -> None:
    """Also to a borrower that asks for no number of bytes."""
    found = Desk().take("a", PeerId("b"), Take(seconds=30.0), free=0, lent=LENT)
    assert rule_of(found) == "memory"


def test_a_certificate_serves_one_lease() -> None:
    """Whoever shows that of another lease, of any borrower, is refused."""
    desk = Desk()
    leased(desk, "a")
    desk.end("a", "end")
    desk.cleared()
    assert rule_of(taken(desk, "b", by="b2", certificate=b"a")) == "certificate"
    assert isinstance(taken(desk, "b", by="b2", certificate=b"b"), Tenancy)


def test_a_lease_ends_at_its_time_unless_it_is_renewed() -> None:
    """And is not renewed once it has ended."""
    desk = Desk()
    leased(desk, now=0.0)
    assert desk.expire(29.9) is None
    assert desk.renew("a", 20.0, now=29.9) == 20.0
    assert desk.expire(49.8) is None
    ending = desk.expire(50.0)
    assert isinstance(ending, Ending)
    assert (ending.why, ending.tenancy.lease) == ("time", "a")
    assert rule_of(desk.renew("a", 20.0, now=50.0)) == "too_late"
    assert desk.expire(60.0) is None


def test_a_lease_whose_time_is_over_is_not_renewed_before_somebody_looks() -> None:
    """Its end does not wait for a task to wake."""
    desk = Desk()
    leased(desk, now=0.0)
    assert rule_of(desk.renew("a", 20.0, now=31.0)) == "too_late"


def test_the_time_of_a_lease_begins_when_its_server_runs() -> None:
    """A machine that starts servers slowly gives its borrowers no less."""
    desk = Desk()
    taken(desk, "a")
    assert desk.expire(1e6) is None
    assert rule_of(desk.renew("a", 20.0, now=1e6)) == "busy"
    assert desk.opened("a", server=1, now=1e6).ends_at == 1e6 + 30.0


@pytest.mark.parametrize(
    ("asked", "given"),
    [(0.0, MIN_LEASE_SECONDS), (1e9, MAX_LEASE_SECONDS), (60.0, 60.0)],
)
def test_no_lease_is_for_ever_nor_for_an_instant(asked: float, given: float) -> None:
    """Who asks for more is told how much it is."""
    assert seconds_given(asked) == given


def test_a_lease_that_ends_while_its_server_starts_is_not_opened() -> None:
    """The server is ended as that of any other lease."""
    desk = Desk()
    taken(desk, "a")
    assert desk.end("a", "lost") is not None
    with pytest.raises(LocalProtocolError):
        desk.opened("a", server=1, now=0.0)
    assert desk.state == "clearing"


def test_a_server_that_has_served_serves_nobody_else() -> None:
    """A worker that would hand on the old one has a bug, and is told so."""
    desk = Desk()
    leased(desk, "a", server=1)
    desk.end("a", "end")
    desk.cleared()
    taken(desk, "b")
    with pytest.raises(LocalProtocolError):
        desk.opened("b", server=1, now=0.0)


def test_a_worker_that_ends_gives_no_lease_any_more() -> None:
    """And ends the one that there is."""
    desk = Desk()
    leased(desk, "a")
    ending = desk.close()
    assert ending is not None
    assert ending.why == "closing"
    assert desk.close() is None
    assert rule_of(taken(desk, "b")) == "closing"
    desk.cleared()
    assert desk.state == "closed"
    assert rule_of(taken(desk, "b")) == "closing"


class DeskBesideAModel(RuleBasedStateMachine):
    """Borrowers that ask, renew and go in whatever order, and a worker that follows the desk.

    The model is a list of what happened: who holds the lease, and which server has served whom.
    """

    def __init__(self) -> None:
        super().__init__()
        self.desk = Desk()
        self.now = 0.0
        self.names = 0
        self.servers = 0
        # Lease to borrower, of those that were given and have not ended.
        self.holders: dict[str, PeerId] = {}
        self.ended: list[str] = []
        # Server to the leases that it has served.
        self.served: dict[int, set[str]] = {}
        self.ends_at: dict[str, float] = {}
        self.is_clearing = False
        self.is_closed = False

    @rule(seconds=st.floats(0.0, 60.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(by=st.sampled_from(["b1", "b2", "b3"]), memory=st.integers(0, 3), same=st.booleans())
    def take(self, by: str, memory: int, same: bool) -> None:
        self.names += 1
        lease = f"l{self.names}"
        certificate = f"c{self.names - same}".encode()
        found = self.desk.take(
            lease,
            PeerId(by),
            Take(seconds=20.0, memory=memory, certificate=certificate),
            free=2,
            lent=LENT,
        )
        may = not (self.holders or self.is_clearing or self.is_closed or memory > 2)
        if isinstance(found, Tenancy):
            assert may
            self.holders[lease] = PeerId(by)
        else:
            assert found.rule in REFUSALS
            assert not may or found.rule == "certificate"

    @precondition(lambda self: self.desk.state == "opening")
    @rule()
    def server_runs(self) -> None:
        (lease,) = self.holders
        self.servers += 1
        self.desk.opened(lease, server=self.servers, now=self.now)
        self.served.setdefault(self.servers, set()).add(lease)
        self.ends_at[lease] = self.now + 20.0

    @precondition(lambda self: self.servers)
    @rule()
    def an_old_server_is_handed_on(self) -> None:
        tenancy = self.desk.tenancy
        with pytest.raises(LocalProtocolError):
            self.desk.opened(tenancy.lease if tenancy else "l0", server=self.servers, now=self.now)

    @rule(which=st.integers(0, 20), seconds=st.floats(0.0, 60.0))
    def renew(self, which: int, seconds: float) -> None:
        lease = f"l{which}"
        found = self.desk.renew(lease, seconds, now=self.now)
        if isinstance(found, float):
            assert self.now < self.ends_at[lease]
            assert lease in self.holders
            self.ends_at[lease] = self.now + found
        else:
            assert self.now >= self.ends_at.get(lease, 0.0) or lease not in self.holders

    @rule(which=st.integers(0, 20), why=st.sampled_from(sorted(ENDINGS)))
    def end(self, which: int, why: str) -> None:
        self._over(self.desk.end(f"l{which}", why), f"l{which}" in self.holders)

    @rule()
    def expire(self) -> None:
        due = [lease for lease in self.holders if self.ends_at.get(lease, math.inf) <= self.now]
        self._over(self.desk.expire(self.now), bool(due))

    @rule()
    def close(self) -> None:
        self._over(self.desk.close(), bool(self.holders))
        self.is_closed = True

    def _over(self, ending: Ending | None, expected: bool) -> None:
        assert (ending is not None) == expected
        if ending is not None:
            lease = ending.tenancy.lease
            # Once, whatever ends it.
            assert lease not in self.ended
            self.ended.append(lease)
            del self.holders[lease]
            self.is_clearing = True

    @precondition(lambda self: self.is_clearing)
    @rule()
    def server_is_gone(self) -> None:
        self.desk.cleared()
        self.is_clearing = False

    @invariant()
    def never_two_borrowers(self) -> None:
        assert len(self.holders) <= 1
        tenancy = self.desk.tenancy
        held = {} if tenancy is None else {tenancy.lease: tenancy.borrower}
        assert held == self.holders

    @invariant()
    def no_server_serves_two_leases(self) -> None:
        assert all(len(leases) == 1 for leases in self.served.values())

    @invariant()
    def nobody_borrows_while_the_last_server_is_there(self) -> None:
        assert not (self.is_clearing and self.holders)


TestDeskBesideAModel = DeskBesideAModel.TestCase
TestDeskBesideAModel.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
