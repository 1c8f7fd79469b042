"""Grants, chains and removals as bytes: frozen, there and back, and damaged."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from libp2p.crypto.ed25519 import create_new_key_pair
from made_up_members import NOW, MadeUpMember, MadeUpNamespace, RealKeys

from punch.access import (
    Grant,
    Member,
    Namespace,
    Refusal,
    decode_chain,
    encode_chain,
    fault_of_name,
    key_of,
    parse_namespace,
    peer_of,
    read_revocation,
    sign_grant,
)
from punch.capability import PeerId
from punch.exceptions import ConfigurationError, LocalProtocolError, RemoteProtocolError

KEYS = RealKeys()
SEEDED = {
    name: KEYS.adopt(create_new_key_pair(hashlib.sha256(name.encode()).digest()))
    for name in ("root", "desk", "laptop", "p")
}
HOME = MadeUpNamespace("home", root=SEEDED["root"], keys=KEYS)
DESK = HOME.admin(SEEDED["desk"])
LAPTOP = HOME.machine(SEEDED["laptop"], by=DESK)
PROCESS = HOME.process(SEEDED["p"], on=LAPTOP)
REMOVAL = HOME.remove(LAPTOP, by=DESK)


def test_the_bytes_of_a_grant_are_frozen() -> None:
    """Every version reads what every other has signed."""
    assert str(HOME.namespace) == "home@kln5tlmq"
    assert LAPTOP.chain[-1].encoded.hex() == (
        "8aa96e616d657370616365a4686f6d65a4726f6f74c42017806f3f20fcbc6910d6e792c5f27d7dffea4f1252"
        "afdfa527d742a868ed8783a77375626a656374c42014f1f437bd2676d7a46b4d0ad0163f58f9689949004c59"
        "4d172b8bf26faebd19a6697373756572c420b8bcd1393160c1814b11601e272302201d792983f914cbda2e44"
        "f30d55d7225da46b696e64a76d616368696e65a673636f70657392a46469616ca66c697374656ea4656e6473"
        "ce6bc07900a66e756d62657201a5756e64657201a56f776e6572c42014f1f437bd2676d7a46b4d0ad0163f58"
        "f9689949004c594d172b8bf26faebd19"
    )
    assert LAPTOP.chain[-1].signature.hex() == (
        "39be1f029a9fbf6999f72a1be4c8b994719cdfb12add804a8612e061bfa170cce5363a287c7c093be092ddcd"
        "39b09d529ce15a226592ac5070e8eef426a8c30f"
    )
    assert hashlib.sha256(PROCESS.encoded).hexdigest() == (
        "d105d8b549ec3402b8ebb2163161ad6379e7b54af2e70d6566de839e31eb2229"
    )
    assert hashlib.sha256(REMOVAL).hexdigest() == (
        "dbac84969a2f289d33c77efe1fc122cb61dd1bb5d7974341f1a82fd4b285d698"
    )
    assert (len(DESK.encoded), len(PROCESS.encoded), len(REMOVAL)) == (353, 995, 595)


peers = st.binary(min_size=32, max_size=32).map(peer_of)
numbers = st.integers(1, (1 << 32) - 1)
grants = st.builds(
    Grant,
    namespace=st.sampled_from(["home", "büro", "x" * 64]),
    root=peers,
    subject=peers,
    issuer=peers,
    kind=st.sampled_from(["machine", "process"]),
    scopes=st.frozensets(st.sampled_from(["dial", "listen", "lend", "other"])),
    ends=st.integers(0, 1 << 40),
    number=numbers,
    under=numbers,
    owner=peers,
    lasts=st.integers(0, 1 << 40),
    name=st.sampled_from([b"", bytes(32)]),
)


@given(grants)
def test_a_grant_comes_back_as_it_was(grant: Grant) -> None:
    """Alone and in a chain."""
    if grant.subject in (grant.root, grant.issuer) or grant.issuer == grant.root:
        return
    signed = sign_grant(grant, lambda data: bytes(64))
    assert signed.grant == grant
    assert decode_chain(encode_chain((signed,))) == (signed,)


@given(st.binary(min_size=32, max_size=32))
def test_a_key_comes_back_as_it_was(key: bytes) -> None:
    """And its peer id is the one that libp2p has for it."""
    assert key_of(peer_of(key)) == key
    assert peer_of(key).startswith("12D3KooW")


def test_a_peer_id_is_the_one_of_libp2p() -> None:
    """Not only one that looks like it."""
    for name in SEEDED:
        assert peer_of(key_of(SEEDED[name])) == SEEDED[name]


@given(st.text(max_size=60))
def test_a_text_that_is_no_key_has_no_bytes_of_another(text: str) -> None:
    """Two texts never stand for one key."""
    try:
        key = key_of(PeerId(text))
    except LocalProtocolError:
        return
    assert peer_of(key) == text


@given(st.binary(max_size=60))
def test_bytes_that_are_no_key_are_refused(key: bytes) -> None:
    """And each key has one spelling."""
    try:
        peer_id = peer_of(key)
    except RemoteProtocolError:
        return
    assert key_of(peer_id) == key


@given(st.binary(max_size=3000))
def test_bytes_that_are_no_chain_are_refused(data: bytes) -> None:
    """With one kind of error, and by a lock with a refusal."""
    with pytest.raises(RemoteProtocolError):
        decode_chain(data)
    with pytest.raises(RemoteProtocolError):
        read_revocation(data)
    lock = HOME.lock()
    assert isinstance(lock.judge(LAPTOP.peer_id, data, NOW), Refusal)
    assert lock.add([data]) == ()


def damaged(whole: bytes) -> st.SearchStrategy[bytes]:
    """*whole* with one or a few things wrong."""
    places = st.integers(0, len(whole) - 1)

    def flipped(changes: dict[int, int]) -> bytes:
        found = bytearray(whole)
        for place, bits in changes.items():
            found[place] ^= bits
        return bytes(found)

    return st.one_of(
        st.dictionaries(places, st.integers(1, 255), min_size=1, max_size=3).map(flipped),
        places.map(lambda place: whole[:place]),
        st.builds(lambda a, b: whole[:a] + whole[b:], places, places).filter(
            lambda data: data != whole
        ),
        st.builds(lambda a, more: whole[:a] + more + whole[a:], places, st.binary(min_size=1)),
    )


@given(damaged(PROCESS.encoded))
def test_a_damaged_chain_lets_nobody_in(data: bytes) -> None:
    """Whatever the damage: it is refused, and nothing else happens."""
    if data == PROCESS.encoded:
        return
    found = HOME.lock().judge(PROCESS.peer_id, data, NOW)
    assert isinstance(found, Refusal)


@given(damaged(REMOVAL))
def test_a_damaged_removal_removes_nobody(data: bytes) -> None:
    """And the true one is still news."""
    if data == REMOVAL:
        return
    lock = HOME.lock()
    assert lock.add([data]) == ()
    assert isinstance(lock.judge(LAPTOP.peer_id, LAPTOP.encoded, NOW), Member)
    assert lock.add([REMOVAL]) == (REMOVAL,)


def test_every_bit_of_a_chain_counts() -> None:
    """One after the other, in a chain of one grant."""
    member: MadeUpMember = DESK
    whole = member.encoded
    lock = HOME.lock()
    for place in range(len(whole)):
        for bit in range(8):
            data = bytearray(whole)
            data[place] ^= 1 << bit
            found = lock.judge(member.peer_id, bytes(data), NOW)
            assert isinstance(found, Refusal), (place, bit)


# ---- names ----


@pytest.mark.parametrize(
    "name", ["home", "my home", "büro-2", "家", "a", "x" * 64, "a.b_c", "COM", "a,b;c(d)"]
)
def test_a_namespace_may_have_such_a_name(name: str) -> None:
    """What people write, as long as a folder can have it."""
    assert fault_of_name(name) is None
    namespace = Namespace(name=name, root=SEEDED["root"])
    assert namespace.is_meant_by(name)
    assert namespace.is_meant_by(str(namespace))
    assert parse_namespace(str(namespace)) == (name, namespace.fingerprint)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a/b",
        "a\\b",
        "a@b",
        "a:b",
        " a",
        "a ",
        ".a",
        "a.",
        "a\nb",
        "a\x00",
        "é" * 33,
        "\ud800",
        "a\u202eb",
        "x" * 65,
        "a*",
        "a?",
        "<a>",
        "a|b",
        '"a"',
    ],
)
def test_a_namespace_may_not_have_such_a_name(name: str) -> None:
    """It would be no folder, or two lines of a table, or look like another."""
    assert fault_of_name(name) is not None
    with pytest.raises(ConfigurationError, match="of a closed namespace"):
        Namespace(name=name, root=SEEDED["root"])


def test_what_looks_like_no_fingerprint_is_part_of_the_name() -> None:
    """An open namespace may have an at sign in its name."""
    assert parse_namespace("home@abcdefgh") == ("home", "abcdefgh")
    assert parse_namespace("home@ABCDEFGH") == ("home", "abcdefgh")
    for text in ("home", "home@", "@abcdefgh", "home@abcdefg", "home@abcdefg1", "a@b"):
        assert parse_namespace(text) == (text, None)
    namespace = HOME.namespace
    assert not namespace.is_meant_by("home@abcdefgh")
    assert not namespace.is_meant_by("work")
