"""Messages of a lease as bytes: frozen, there and back, and hostile; and their order."""

from __future__ import annotations

import contextlib

import attrs
import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from punch.cluster.leases import (
    ALLOWED,
    HEADER_BYTES,
    MAX_MESSAGE_BYTES,
    MAX_OPENING_BYTES,
    MESSAGES_BURST,
    MESSAGES_RATE,
    Admitted,
    End,
    Leased,
    LeaseEnded,
    LeaseMessage,
    LeaseOpening,
    LentDevice,
    Look,
    Looked,
    Order,
    Refused,
    Renew,
    Renewed,
    Survey,
    Surveyed,
    Take,
    decode_lease,
    encode_lease,
)
from punch.exceptions import LocalProtocolError, RemoteProtocolError
from punch.wire import MAX_GRANT_BYTES

DEVICE = LentDevice(name="CUDA0", description="a card", total=8, free=4, bandwidth=1.5, compute=2.5)

EXAMPLES: tuple[LeaseMessage, ...] = (
    LeaseOpening(namespace="home", minor=1, chain=b"chain", root=b"root"),
    Survey(),
    Take(seconds=30.0, memory=5, devices=("CPU", "CUDA0"), certificate=b"pem"),
    Renew(seconds=30.0, chain=b"newer"),
    Look(),
    End(),
    Admitted(minor=1, chain=b"chain"),
    Refused(rule="leased", reason="another borrower has it"),
    Surveyed(
        devices=(DEVICE, LentDevice(name="CPU")),
        memory=12,
        bound="limit",
        rpc=(7, 0, 0),
        build="b1",
        threads=2,
        carriers=frozenset({"stream", "direct"}),
        is_leased=True,
    ),
    Leased(
        lease="l1",
        seconds=30.0,
        memory=5,
        devices=("CPU",),
        certificate=b"pem",
        addresses=("10.0.0.1:21840",),
        carriers=frozenset({"direct"}),
    ),
    Renewed(seconds=30.0),
    Looked(cpu_seconds=1.25, is_alive=True),
    LeaseEnded(why="time", reason="it was not renewed"),
)

# As they have been since the first version: whoever changes one breaks older peers.
FROZEN = (
    "85a474797065a76f70656e696e67a96e616d657370616365a4686f6d65a56d696e6f7201a5636861696ec405636861"
    "696ea4726f6f74c404726f6f74",
    "81a474797065a6737572766579",
    "85a474797065a474616b65a77365636f6e6473cb403e000000000000a66d656d6f727905a76465766963657392a343"
    "5055a54355444130ab6365727469666963617465c40370656d",
    "83a474797065a572656e6577a77365636f6e6473cb403e000000000000a5636861696ec4056e65776572",
    "81a474797065a46c6f6f6b",
    "81a474797065a3656e64",
)


def body_of(message: LeaseMessage) -> bytes:
    frame = encode_lease(message)
    assert int.from_bytes(frame[:HEADER_BYTES], "big") == len(frame) - HEADER_BYTES
    return frame[HEADER_BYTES:]


def test_the_bytes_of_messages_stay() -> None:
    """Those of a borrower, which workers of any version read."""
    assert tuple(body_of(each).hex() for each in EXAMPLES[: len(FROZEN)]) == FROZEN


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda each: type(each).__name__)
def test_a_message_comes_back_as_it_was(message: LeaseMessage) -> None:
    """With all its fields, and with none but those that it needs."""
    assert decode_lease(body_of(message)) == message
    needed = {
        field.name: getattr(message, field.name)
        for field in attrs.fields(type(message))
        if field.default is attrs.NOTHING
    }
    bare = type(message)(**needed)
    assert decode_lease(body_of(bare)) == bare


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda each: type(each).__name__)
def test_what_a_later_version_adds_is_ignored(message: LeaseMessage) -> None:
    """A key that is not known changes nothing."""
    fields = msgpack.unpackb(body_of(message))
    assert decode_lease(msgpack.packb({**fields, "later": 1})) == message


@settings(deadline=None)
@given(data=st.binary(max_size=200))
def test_any_bytes_raise_one_error_or_none(data: bytes) -> None:
    """Whatever a peer sends."""
    with contextlib.suppress(RemoteProtocolError):
        decode_lease(data)


@settings(max_examples=300, deadline=None)
@given(
    which=st.sampled_from(EXAMPLES),
    at=st.integers(0, 400),
    value=st.integers(0, 255),
    cut=st.integers(0, 400),
)
def test_damaged_bytes_raise_one_error_or_none(
    which: LeaseMessage, at: int, value: int, cut: int
) -> None:
    """A byte that is another, and an end that is missing."""
    body = bytearray(body_of(which))
    body[at % len(body)] = value
    for damaged in (bytes(body), bytes(body[:cut])):
        with contextlib.suppress(RemoteProtocolError):
            decode_lease(damaged)


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "take"},
        {"type": "take", "seconds": True},
        {"type": "take", "seconds": float("nan")},
        {"type": "take", "seconds": 30.0, "memory": -1},
        {"type": "take", "seconds": 30.0, "memory": 1 << 60},
        {"type": "take", "seconds": 30.0, "devices": ["CPU"] * 33},
        {"type": "take", "seconds": 30.0, "devices": ["x" * 129]},
        {"type": "take", "seconds": 30.0, "devices": ["\x1b[2J"]},
        {"type": "take", "seconds": 30.0, "certificate": b"x" * 5000},
        {"type": "opening", "namespace": ""},
        {"type": "opening", "namespace": "home", "chain": b"x" * (MAX_GRANT_BYTES + 1)},
        {"type": "surveyed"},
        {"type": "surveyed", "devices": [{"name": "CPU", "free": "much"}]},
        {"type": "surveyed", "devices": [{"name": "CPU"}], "rpc": [7, 0, 0, 0]},
        {"type": "looked", "cpu_seconds": -1.0},
        {"type": "refused", "rule": "a\nb"},
        {"type": "lease"},
        {"seconds": 30.0},
        [],
        {"type": ["take"]},
    ],
)
def test_what_is_out_of_bounds_is_no_message(fields: object) -> None:
    """A worker that lies about everything fills no memory and no terminal."""
    with pytest.raises(RemoteProtocolError):
        decode_lease(msgpack.packb(fields))


def test_a_stranger_needs_no_long_frame() -> None:
    """The longest chain, name and root key fit what is read of a stranger."""
    opening = LeaseOpening(
        namespace="n" * 256, minor=1, chain=b"x" * MAX_GRANT_BYTES, root=b"r" * 64
    )
    assert len(body_of(opening)) <= MAX_OPENING_BYTES


def test_a_message_that_nobody_would_read_is_not_sent() -> None:
    """It is a bug on this side."""
    with pytest.raises(LocalProtocolError):
        encode_lease(Refused(rule="x", reason="y" * MAX_MESSAGE_BYTES))


def test_a_borrower_says_first_who_it_is_and_once() -> None:
    """Before that nothing else, after that no more of it."""
    order = Order(0.0)
    with pytest.raises(RemoteProtocolError):
        order.heard(Survey(), now=0.0)
    order.heard(EXAMPLES[0], now=0.0)
    order.admitted()
    with pytest.raises(RemoteProtocolError):
        order.heard(EXAMPLES[0], now=0.0)


def test_a_borrower_takes_one_lease_at_a_time() -> None:
    """A second one would be another stream's, and is refused there by the desk."""
    order = Order(0.0)
    order.admitted()
    order.heard(EXAMPLES[2], now=0.0)
    order.leased()
    with pytest.raises(RemoteProtocolError):
        order.heard(EXAMPLES[2], now=0.0)
    order.ended()
    order.heard(EXAMPLES[2], now=0.0)


@pytest.mark.parametrize("message", EXAMPLES[6:], ids=lambda each: type(each).__name__)
def test_a_borrower_says_nothing_that_is_the_workers(message: LeaseMessage) -> None:
    """Whatever the state."""
    for state in ALLOWED:
        order = Order(0.0)
        order._state = state
        with pytest.raises(RemoteProtocolError):
            order.heard(message, now=0.0)


def test_a_borrower_that_floods_is_stopped() -> None:
    """After a burst, at a rate that no borrower needs."""
    order = Order(0.0)
    order.admitted()
    for _ in range(int(MESSAGES_BURST)):
        order.heard(Survey(), now=0.0)
    with pytest.raises(RemoteProtocolError):
        order.heard(Survey(), now=0.0)
    order.heard(Survey(), now=1.0 / MESSAGES_RATE + 0.001)
    for second in range(10, 100):
        order.heard(Look(), now=float(second))
