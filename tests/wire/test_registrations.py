"""What a bootstrap keeps, at times that the tests make up."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from punch.capability import PeerId
from punch.exceptions import BootstrapFull, NetworkError
from punch.wire import Join, Registration, Registrations, encode_registration
from punch.wire import _registrations as limits


def registration(peer: str = "a", **changes: Any) -> Registration:
    """A listener at home who stays for a minute."""
    return attrs.evolve(
        Registration(
            peer_id=PeerId(peer),
            namespace="home",
            roles=frozenset({"listener"}),
            addresses=("/ip4/192.0.2.1/tcp/1",),
            incarnation=1,
            sequence=0,
            lifetime=60.0,
        ),
        **changes,
    )


def signed(value: Registration) -> Join:
    """As it arrives; nobody here looks at the signature."""
    return Join(registration=encode_registration(value), signature=b"")


def join(registry: Registrations, value: Registration, *, now: float = 0.0) -> bool:
    """Join with *value*; true if the others should hear of it."""
    return registry.join(signed(value), value, now=now)


def test_a_new_listener_is_news_and_is_listed() -> None:
    """With the very bytes it signed."""
    registry = Registrations()
    assert join(registry, registration()) is True
    assert registry.shown("home", minor=0) == (signed(registration()),)
    assert registry.shown("home", minor=1) == (signed(registration()),)
    assert registry.told("home", PeerId("a"), minor=0) == signed(registration())
    assert len(registry) == 1


def test_namespaces_of_one_name_are_told_apart_by_their_root() -> None:
    """Nobody is shown in one of them by being in another."""
    registry = Registrations()
    roots = (None, b"r" * 32, b"s" * 32)
    joins = {root: attrs.evolve(signed(registration()), root=root) for root in roots}
    for each in joins.values():
        assert registry.join(each, registration(), now=0.0) is True
    for root, each in joins.items():
        namespace = "home" if root is None else ("home", root)
        assert registry.shown(namespace, minor=2) == (each,)
        assert registry.leave(namespace, PeerId("a")) is True
    assert len(registry) == 0


def test_a_worker_is_shown_to_those_who_know_that_word() -> None:
    """A member of minor 0 takes a roster with anybody but listeners for an offence."""
    registry = Registrations()
    worker = registration(roles=frozenset({"worker", "unheard of"}))
    assert join(registry, worker) is True
    assert registry.shown("home", minor=0) == ()
    assert registry.told("home", PeerId("a"), minor=0) is None
    assert registry.shown("home", minor=1) == (signed(worker),)
    assert registry.leave("home", PeerId("a")) is True


def test_a_peer_that_does_something_else_is_news() -> None:
    """Also when it does nothing any more that others want of it."""
    registry = Registrations()
    both = frozenset({"listener", "dialer"})
    assert join(registry, registration(roles=frozenset({"dialer"}))) is False
    assert join(registry, registration(roles=both, sequence=1)) is True
    assert join(registry, registration(roles=both, sequence=2)) is False
    assert join(registry, registration(roles=frozenset({"worker"}), sequence=3)) is True
    assert join(registry, registration(roles=frozenset({"dialer"}), sequence=4)) is True
    assert registry.shown("home", minor=1) == ()


def test_a_dialer_is_kept_and_not_shown() -> None:
    """Its coming and going is nobody's news."""
    registry = Registrations()
    assert join(registry, registration(roles=frozenset({"dialer"}))) is False
    assert (len(registry), registry.shown("home", minor=1)) == (1, ())
    assert registry.leave("home", PeerId("a")) is False
    assert len(registry) == 0


def test_namespaces_do_not_see_each_other() -> None:
    """The same peer may be in both."""
    registry = Registrations()
    work = registration(namespace="work")
    join(registry, registration())
    join(registry, work)
    assert registry.shown("work", minor=1) == (signed(work),)
    assert registry.leave("work", PeerId("a")) is True
    assert registry.shown("home", minor=1) == (signed(registration()),)


def test_an_unknown_namespace_is_empty() -> None:
    """And asking for it does not make it."""
    assert Registrations().shown("home", minor=1) == ()
    assert Registrations().leave("home", PeerId("a")) is False


def test_two_peers_of_a_namespace_are_two() -> None:
    """The original kept one record a namespace, and the last to come overwrote it."""
    registry = Registrations()
    for name in "abc":
        join(registry, registration(name))
    assert registry.shown("home", minor=1) == tuple(signed(registration(name)) for name in "abc")


def test_a_renewal_is_no_news_and_prolongs_the_stay() -> None:
    """Otherwise every peer would hear of every renewal."""
    registry = Registrations()
    join(registry, registration())
    assert join(registry, registration(sequence=1), now=50.0) is False
    assert registry.expire(now=100.0) == ()


@pytest.mark.parametrize("change", [{"addresses": ("/ip4/192.0.2.2/tcp/1",)}, {"incarnation": 2}])
def test_a_listener_that_moved_or_restarted_is_news(change: dict[str, Any]) -> None:
    """Sessions to the old place are of no use."""
    registry = Registrations()
    join(registry, registration())
    moved = registration(**({"sequence": 1} | change))
    assert join(registry, moved) is True
    assert registry.shown("home", minor=1) == (signed(moved),)
    assert len(registry) == 1


@pytest.mark.parametrize("stamp", [(1, 5), (1, 4), (0, 9)])
def test_a_replay_changes_nothing(stamp: tuple[int, int]) -> None:
    """Not the address, and not the time until which the peer counts."""
    registry = Registrations()
    kept = registration(incarnation=1, sequence=5)
    join(registry, kept)
    incarnation, sequence = stamp
    old = registration(
        incarnation=incarnation, sequence=sequence, addresses=("/ip4/203.0.113.9/tcp/1",)
    )
    assert join(registry, old, now=30.0) is False
    assert registry.shown("home", minor=1) == (signed(kept),)


def test_who_does_not_renew_is_gone() -> None:
    """At the end of its lifetime, neither before nor after; only listeners are reported."""
    registry = Registrations()
    join(registry, registration("a"), now=0.0)
    join(registry, registration("b"), now=10.0)
    join(registry, registration("c", roles=frozenset({"dialer"})), now=0.0)
    assert registry.expire(now=59.9) == ()
    assert registry.expire(now=60.0) == (("home", PeerId("a")),)
    assert registry.shown("home", minor=1) == (signed(registration("b")),)


def test_an_empty_registry_has_nothing_to_wait_for() -> None:
    """Also once everybody has left."""
    registry = Registrations()
    join(registry, registration())
    registry.leave("home", PeerId("a"))
    assert len(registry) == 0


# ---- bounds ----


def test_a_full_namespace_takes_nobody_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who are in may renew, and another namespace is open."""
    monkeypatch.setattr(limits, "MAX_PER_NAMESPACE", 2)
    registry = Registrations()
    join(registry, registration("a"))
    join(registry, registration("b"))
    with pytest.raises(BootstrapFull, match=r"^namespace 'home' is full: at most 2 peers each"):
        join(registry, registration("c"))
    join(registry, registration("a", sequence=1))
    join(registry, registration("c", namespace="work"))
    assert len(registry) == 3


def test_the_number_of_namespaces_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty one counts no longer."""
    monkeypatch.setattr(limits, "MAX_NAMESPACES", 1)
    registry = Registrations()
    join(registry, registration())
    with pytest.raises(BootstrapFull, match=r"^this bootstrap serves at most 1 namespaces$"):
        join(registry, registration(namespace="work"))
    registry.leave("home", PeerId("a"))
    assert join(registry, registration(namespace="work")) is True


def test_the_number_of_registrations_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over all namespaces; a refused peer leaves no trace."""
    monkeypatch.setattr(limits, "MAX_REGISTRATIONS", 1)
    registry = Registrations()
    join(registry, registration())
    with pytest.raises(BootstrapFull, match="1 in all"):
        join(registry, registration("b", namespace="work"))
    assert (len(registry), registry.shown("work", minor=1)) == (1, ())
    registry.leave("home", PeerId("a"))
    assert join(registry, registration("b", namespace="work")) is True


def test_a_full_bootstrap_is_the_networks_fault() -> None:
    """Neither the peer that comes nor its caller did anything wrong."""
    assert issubclass(BootstrapFull, NetworkError)


# ---- all at once ----


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(
                st.just("join"),
                st.sampled_from("ab"),
                st.sampled_from("xyz"),
                st.integers(0, 3),
                st.sampled_from(["listener", "dialer"]),
            ),
            st.tuples(st.just("leave"), st.sampled_from("ab"), st.sampled_from("xyz")),
            st.tuples(st.just("expire")),
        ),
        max_size=30,
    )
)
def test_the_registry_is_a_table_of_the_newest_registrations(steps: list[Any]) -> None:
    """Whatever comes and goes: one entry a peer and namespace, the newest, until it expires."""
    registry, now = Registrations(), 0.0
    model: dict[tuple[str, str], tuple[Registration, float]] = {}
    for step in steps:
        now += 10.0
        if step[0] == "join":
            _, namespace, peer, sequence, role = step
            value = registration(
                peer, namespace=namespace, sequence=sequence, roles=frozenset({role})
            )
            join(registry, value, now=now)
            known = model.get((namespace, peer))
            if known is None or known[0].sequence < sequence:
                model[namespace, peer] = (value, now + 60.0)
        elif step[0] == "leave":
            registry.leave(*step[1:])
            model.pop(step[1:], None)
        else:
            late = {key for key, (_, until) in model.items() if until <= now}
            listeners = {key for key in late if model[key][0].role == "listener"}
            assert set(registry.expire(now=now)) == listeners
            model = {key: entry for key, entry in model.items() if key not in late}
        assert len(registry) == len(model)
        for namespace in "ab":
            assert set(registry.shown(namespace, minor=1)) == {
                signed(value)
                for (where, _), (value, _) in model.items()
                if where == namespace and value.role == "listener"
            }
