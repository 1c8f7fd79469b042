"""Peers of minor 0 that say what was recorded, when it is their turn, and keep what they hear.

They are played on today's network in memory. Heartbeats are the one thing that they answer by
themselves: a ping is answered with its own nonce.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import trio
from recorded.minor_zero import FrameReader, read, write

from punch.exceptions import PeerUnreachable

MEET = "/punch/meet/1"
SESSION = "/punch/session/1"

FOLDER = Path(__file__).parent / "c554520"
STORIES = sorted(path.stem for path in FOLDER.glob("*.json"))

# What the other side waits for: a frame that was recorded after such a one is said after it.
# Chunks, credits and adverts may fall otherwise into frames, and are counted by what they hold.
TURNS = frozenset({"hello", "request", "cancel", "join", "roster", "started", "response"})
HEARTBEATS = frozenset({"ping", "pong"})


@attrs.frozen(kw_only=True)
class Frame:
    """One frame of a recording."""

    stream: int
    """Its stream; numbers grow in the order in which streams were opened."""

    protocol: str
    """What is spoken on it."""

    sender: str
    """Peer that said it."""

    receiver: str
    """Peer it was said to."""

    at: float
    """Seconds since the story began."""

    raw: bytes
    """The frame with its length."""

    @property
    def message(self) -> dict[str, Any]:
        """What it says."""
        return read(self.raw[4:])


@attrs.frozen(kw_only=True)
class Story:
    """A recording."""

    name: str
    """Of its file."""

    outcomes: tuple[Mapping[str, Any], ...]
    """What callers of the dialers got, as they got it then."""

    frames: tuple[Frame, ...]
    """All that was said, in order."""

    def said(self, sender: str | None = None, **equal: Any) -> list[dict[str, Any]]:
        """What was said, without heartbeats; by *sender*, and with these fields of a frame."""
        return [
            frame.message
            for frame in self.frames
            if sender in (None, frame.sender)
            and all(getattr(frame, name) == value for name, value in equal.items())
            and frame.message["type"] not in HEARTBEATS
        ]

    @property
    def peers(self) -> list[str]:
        """Who was there, in the order in which they came, the bootstrap first."""
        return list(dict.fromkeys(["bootstrap", *(frame.sender for frame in self.frames)]))

    @property
    def listeners(self) -> list[str]:
        """Those whom a session was opened to."""
        hellos = {f.receiver for f in self.frames if f.protocol == SESSION and self._opens(f)}
        return [peer for peer in self.peers if peer in hellos]

    def _opens(self, frame: Frame) -> bool:
        return frame is next(other for other in self.frames if other.stream == frame.stream)

    def streams(self, protocol: str, *, of: str) -> list[int]:
        """The streams that were opened to *of*, or by it."""
        firsts = [f for f in self.frames if f.protocol == protocol and self._opens(f)]
        return [frame.stream for frame in firsts if of in (frame.sender, frame.receiver)]


def unpacked(text: str) -> bytes:
    """A frame as `record.py` writes it: in hexadecimal, or packed if it is long."""
    if text.startswith("zlib:"):
        return zlib.decompress(base64.b64decode(text.removeprefix("zlib:")))
    return bytes.fromhex(text)


def load(name: str) -> Story:
    """The recording of that name."""
    found = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    frames = tuple(
        Frame(
            stream=one["stream"],
            protocol=one["protocol"],
            sender=one["from"],
            receiver=one["to"],
            at=one["at"],
            raw=unpacked(one["frame"]),
        )
        for one in found["frames"]
    )
    return Story(name=name, outcomes=tuple(found["outcomes"]), frames=frames)


@attrs.define(eq=False)
class Heard:
    """What today's peer said on one stream, read as minor 0 reads."""

    messages: list[dict[str, Any]] = attrs.field(factory=list)
    """Without heartbeats."""

    ended: bool = False
    """Whether the stream is over."""

    changed: trio.Event = attrs.field(factory=trio.Event)
    """Set at each change, and then replaced."""

    def turns(self) -> int:
        """How often it was the other's turn."""
        return turns(self.messages)

    def text(self, request_id: str) -> str:
        """What was said of one answer."""
        return text_of(self.messages, request_id)

    async def until(self, ready: Callable[[], bool]) -> None:
        """Wait until *ready*, or the end of the stream."""
        while not ready() and not self.ended:
            await self.changed.wait()

    async def until_turns(self, count: int) -> None:
        """Wait until it was the other's turn *count* times, or until the end of the stream."""
        await self.until(lambda: self.turns() >= count)

    async def catches_up(self, then: Sequence[Mapping[str, Any]], request_id: str) -> None:
        """Wait until as much of an answer has been said as there is in *then*."""
        at_least = len(text_of(then, request_id))
        await self.until(lambda: len(self.text(request_id)) >= at_least)

    def tell(self) -> None:
        """Wake those that wait."""
        self.changed.set()
        self.changed = trio.Event()

    async def listen(self, stream: Any, *, most: int) -> None:
        """Read the stream to its end, and answer its pings."""
        reader = FrameReader(most=most)
        try:
            while data := await stream.receive_some():
                for message in reader.feed(data):
                    if message["type"] == "ping":
                        await stream.send_all(write({"type": "pong", "nonce": message["nonce"]}))
                    elif message["type"] != "pong":
                        self.messages.append(message)
                self.tell()
        except PeerUnreachable:
            pass
        finally:
            self.ended = True
            self.tell()


def turns(messages: Sequence[Mapping[str, Any]]) -> int:
    """How many of *messages* an answer may wait for."""
    return sum(message["type"] in TURNS for message in messages)


def text_of(messages: Sequence[Mapping[str, Any]], request_id: str) -> str:
    """The text of one answer in these messages."""
    return "".join(
        message["text"]
        for message in messages
        if message["type"] == "chunk" and message["request_id"] == request_id
    )


async def play(
    story: Story, number: int, us: str, stream: Any, heard: Heard, *, began: float
) -> None:
    """Say on one stream what *us* said there, each frame when today's peer has come as far.

    Nothing is said earlier than it was after the story *began*. Where the recording has no
    farewell, the stream breaks as it did then.
    """
    frames = [frame for frame in story.frames if frame.stream == number]
    theirs: list[dict[str, Any]] = []
    for frame in frames:
        message = frame.message
        if frame.sender != us:
            theirs.append(message)
            continue
        if message["type"] in HEARTBEATS:
            continue
        # In the order of the recording, too, where several were said at one instant.
        await trio.sleep_until(began + frame.at + 1e-7 * story.frames.index(frame))
        awaited = turns(theirs)
        await heard.until_turns(awaited)
        if message["type"] in ("cancel", "credit"):
            # What is acknowledged, or broken off, must have come as far as it had then.
            await heard.catches_up(theirs, message["request_id"])
        try:
            await stream.send_all(frame.raw)
        except PeerUnreachable:
            return
    await heard.until(lambda: heard.turns() >= turns(theirs))
    if any(frame.message["type"] == "goodbye" for frame in frames):
        await heard.until(lambda: False)
    for request_id in {one["request_id"] for one in theirs if one["type"] == "chunk"}:
        await heard.catches_up(theirs, request_id)
    await stream.aclose()


def part_of(expected: Any, actual: Any) -> bool:
    """Whether *actual* has all that *expected* has; maps may have more, and offers can do more."""
    if isinstance(expected, Mapping):
        return isinstance(actual, Mapping) and all(
            name in actual
            and (
                set(value) <= set(actual[name])
                if name == "features"
                else part_of(value, actual[name])
            )
            for name, value in expected.items()
        )
    if isinstance(expected, list):
        return (
            isinstance(actual, list)
            and len(actual) == len(expected)
            and all(map(part_of, expected, actual))
        )
    return bool(expected == actual)
