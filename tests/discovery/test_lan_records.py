"""What is said on a LAN names nobody, and what strangers say there is bounded. No I/O."""

from __future__ import annotations

import ipaddress
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from punch.capability import PeerId
from punch.discovery.lan import Heard, Interface, LanKey, LanRecord
from punch.discovery.lan._candidates import (
    MAX_CANDIDATES,
    MAX_RETRY_SECONDS,
    RECORD_BURST,
    RECORD_RATE,
    Candidate,
    Candidates,
)
from punch.discovery.lan._interfaces import is_lan
from punch.discovery.lan._records import MAX_ADDRESSES, parse, said_on
from punch.discovery.lan._tags import SALT_BYTES

ETH0 = Interface(name="eth0", index=2, networks=("192.168.1.10/24", "fd00::10/64", "fe80::1/64"))
PEER = PeerId("12D3KooWExample")
SALT = bytes(range(SALT_BYTES))
OPEN = LanKey.of_open("home")

texts = st.text(min_size=1, max_size=20)


def said_as_heard(
    key: LanKey = OPEN,
    *,
    peer: PeerId = PEER,
    addresses: tuple[str, ...] = ("/ip4/192.168.1.10/tcp/21820",),
    closed_name: str | None = None,
) -> Heard:
    said = said_on(
        ETH0,
        addresses,
        peer_id=peer,
        instance="abc",
        key=key,
        salt=SALT,
        closed_name=closed_name,
        joins=closed_name is not None,
    )
    assert said is not None
    return Heard(
        interface="eth0",
        instance=said.instance,
        hosts=said.hosts,
        port=said.port,
        properties={name.encode(): value for name, value in said.properties.items()},
    )


def record(
    peer: str = "alpha", *, instance: str = "abc", host: str = "192.168.1.20", port: int = 1
) -> LanRecord:
    heard = said_as_heard(peer=PeerId(peer))
    found = parse(
        Heard(
            interface="eth0",
            instance=instance,
            hosts=(host,),
            port=port,
            properties=heard.properties,
        ),
        ETH0,
    )
    assert found is not None
    return found


def test_what_is_said_is_understood_by_members_only() -> None:
    """Its tag fits the key of its namespace and no other, and no other identity."""
    found = parse(said_as_heard(), ETH0)
    assert found is not None
    assert found.is_of(OPEN)
    assert not found.is_of(LanKey.of_open("Home"))
    assert not found.is_of(LanKey.of_closed(b"home"))
    copied = parse(said_as_heard(peer=PeerId("somebodyElse")), ETH0)
    assert copied is not None
    assert not OPEN.fits(found.tag, "record", found.salt, copied.peer_id)
    assert [str(each) for each in found.addresses] == ["/ip4/192.168.1.10/tcp/21820"]


# Each name costs some milliseconds, as it is meant to.
@settings(max_examples=25)
@given(name=st.text(min_size=4, max_size=40), root=st.binary(min_size=32, max_size=32))
def test_no_record_has_the_name_or_the_root_in_it(name: str, root: bytes) -> None:
    """Neither as they are nor in hexadecimal."""
    heard = said_as_heard(LanKey.of_closed(root), closed_name=name)
    everything = b"\n".join(value or b"" for value in heard.properties.values())
    for secret in (name.encode(), root, root.hex().encode(), name.encode().hex().encode()):
        assert secret not in everything
    found = parse(heard, ETH0)
    assert found is not None
    assert found.is_named(name)
    assert found.joins
    assert not found.is_named(f"{name}x")


def test_a_guess_of_a_closed_namespaces_name_takes_some_work() -> None:
    """A digest of the name that takes a microsecond would be guessed from a list of words."""
    times = []
    for number in range(5):
        began = time.process_time()
        LanKey.of_name(f"guess {number}")
        times.append(time.process_time() - began)
    assert min(times) > 1e-3
    assert LanKey.of_name("home") == LanKey.of_name("home") != LanKey.of_open("home")


def test_an_open_record_is_not_taken_for_a_closed_one_of_the_name() -> None:
    """Only a closed namespace has the tag of its name, and it is another than the open one's."""
    found, closed = parse(said_as_heard(), ETH0), parse(said_as_heard(closed_name="home"), ETH0)
    assert found is not None
    assert closed is not None
    assert not found.is_named("home")
    assert closed.name_tag != closed.tag


def test_on_an_interface_only_its_own_addresses_are_said() -> None:
    """An address of the office is not told at home; loopback is told nowhere."""
    addresses = (
        "/ip4/10.8.0.2/tcp/21820",
        "/ip4/127.0.0.1/tcp/21820",
        "/ip6/fd00::10/udp/21821/quic-v1",
    )
    heard = said_as_heard(addresses=addresses)
    assert (heard.hosts, heard.port, heard.properties[b"q"]) == (("fd00::10",), 0, b"21821")
    found = parse(heard, ETH0)
    assert found is not None
    assert [str(each) for each in found.addresses] == ["/ip6/fd00::10/udp/21821/quic-v1"]
    elsewhere = Interface(name="eth1", index=3, networks=("10.9.0.1/24",))
    assert said_on(elsewhere, addresses, peer_id=PEER, instance="a", key=OPEN, salt=SALT) is None


@pytest.mark.parametrize(
    "host", ["192.168.2.20", "127.0.0.1", "8.8.8.8", "224.0.0.251", "0.0.0.0", "::1", "2001:db8::1"]
)
def test_a_record_never_has_us_knock_elsewhere(host: str) -> None:
    """Only addresses of the network of the interface are taken; the others are as if not said."""
    heard = said_as_heard()
    moved = Heard(
        interface="eth0", instance="abc", hosts=(host,), port=22, properties=heard.properties
    )
    assert parse(moved, ETH0) is None


heards = st.builds(
    Heard,
    interface=st.just("eth0"),
    instance=texts,
    hosts=st.lists(
        st.one_of(texts, st.ip_addresses().map(str), st.just("fe80::5%eth0")), max_size=40
    ).map(tuple),
    port=st.one_of(st.none(), st.integers(-1, 1 << 20)),
    properties=st.dictionaries(
        st.one_of(st.sampled_from([b"v", b"p", b"s", b"t", b"n", b"q", b"j"]), st.binary()),
        st.one_of(
            st.none(),
            st.binary(max_size=300),
            st.just(b"1"),
            st.just(SALT.hex().encode()),
            st.just(b"12D3KooWExample"),
            st.just(b"9" * 30),
        ),
    ),
)


@given(heard=heards)
def test_nothing_that_a_stranger_sends_does_more_than_be_ignored(heard: Heard) -> None:
    """No error, no more addresses than there may be, and none off the network."""
    found = parse(heard, ETH0)
    if found is None:
        return
    assert 0 < len(found.addresses) <= MAX_ADDRESSES
    for address in found.addresses:
        assert ETH0.has_on_link(address.host)
        assert 0 < address.port < 65536
        assert not ipaddress.ip_address(address.host).is_loopback
    assert len(found.peer_id) <= 100
    assert len(found.name_tag) in (0, 16)


# ---- candidates ----


def test_a_candidate_that_does_not_answer_is_asked_at_doubling_intervals() -> None:
    """After a second, two, four; after a minute at most."""
    candidates = Candidates()
    candidates.hear(record(), now=0.0)
    now, pauses = 0.0, []
    for _ in range(9):
        chosen = candidates.next_due(now)
        assert isinstance(chosen, Candidate)
        candidates.began(chosen)
        assert candidates.next_due(now) is None
        candidates.ended(chosen, now=now)
        due = candidates.next_due(now)
        assert isinstance(due, float)
        pauses.append(due - now)
        now = due
    assert pauses == [1, 2, 4, 8, 16, 32, MAX_RETRY_SECONDS, MAX_RETRY_SECONDS, MAX_RETRY_SECONDS]


def test_who_knows_the_name_fills_no_memory_and_displaces_nobody_who_was_met() -> None:
    """Ten thousand made-up records: the places are bounded, and the one that was met keeps its."""
    candidates = Candidates()
    known = candidates.hear(record("known", instance="known"), now=0.0)
    assert known is not None
    candidates.began(known)
    candidates.met(known)
    for number in range(10_000):
        candidates.hear(record(f"madeup{number}", instance=str(number)), now=1.0)
    assert len(candidates) == MAX_CANDIDATES
    assert known in list(candidates)
    for number in range(100):
        candidates.hear(record("one", instance=f"x{number}"), now=1.0)
    (one,) = [each for each in candidates if each.peer_id == "one"]
    assert len(one.records) == MAX_ADDRESSES
    assert len(candidates._by_record) <= MAX_CANDIDATES * MAX_ADDRESSES


def test_a_flood_of_records_is_looked_at_at_a_bounded_rate() -> None:
    """A burst, and then a number a second, whoever sends them."""
    candidates = Candidates()
    looked = sum(candidates.has_time_for_a_record(0.0) for _ in range(10_000))
    later = sum(candidates.has_time_for_a_record(1.0) for _ in range(10_000))
    assert (looked, later) == (RECORD_BURST, RECORD_RATE)


def test_a_candidate_is_forgotten_once_it_is_unheard_and_not_followed() -> None:
    """While it is followed it stays, for its stream says more than its record."""
    candidates = Candidates()
    candidate = candidates.hear(record(), now=0.0)
    assert candidate is not None
    candidates.began(candidate)
    candidates.unhear("eth0", "abc")
    assert len(candidates) == 1
    candidates.ended(candidate, now=1.0)
    assert len(candidates) == 0
    candidates.unhear("eth0", "abc")


def test_a_record_of_one_name_that_means_another_peer_takes_the_place_of_the_first() -> None:
    """A name of a record is anybody's to use; the last one heard counts."""
    candidates = Candidates()
    candidates.hear(record("alpha", instance="abc"), now=0.0)
    candidates.hear(record("beta", instance="abc"), now=0.0)
    assert [each.peer_id for each in candidates] == ["beta"]


# ---- interfaces ----


@pytest.mark.parametrize("name", ["eth0", "enp3s0", "wlan0", "en0", "Ethernet", "Wi-Fi", "bond0"])
def test_interfaces_of_lans_are_used(name: str) -> None:
    """Cables and radios, as each system calls them."""
    assert is_lan(name, ["up", "broadcast", "running", "multicast"])
    assert is_lan(name, [])


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("lo", ["up", "loopback", "running"]),
        ("wg0", ["up", "pointopoint", "noarp"]),
        ("tailscale0", []),
        ("tun3", ["up", "pointopoint", "multicast"]),
        ("ztabcdef", ["up", "broadcast", "multicast"]),
        ("utun4", []),
        ("docker0", ["up", "broadcast", "multicast"]),
        ("br-12ab", ["up", "broadcast", "multicast"]),
        ("eth9", ["up", "broadcast", "running"]),
    ],
)
def test_vpns_and_containers_are_left_alone(name: str, flags: list[str]) -> None:
    """By what the system says of them, and by their names where it says nothing."""
    assert not is_lan(name, flags)
