r"""Server-sent events, read from bytes as servers really send them. No I/O.

By the standard:

* A line ends in LF, CR LF or CR; an event ends in an empty line.
* The ``data`` lines of one event are joined with LF; other fields and comments are skipped.
* Bytes may be cut anywhere, also inside a character or between CR and LF.

Beyond it, since what servers send is what there is to read:

* The last event may lack its empty line, and its line end: it counts if it is all there.
* Events may lack the empty lines between them: a JSON value that is complete ends an event.
* An event that is named ``error``, and a field of that name, say that the answer failed.
* What has no field name, such as an HTML page, is no event. JSON there is read as one, be it
  one value for the whole body, over many lines, or a value a line.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html, section 9.2.6.
"""

from __future__ import annotations

import json
import re
from typing import Literal, NamedTuple

from ...exceptions import GenerationFailed

# One event of an OpenAI-compatible server is some 300 bytes for a token and some 100 KiB
# with log probabilities; a thousand times the first is a server gone wrong.
MAX_EVENT_BYTES = 1024 * 1024

# A whole answer in one JSON value, with 8,192 log-probabilities of 20 alternatives each.
MAX_BODY_BYTES = 64 * 1024 * 1024

# 100,000 tokens at 300 bytes are 30 MB; eight times that is a stream that will not end.
MAX_STREAM_BYTES = 256 * 1024 * 1024

# Of a text that is no event, what is kept to quote from: an HTML page begins with its style.
_MAX_WORDS_BYTES = 64 * 1024

_BOM = b"\xef\xbb\xbf"

# A space before the name, none or several behind the colon, and capitals change nothing of what is
# meant; nor do the zeros with which some proxies fill a packet.
_FIELD = re.compile(
    rb"[ \t\0]*(data|event|error|id|retry)[ \t]*(?::(.*))?\Z", re.DOTALL | re.IGNORECASE
)

DONE = "[DONE]"
"""The `data` of the event that says that nothing more comes, without white space around it."""

Kind = Literal["data", "error", "bare"]


class Event(NamedTuple):
    """One event of a stream."""

    data: str
    """Its text; bytes that are no UTF-8 are escaped as `surrogateescape` does."""

    kind: Kind = "data"
    """``error`` if it says by its name that the answer failed; ``bare`` if it was no event of the
    stream but JSON that stood there by itself."""


class EventReader:
    """Turns the bytes of one response into its events."""

    def __init__(self) -> None:
        self._tail = bytearray()
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._total = 0
        self._after_cr = False
        self._at_start = True
        self._is_error = False
        self._bare: list[bytes] = []
        self._bare_bytes = 0

    def feed(self, data: bytes) -> list[Event]:
        """The events that *data* completes.

        Raises:
          GenerationFailed: if a line, an event or the whole stream is too long.

        """
        self._total += len(data)
        if self._total > MAX_STREAM_BYTES:
            raise GenerationFailed(f"the server's answer is longer than {MAX_STREAM_BYTES} bytes")
        if self._after_cr and data:
            self._after_cr = False
            if data.startswith(b"\n"):
                data = data[1:]
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        self._tail += data
        if b"\n" not in data:
            self._check_tail()
            return []
        lines = bytes(self._tail).split(b"\n")
        self._tail = bytearray(lines.pop())
        self._check_tail()
        events: list[Event] = []
        for line in lines:
            self._read(line, events)
        return events

    def finish(self) -> list[Event]:
        """The events that the end of the response completes."""
        events: list[Event] = []
        if self._tail:
            self._read(bytes(self._tail), events)
            self._tail.clear()
        # An event that was cut off is none.
        if self._is_error or _is_complete(self._data):
            self._end(events)
        bare = b"\n".join(self._bare)
        if bare and _is_json(bare):
            self._bare = []
            events.append(Event(_decoded(bare), "bare"))
        return events

    @property
    def words(self) -> str:
        """The beginning of what was sent and was neither an event nor JSON, on one line."""
        return plain_words(b"\n".join(self._bare))

    def _read(self, line: bytes, events: list[Event]) -> None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BOM)
        if line.startswith(b"data:"):
            # As nearly every line; the rest is slower.
            self._add(line[6:] if line.startswith(b"data: ") else line[5:], events)
        elif not line or line.isspace():
            self._end(events)
        elif not line.startswith(b":"):
            self._read_rare(line, events)

    def _read_rare(self, line: bytes, events: list[Event]) -> None:
        field = _FIELD.match(line)
        if field is None:
            self._read_bare(line, events)
            return
        name, value = field.group(1).lower(), (field.group(2) or b"").removeprefix(b" ")
        if name == b"data":
            self._add(value, events)
        elif name == b"error":
            self._is_error = True
            self._add(value, events)
        elif name == b"event":
            self._is_error = value.strip().lower() == b"error"

    def _read_bare(self, line: bytes, events: list[Event]) -> None:
        """Take a line that has no field's name."""
        text = line.strip()
        if text == DONE.encode():
            events.append(Event(DONE))
        elif not self._bare and text.startswith(b"{") and text.endswith(b"}") and _is_json(text):
            events.append(Event(_decoded(text), "bare"))
        elif self._bare_bytes <= MAX_BODY_BYTES:
            self._bare.append(line)
            self._bare_bytes += len(line) + 1

    def _add(self, value: bytes, events: list[Event]) -> None:
        # A server that sends no empty lines means each value for an event of its own.
        if self._data and _is_complete(self._data):
            self._end(events)
        self._data_bytes += len(value) + 1
        if self._data_bytes > MAX_EVENT_BYTES:
            raise GenerationFailed(f"the server sent an event longer than {MAX_EVENT_BYTES} bytes")
        self._data.append(value)

    def _end(self, events: list[Event]) -> None:
        if self._data or self._is_error:
            text = _decoded(b"\n".join(self._data))
            events.append(Event(text, "error" if self._is_error else "data"))
            self._data = []
            self._data_bytes = 0
            self._is_error = False

    def _check_tail(self) -> None:
        length = len(self._tail)
        if length <= MAX_EVENT_BYTES:
            return
        is_json = self._tail[:64].lstrip().startswith((b"{", b"["))
        limit = MAX_BODY_BYTES if is_json else MAX_EVENT_BYTES
        if length > limit:
            raise GenerationFailed(f"the server sent an event longer than {limit} bytes")


def plain_words(body: bytes) -> str:
    """The words at the beginning of *body*, on one line and without the markup of a page."""
    text = body[:_MAX_WORDS_BYTES].decode("utf-8", "replace")
    return " ".join(_TAGS.sub(" ", _UNSEEN.sub(" ", text)).split())


_TAGS = re.compile(r"<[^<>]*>")
_UNSEEN = re.compile(r"<(script|style|!--).*?(</\1>|-->|\Z)", re.DOTALL | re.IGNORECASE)


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _is_complete(lines: list[bytes]) -> bool:
    """Whether the data of an event is all there, as far as it shows."""
    data = b"\n".join(lines).strip()
    return data == DONE.encode() or (data.endswith((b"}", b"]")) and _is_json(data))


def _is_json(data: bytes) -> bool:
    if data.lstrip()[:1] not in (b"{", b"["):
        return False
    try:
        json.loads(_decoded(data), strict=False)
    except (ValueError, RecursionError):
        return False
    return True
