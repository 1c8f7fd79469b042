"""A command and its replies as lines of JSON; decides what is one, and does no I/O.

A caller sends one line, and gets lines until one of them is the last:

  command   {"token": "...", "command": "status", "arguments": {}}
  reply     {"told": VALUE}                                as often as the handler tells something
  last      {"value": VALUE}, or {"error": {"code": "...", "message": "..."}}

An empty line says that the handler is at work.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import attrs

from ..exceptions import RemoteProtocolError

# A command names a few files and addresses.
MAX_COMMAND_BYTES = 64 << 10

# The status of a thousand members, or a ring of log lines, in one value.
MAX_REPLY_BYTES = 4 << 20

# A word such as `status`.
MAX_NAME_CHARACTERS = 64

# What is said of an error; the rest of a longer text is cut.
MAX_MESSAGE_CHARACTERS = 16 << 10

AT_WORK = b"\n"
"""The line that says that a handler is at work."""


@attrs.frozen(kw_only=True)
class Command:
    """What a caller asks for."""

    token: str = attrs.field(repr=False)
    """The right to ask."""

    name: str
    """Which handler."""

    arguments: Mapping[str, Any]
    """What it is given."""


@attrs.frozen(kw_only=True)
class Told:
    """A value before the last."""

    value: Any


@attrs.frozen(kw_only=True)
class Answer:
    """The last value."""

    value: Any


@attrs.frozen(kw_only=True)
class Failure:
    """The end of a command that was not carried out."""

    code: str
    """Of the class of the error; see `punch.exceptions`."""

    message: str
    """A sentence for people."""


Reply = Told | Answer | Failure


class Lines:
    """Takes a stream of bytes apart at its line ends.

    Args:
      most: Bytes of a line, its end left out.

    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._bytes = bytearray()
        # How far it was searched for an end: long lines come in many pieces.
        self._searched = 0

    def feed(self, data: bytes) -> None:
        """Add what came."""
        self._bytes += data

    def next(self) -> bytes | None:
        """The next line; `None` until there is a whole one.

        Raises:
          RemoteProtocolError: if it is too long, whether or not its end has come.

        """
        end = self._bytes.find(b"\n", self._searched)
        if (end if end >= 0 else len(self._bytes)) > self._most:
            raise RemoteProtocolError(f"a line has more than {self._most} bytes")
        if end < 0:
            self._searched = len(self._bytes)
            return None
        line = bytes(self._bytes[:end])
        del self._bytes[: end + 1]
        self._searched = 0
        return line


def encode_command(command: Command) -> bytes:
    """The line of *command*.

    Raises:
      ValueError: if its arguments are no JSON, or too long.

    """
    said = {"token": command.token, "command": command.name, "arguments": command.arguments}
    return _bounded(said, MAX_COMMAND_BYTES)


def encode_reply(reply: Reply) -> bytes:
    """The line of *reply*.

    Raises:
      ValueError: if its value is no JSON, or too long.

    """
    match reply:
        case Told(value=value):
            said: Any = {"told": value}
        case Answer(value=value):
            said = {"value": value}
        case Failure(code=code, message=message):
            said = {"error": {"code": code, "message": message[:MAX_MESSAGE_CHARACTERS]}}
    return _bounded(said, MAX_REPLY_BYTES)


def decode_command(line: bytes) -> Command:
    """The command in *line*.

    Raises:
      RemoteProtocolError: if there is none.

    """
    match _decode(line):
        case {"token": str(token), "command": str(name), "arguments": dict(arguments)}:
            if len(name) <= MAX_NAME_CHARACTERS:
                return Command(token=token, name=name, arguments=arguments)
    raise RemoteProtocolError("this is no command")


def decode_reply(line: bytes) -> Reply:
    """The reply in *line*.

    Raises:
      RemoteProtocolError: if there is none.

    """
    match _decode(line):
        case {"told": value}:
            return Told(value=value)
        case {"value": value}:
            return Answer(value=value)
        case {"error": {"code": str(code), "message": str(message)}}:
            return Failure(code=code, message=message[:MAX_MESSAGE_CHARACTERS])
    raise RemoteProtocolError("this is no reply")


def _bounded(said: Mapping[str, Any], most: int) -> bytes:
    try:
        # In ASCII, whatever the texts are: a half of a surrogate pair has no UTF-8.
        line = json.dumps(said, allow_nan=False, separators=(",", ":")).encode("ascii")
    except (TypeError, RecursionError) as error:
        raise ValueError(f"this is no JSON: {error}") from None
    if len(line) > most:
        raise ValueError(f"it takes {len(line)} bytes; a line may have {most}")
    return line + b"\n"


def _decode(line: bytes) -> Any:
    try:
        return json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise RemoteProtocolError("this is no JSON") from None


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
