"""Server-sent events, read from bytes. No I/O.

* A line ends in LF, CR LF or CR; an event ends in an empty line.
* The ``data`` lines of one event are joined with LF; other fields and comments are skipped.
* Bytes may be cut anywhere, also inside a character or between CR and LF.
* What follows the last empty line is no event and is dropped.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html, section 9.2.6.
"""

from __future__ import annotations

from ...exceptions import GenerationFailed

# One event of an OpenAI-compatible server is some 300 bytes for a token and some 100 KiB
# with log probabilities; a thousand times the first is a server gone wrong.
MAX_EVENT_BYTES = 1024 * 1024

# 100,000 tokens at 300 bytes are 30 MB; eight times that is a stream that will not end.
MAX_STREAM_BYTES = 256 * 1024 * 1024

_BOM = b"\xef\xbb\xbf"


class EventReader:
    """Turns the bytes of one response into the ``data`` of its events."""

    def __init__(self) -> None:
        self._tail = bytearray()
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._total = 0
        self._after_cr = False
        self._at_start = True

    def feed(self, data: bytes) -> list[str]:
        """The events that *data* completes, each as its ``data`` text.

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
            self._check(len(self._tail))
            return []
        lines = bytes(self._tail).split(b"\n")
        self._tail = bytearray(lines.pop())
        self._check(len(self._tail))
        if self._at_start:
            self._at_start = False
            lines[0] = lines[0].removeprefix(_BOM)
        events: list[str] = []
        for line in lines:
            if not line:
                self._finish(events)
            elif line.startswith(b"data:"):
                self._add(line[6:] if line.startswith(b"data: ") else line[5:])
            elif line == b"data":
                self._add(b"")
        return events

    def _add(self, value: bytes) -> None:
        self._data_bytes += len(value) + 1
        self._check(self._data_bytes)
        self._data.append(value)

    def _finish(self, events: list[str]) -> None:
        if self._data:
            # The standard asks for U+FFFD in place of bytes that are no UTF-8.
            events.append(b"\n".join(self._data).decode("utf-8", "replace"))
            self._data = []
            self._data_bytes = 0

    @staticmethod
    def _check(length: int) -> None:
        if length > MAX_EVENT_BYTES:
            raise GenerationFailed(f"the server sent an event longer than {MAX_EVENT_BYTES} bytes")
