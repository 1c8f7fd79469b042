"""Commands and replies as lines: what is sent comes back, and whatever else comes is refused."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import strategies  # noqa: F401 - its profile is ours
from hypothesis import given
from hypothesis import strategies as st

from punch.admin._lines import (
    MAX_COMMAND_BYTES,
    MAX_MESSAGE_CHARACTERS,
    MAX_NAME_CHARACTERS,
    MAX_REPLY_BYTES,
    Answer,
    Command,
    Failure,
    Lines,
    Reply,
    Told,
    decode_command,
    decode_reply,
    encode_command,
    encode_reply,
)
from punch.exceptions import RemoteProtocolError

TEXT = st.text(st.characters(), max_size=20)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    # Of any characters, half pairs of surrogates included: a path may have them.
    | TEXT,
    lambda values: st.lists(values, max_size=4) | st.dictionaries(TEXT, values, max_size=4),
    max_leaves=10,
)
REPLIES: st.SearchStrategy[Reply] = (
    st.builds(Told, value=JSON)
    | st.builds(Answer, value=JSON)
    | st.builds(Failure, code=TEXT, message=TEXT)
)
COMMANDS = st.builds(
    Command,
    token=TEXT,
    name=st.text(max_size=MAX_NAME_CHARACTERS),
    arguments=st.dictionaries(TEXT, JSON, max_size=4),
)

SNAPSHOTS: tuple[tuple[Reply, bytes], ...] = (
    (Told(value=["a\n", 1.5, None]), b'{"told":["a\\n",1.5,null]}\n'),
    (Answer(value={"ä": True}), b'{"value":{"\\u00e4":true}}\n'),
    (
        Failure(code="configuration", message="no"),
        b'{"error":{"code":"configuration","message":"no"}}\n',
    ),
)


def whole(line: bytes) -> bytes:
    """What a line holds, which is one line."""
    assert line.count(b"\n") == 1
    return line.removesuffix(b"\n")


@pytest.mark.parametrize(("reply", "line"), SNAPSHOTS)
def test_a_reply_looks_as_it_always_did(reply: Reply, line: bytes) -> None:
    """A command of another version of punch can read it."""
    assert encode_reply(reply) == line
    assert decode_reply(whole(line)) == reply


def test_a_command_looks_as_it_always_did() -> None:
    """A running punch of another version can read it."""
    command = Command(token="ab", name="status", arguments={"x": [1]})
    line = b'{"token":"ab","command":"status","arguments":{"x":[1]}}\n'
    assert encode_command(command) == line
    assert decode_command(whole(line)) == command


@given(REPLIES)
def test_every_reply_comes_back(reply: Reply) -> None:
    """What is said is heard."""
    assert decode_reply(whole(encode_reply(reply))) == reply


@given(COMMANDS)
def test_every_command_comes_back(command: Command) -> None:
    """What is asked is heard."""
    assert decode_command(whole(encode_command(command))) == command


@given(st.binary(max_size=200) | JSON.map(lambda value: encode_reply(Told(value=value))[8:-2]))
def test_arbitrary_bytes_are_refused_or_read_and_nothing_else(line: bytes) -> None:
    """No byte of a stranger raises what nobody expects."""
    for decode in (decode_command, decode_reply):
        with contextlib.suppress(RemoteProtocolError):
            decode(line)


@given(COMMANDS, st.data())
def test_a_command_that_was_cut_or_changed_is_refused_or_read(
    command: Command, data: st.DataObject
) -> None:
    """Wherever that was."""
    line = bytearray(whole(encode_command(command)))
    place = data.draw(st.integers(0, len(line) - 1))
    with pytest.raises(RemoteProtocolError):
        decode_command(bytes(line[:place]))
    line[place] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(RemoteProtocolError):
        decode_command(bytes(line))


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[" * 60_000,
        b"9" * 60_000,
        b'{"token":"a","command":"b","arguments":{"x":NaN}}',
        b'{"token":"a","command":"b","arguments":[]}',
        b'{"token":1,"command":"b","arguments":{}}',
        b'{"token":"a","command":"' + b"b" * (MAX_NAME_CHARACTERS + 1) + b'","arguments":{}}',
        b"GET / HTTP/1.1\r",
        b"\xff\xfe",
    ],
)
def test_what_is_no_command_is_refused(line: bytes) -> None:
    """Too deep, too long, of other kinds, or another protocol."""
    with pytest.raises(RemoteProtocolError):
        decode_command(line)


@pytest.mark.parametrize(
    "line", [b"1", b"{}", b'{"error":"x"}', b'{"error":{"code":1,"message":""}}', b"\xff"]
)
def test_what_is_no_reply_is_refused(line: bytes) -> None:
    """Whatever answers at the port is not believed."""
    with pytest.raises(RemoteProtocolError):
        decode_reply(line)


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, b"bytes", object()])
def test_what_is_no_json_is_not_sent(value: Any) -> None:
    """Our own handlers are told so."""
    with pytest.raises(ValueError):
        encode_reply(Answer(value=value))


def test_what_is_too_long_is_not_sent() -> None:
    """The other side would refuse it."""
    with pytest.raises(ValueError, match=str(MAX_REPLY_BYTES)):
        encode_reply(Answer(value="x" * MAX_REPLY_BYTES))
    with pytest.raises(ValueError, match=str(MAX_COMMAND_BYTES)):
        encode_command(Command(token="", name="a", arguments={"x": "x" * MAX_COMMAND_BYTES}))


def test_the_text_of_an_error_is_cut() -> None:
    """It always fits a line."""
    line = encode_reply(Failure(code="a", message="\N{SNOWMAN}" * MAX_REPLY_BYTES))
    reply = decode_reply(whole(line))
    assert reply == Failure(code="a", message="\N{SNOWMAN}" * MAX_MESSAGE_CHARACTERS)


@given(st.lists(st.binary(max_size=20).map(lambda b: b.replace(b"\n", b"")), max_size=6), st.data())
def test_lines_are_the_same_however_they_arrive(lines: list[bytes], data: st.DataObject) -> None:
    """In one piece, in many, and cut in the middle of one."""
    stream = b"".join(line + b"\n" for line in lines)
    buffer = Lines(20)
    found = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        buffer.feed(stream[:size])
        stream = stream[size:]
        while (line := buffer.next()) is not None:
            found.append(line)
    assert found == lines


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_line_that_is_too_long_is_refused_before_its_end(end: bytes) -> None:
    """Nobody fills the memory with one line."""
    buffer = Lines(20)
    buffer.feed(b"x" * 20)
    assert buffer.next() is None
    buffer.feed(b"x" + end)
    with pytest.raises(RemoteProtocolError):
        buffer.next()
