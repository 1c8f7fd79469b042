"""One RPC connection read along: what is counted, and when a reply counts as due."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from punch.llama_cpp import RpcCounts, RpcFrames, RpcVersion

# (is it the head's?, the command or None, the size of what follows)
Message = tuple[bool, int | None, int]

RECORDED = Path(__file__).with_name("conversation_7_0_0.txt")

ALLOC_BUFFER, GET_ALIGNMENT, FREE_BUFFER, SET_TENSOR, GET_TENSOR, GRAPH_COMPUTE = 0, 1, 4, 6, 8, 10
INIT_TENSOR, HELLO, GRAPH_RECOMPUTE, MEMSET_TENSOR = 12, 14, 16, 17


def request(command: int, size: int = 0) -> bytes:
    return struct.pack("<BQ", command, size) + bytes(size)


def reply(size: int) -> bytes:
    return struct.pack("<Q", size) + bytes(size)


def hello_answer(*version: int) -> bytes:
    return struct.pack("<Q", 28) + bytes(version).ljust(28, b"\0")


def after_hello(*version: int) -> RpcFrames:
    """Frames of a connection on which a hello was answered at 0 s."""
    frames = RpcFrames()
    frames.feed_up(request(HELLO, 24), 0.0)
    frames.feed_down(hello_answer(*(version or (7, 0, 0))), 0.0)
    return frames


def recorded() -> list[list[Message]]:
    """The conversations in the file, a list of messages for each connection."""
    connections: list[list[Message]] = []
    for line in RECORDED.read_text().splitlines()[3:]:
        words = line.split()
        if not words:
            connections.append([])
            continue
        times = int(words.pop()) if "*" in words else 1
        numbers = [int(word) for word in words if word.isdigit()]
        one = (words[0] == "up", numbers[0] if len(numbers) == 2 else None, numbers[-1])
        connections[-1] += [one] * times
    return connections


def played(messages: list[Message]) -> Iterator[tuple[bool, bytes]]:
    """The bytes of a conversation, in pieces of 64 KiB at most."""
    nothing = bytes(1 << 16)
    for is_up, command, size in messages:
        if command is not None:
            yield is_up, struct.pack("<BQ", command, size)
        else:
            yield is_up, struct.pack("<Q", size)
            if size == 28:
                yield is_up, bytes((7, 0, 0)).ljust(28, b"\0")
                continue
        for at in range(0, size, len(nothing)):
            yield is_up, nothing[: min(len(nothing), size - at)]


@pytest.mark.parametrize(
    ("command", "answer", "fault"),
    [
        (HELLO, b"HTTP/1.1 400 Bad Request", "it answers what is no reply"),
        (HELLO, reply(2), "it answers what is no reply"),
        (GET_ALIGNMENT, reply(9), "it answers what is no reply"),
        (GRAPH_COMPUTE, reply(0), "it answers what nobody has asked"),
        (ALLOC_BUFFER, reply(16), "it has no room for what it said that it lends"),
        (ALLOC_BUFFER, struct.pack("<QQQ", 16, 1 << 40, 64), None),
        (GET_TENSOR, reply(1000), None),
    ],
)
def test_what_ends_a_head_is_said(command: int, answer: bytes, fault: str | None) -> None:
    """However it is cut; a head that ends says nothing of which worker it was."""
    for step in (1, 5, len(answer)):
        frames = RpcFrames() if command == HELLO else after_hello()
        frames.feed_up(request(command, 24), 1.0)
        for at in range(0, len(answer), step):
            frames.feed_down(answer[at : at + step], 2.0)
        assert frames.counts().fault == fault
    frames.end_down()
    assert frames.counts().fault is not None


# ---- a recorded conversation ----


def test_a_real_conversation_is_counted_as_it_was_recorded() -> None:
    """Twelve connections of llama.cpp: a load of 97 MB, a prompt and four tokens."""
    found = []
    for messages in recorded():
        frames = RpcFrames()
        for is_up, data in played(messages):
            (frames.feed_up if is_up else frames.feed_down)(data, 1.0)
        found.append(frames.counts())
    short = [(one.messages, one.replies, one.bytes_up, one.bytes_down) for one in found]
    assert short == [
        (2, 2, 42, 48),
        *[(2, 2, 46, 60)] * 3,
        (3, 3, 59, 68),
        *[(2, 2, 46, 60)] * 2,
        *[(2, 2, 3302, 52)] * 4,
        (525, 32, 97966313, 983557),
    ]
    assert {one.replies_due for one in found} == {0}
    assert {one.version for one in found} == {RpcVersion(7, 0, 0)}
    assert {one.trouble for one in found} == {None}


def test_the_last_messages_of_a_token_wait_for_one_reply() -> None:
    """Of all that a token takes, only the read of its logits has an answer."""
    frames = after_hello()
    for command, size in [(SET_TENSOR, 2609), (GRAPH_RECOMPUTE, 4), (GET_TENSOR, 312)]:
        frames.feed_up(request(command, size), 5.0)
    assert frames.counts().replies_due == 1
    frames.feed_down(reply(196608), 5.2)
    assert frames.counts().replies_due == 0
    assert (frames.counts().messages, frames.counts().replies) == (4, 2)


# ---- which reply is due since when ----


def test_a_reply_is_due_from_the_last_byte_of_its_request() -> None:
    """While a request is on its way nobody can answer it."""
    frames = after_hello()
    whole = request(GET_TENSOR, 312)
    frames.feed_up(whole[:-1], 3.0)
    assert frames.counts().oldest_due_since is None
    frames.feed_up(whole[-1:], 4.0)
    assert frames.counts().oldest_due_since == 4.0


def test_a_long_reply_that_arrives_is_no_silence() -> None:
    """The age of a reply is that of its latest piece."""
    frames = after_hello()
    frames.feed_up(request(GET_TENSOR, 312), 4.0)
    answer = reply(600_000)
    frames.feed_down(answer[:1000], 6.0)
    assert frames.counts().oldest_due_since == 6.0
    frames.feed_down(answer[1000:], 9.0)
    assert frames.counts().oldest_due_since is None


def test_what_came_before_a_request_does_not_make_it_older() -> None:
    """Only what comes after a request can be its answer."""
    frames = after_hello()
    frames.feed_up(request(GET_TENSOR, 312), 100.0)
    assert frames.counts().oldest_due_since == 100.0


def test_the_oldest_of_several_counts() -> None:
    """Replies come in order, so the first is the one that is late."""
    frames = after_hello()
    frames.feed_up(request(GET_ALIGNMENT, 4), 1.0)
    frames.feed_up(request(GET_ALIGNMENT, 4), 2.0)
    assert frames.counts() == RpcCounts(
        messages=3, replies=1, bytes_up=59, bytes_down=36, replies_due=2, oldest_due_since=1.0,
        version=RpcVersion(7, 0, 0),
    )  # fmt: skip
    frames.feed_down(reply(8), 2.5)
    assert frames.counts().oldest_due_since == 2.5


@pytest.mark.parametrize("command", [FREE_BUFFER, INIT_TENSOR, MEMSET_TENSOR])
@pytest.mark.parametrize(("major", "due"), [(5, 1), (6, 1), (7, 0)])
def test_four_commands_have_a_reply_until_6(command: int, major: int, due: int) -> None:
    """Taken for one of 7.x, a connection of 5.x would have replies that nobody asked for."""
    frames = after_hello(major, 0, 0)
    frames.feed_up(request(command, 16), 1.0)
    assert frames.counts().replies_due == due
    if due:
        frames.feed_down(reply(0), 2.0)
    assert frames.counts().replies_due == 0
    assert frames.trouble is None


def test_a_hello_without_an_answer_is_due() -> None:
    """A worker that hangs before it has said its version is found like any other."""
    frames = RpcFrames()
    frames.feed_up(request(HELLO, 24), 7.0)
    assert frames.counts().oldest_due_since == 7.0


# ---- what cannot be read ----


def test_an_unknown_command_is_said_once_and_bytes_go_on_being_counted() -> None:
    """Whether it has a reply is not known, so that nothing counts as due any more."""
    frames = after_hello()
    frames.feed_up(request(GET_TENSOR, 8) + request(99, 10), 1.0)
    assert frames.trouble == "command 99 of RPC 7.0.0 is not known"
    assert frames.counts().replies_due == 0
    frames.feed_up(request(98, 10), 1.0)
    frames.feed_down(reply(40) + reply(3), 2.0)
    assert frames.trouble == "command 99 of RPC 7.0.0 is not known"
    assert (frames.counts().messages, frames.counts().replies) == (4, 3)


@pytest.mark.parametrize(
    ("version", "up", "down", "trouble"),
    [
        ((8, 0, 0), b"", b"", "RPC 8.0.0 is not known"),
        ((4, 1, 0), b"", b"", "RPC 4.1.0 is not known"),
        ((7, 0, 0), b"", reply(0), "a reply came that no command of this version has"),
        (
            (7, 0, 0), request(GET_ALIGNMENT, 4), reply(9),
            "the reply to command 1 has 9 bytes, and not 8",
        ),
        ((7, 0, 0), b"\x06" + b"\xff" * 8, b"", f"a message of {2**64 - 1} bytes"),
        ((7, 0, 0), request(GET_TENSOR, 4), b"\xff" * 8, f"a reply of {2**64 - 1} bytes"),
        (
            (7, 0, 0), request(GET_TENSOR) * 1025, b"",
            "more than 1024 requests wait for a reply",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_said(
    version: tuple[int, int, int], up: bytes, down: bytes, trouble: str
) -> None:
    """Each with its reason; no reply counts as due after it."""
    frames = after_hello(*version)
    frames.feed_up(up, 1.0)
    frames.feed_down(down, 1.0)
    counts = frames.counts()
    assert (counts.trouble, counts.replies_due, counts.oldest_due_since) == (trouble, 0, None)
    assert (counts.bytes_up, counts.bytes_down) == (33 + len(up), 36 + len(down))


@pytest.mark.parametrize(
    ("up", "down", "trouble"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"", "the first command is 71, and not hello"),
        (request(HELLO, 24), reply(2), "the reply to hello has no version"),
        (
            request(HELLO, 24) + request(FREE_BUFFER, 8), b"",
            "a command came before the version was known",
        ),
    ],
)  # fmt: skip
def test_a_connection_that_does_not_begin_with_hello_is_no_rpc(
    up: bytes, down: bytes, trouble: str
) -> None:
    """What is carried then is none of ours; it is carried all the same."""
    frames = RpcFrames()
    frames.feed_up(up, 1.0)
    frames.feed_down(down, 1.0)
    assert frames.trouble == trouble


# ---- properties ----

commands = st.one_of(st.integers(0, 17).filter(lambda number: number != HELLO), st.integers(0, 255))
payloads = st.integers(0, 40)
versions = st.tuples(st.sampled_from([4, 5, 6, 7, 8]), st.integers(0, 3), st.integers(0, 3))


@st.composite
def conversations(draw: st.DrawFn) -> list[tuple[bool, bytes]]:
    """Turns of one connection that begins with hello; what follows need make no sense."""
    turns = [(True, request(HELLO, 24)), (False, hello_answer(*draw(versions)))]
    for _ in range(draw(st.integers(0, 12))):
        if draw(st.booleans()):
            turns.append((True, request(draw(commands), draw(payloads))))
        else:
            turns.append((False, reply(draw(payloads | st.just(8)))))
    if draw(st.booleans()):
        turns.append((draw(st.booleans()), draw(st.binary(max_size=60))))
    return turns


def chopped(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    edges = sorted({cut for cut in cuts if cut < len(data)})
    for begin, end in zip([0, *edges], [*edges, len(data)], strict=True):
        yield data[begin:end]


def fed(turns: list[tuple[bool, bytes]]) -> RpcCounts:
    frames = RpcFrames()
    for second, (is_up, data) in enumerate(turns):
        (frames.feed_up if is_up else frames.feed_down)(data, float(second))
    return frames.counts()


@given(conversations(), st.data())
def test_any_chopping_of_the_stream_gives_the_same_counts(
    turns: list[tuple[bool, bytes]], data: st.DataObject
) -> None:
    """TCP cuts where it likes, and TLS at 16 KiB."""
    frames = RpcFrames()
    for second, (is_up, whole) in enumerate(turns):
        feed = frames.feed_up if is_up else frames.feed_down
        cuts = data.draw(st.lists(st.integers(0, 60), max_size=6))
        for number, piece in enumerate(chopped(whole, cuts)):
            feed(memoryview(piece) if number % 2 else piece, float(second))
    assert frames.counts() == fed(turns)


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=80)), max_size=10))
def test_no_bytes_at_all_make_it_fail(turns: list[tuple[bool, bytes]]) -> None:
    """It raises nothing, and the bytes are counted whatever they are."""
    counts = fed(turns)
    assert counts.bytes_up == sum(len(data) for is_up, data in turns if is_up)
    assert counts.bytes_down == sum(len(data) for is_up, data in turns if not is_up)
    assert (counts.oldest_due_since is None) == (counts.replies_due == 0)
    assert not (counts.trouble and counts.replies_due)


# ---- cost ----


def test_reading_costs_by_the_message_and_not_by_the_byte() -> None:
    """A graph of 200 KB takes no longer than a handful of small messages."""
    frames = after_hello()
    graph = request(GRAPH_COMPUTE, 200_000)
    pieces = [graph[at : at + 65536] for at in range(0, len(graph), 65536)]
    best = min(_seconds(frames, pieces) for _ in range(50))
    assert best < 0.0005  # 4 us on a quiet machine.


def _seconds(frames: RpcFrames, pieces: list[bytes]) -> float:
    began = time.perf_counter()
    for piece in pieces:
        frames.feed_up(piece, began)
    return time.perf_counter() - began


def test_counts_are_values_that_can_be_kept() -> None:
    """A later byte does not change what was counted before."""
    frames = after_hello()
    before = frames.counts()
    frames.feed_up(request(SET_TENSOR, 10), 1.0)
    assert attrs.asdict(before)["messages"] == 1
    assert frames.counts().messages == 2
