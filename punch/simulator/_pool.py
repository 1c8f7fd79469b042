"""The machines of a simulated swarm, and the text form in which they are given.

- ``1:4:10``, or ``1 4 10``: three machines, four and ten times as fast as the first. Machines may
  be alike, as in ``1 1 1 5.6``: each is named by a letter and its speed.
- ``home``: one strong machine with a GPU, two middling ones, three weak ones, of which one comes
  and goes.
- ``fast=10,slots=8 slow=1,slots=2,up=60,down=30``: each machine by its name and speed, and what
  differs from the defaults: ``slots``, ``prefill``, ``decode`` (tokens a second, in place of the
  speed), ``slowdown``, ``cache`` (tokens), ``delay`` (seconds), ``load`` (seconds), ``up``,
  ``down`` (mean seconds), ``fail`` (share of requests).
- ``good=4 bad=4,kind=silent,mended=120``: a machine that does not do what it should, until it is
  mended (seconds from the first request; never, if that is left out). ``claims`` is what it
  multiplies its speed by when it speaks of it, ``dies`` the tokens of a prompt that kills its
  engine. The kinds are those of `KINDS`.
- ``solo=0.2 warm=1,workers=2 cold=1,workers=3,start=30``: a model that is split over other
  machines, ``workers``; and one that nobody runs until a request is worth its start (seconds).
- ``1000x1,slots=4``: many machines of a kind.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from ..exceptions import ConfigurationError
from ._kinds import BOAST, BOASTING, FRAGILE, KINDS, LONG_PROMPT_TOKENS

# A machine of speed 1: a good laptop with a model of a thousand million parameters.
PREFILL_RATE = 1000.0
DECODE_RATE = 50.0

# Several small models' contexts of 8192 tokens, one for each slot of four.
CACHE_TOKENS = 32_768

# What the bootstrap takes in one namespace, dialers included.
MAX_PEERS = 1000


@attrs.frozen(kw_only=True)
class PoolPeer:
    """A machine of a simulated swarm."""

    name: str
    """The peer id."""

    prefill_rate: float = PREFILL_RATE
    """Prompt tokens read per second, one prompt at a time."""

    decode_rate: float = DECODE_RATE
    """Answer tokens per second of one request alone."""

    slowdown: float = 0.3
    """How much longer a token takes for each further request in the batch, as a share."""

    slots: int = 4
    """Requests at a time."""

    cache_tokens: int = CACHE_TOKENS
    """Tokens of prompts that the prefix cache holds."""

    delay: float = 0.0
    """Seconds that bytes take to the machine, beyond those of the network."""

    load_seconds: float = 0.0
    """Seconds that a request waits for the model to be loaded."""

    up_seconds: float = 0.0
    """Mean seconds that the machine stays up; 0 is for ever."""

    down_seconds: float = 0.0
    """Mean seconds that the machine is down."""

    failing: float = 0.0
    """Share of the requests that fail when their first text is due."""

    workers: int = 0
    """Other machines that the model is split over."""

    start_seconds: float = 0.0
    """Seconds that a start takes of what nobody runs at first; 0 for what runs."""

    kind: str = ""
    """What is wrong with the machine, one of `KINDS`; nothing if all is well."""

    mended_at: float = math.inf
    """When the machine is as it should be, in seconds from the first request."""

    claims: float = 1.0
    """What the machine multiplies its speeds by when it speaks of them."""

    dies_of_tokens: int = LONG_PROMPT_TOKENS
    """Tokens of the shortest prompt that kills the engine of a fragile machine."""

    @property
    def presence(self) -> float:
        """Share of the time that the machine is up."""
        if not self.up_seconds:
            return 1.0
        return self.up_seconds / (self.up_seconds + self.down_seconds)

    def requests_per_second(self, *, input_tokens: float, output_tokens: float) -> float:
        """Requests of this length a second that it completes at full batches, with an empty cache.

        ::

            1 / (reading + writing / slots)
            reading = input / prefill rate
            writing = output * (1 + slowdown * (slots - 1)) / decode rate

        A prompt has the machine to itself; answers are written side by side.
        """
        reading = input_tokens / self.prefill_rate
        writing = output_tokens * (1 + self.slowdown * (self.slots - 1)) / self.decode_rate
        return self.presence / (reading + writing / self.slots)


@attrs.frozen(kw_only=True)
class Pool:
    """The machines of a simulated swarm."""

    name: str
    """The text that described the pool."""

    peers: tuple[PoolPeer, ...]
    """The machines, at least one."""

    @property
    def unwell(self) -> tuple[PoolPeer, ...]:
        """The machines that do not do what they should."""
        return tuple(peer for peer in self.peers if peer.kind)

    def well(self) -> Pool:
        """The pool without these; all of it if there are no others."""
        well = tuple(peer for peer in self.peers if not peer.kind)
        return attrs.evolve(self, peers=well or self.peers)

    def requests_per_second(self, *, input_tokens: float, output_tokens: float) -> float:
        """Requests a second of all machines together that do what they should.

        See `PoolPeer.requests_per_second`.
        """
        return sum(
            peer.requests_per_second(input_tokens=input_tokens, output_tokens=output_tokens)
            for peer in self.well().peers
        )


def of_speed(name: str, speed: float, **fields: Any) -> PoolPeer:
    """A machine *speed* times as fast as one of speed 1."""
    return PoolPeer(
        name=name, prefill_rate=PREFILL_RATE * speed, decode_rate=DECODE_RATE * speed, **fields
    )


HOME = (
    of_speed("strong", 10.0, slots=8, slowdown=0.1, cache_tokens=65_536, delay=0.002),
    of_speed("middling-1", 4.0, slowdown=0.2, delay=0.002),
    of_speed("middling-2", 3.0, slowdown=0.2, delay=0.005),
    of_speed("weak-1", 1.0, slots=2, slowdown=0.5, cache_tokens=16_384, delay=0.005),
    of_speed("weak-2", 0.7, slots=2, slowdown=0.5, cache_tokens=16_384, delay=0.01),
    of_speed(
        "weak-3",
        1.0,
        slots=2,
        slowdown=0.5,
        cache_tokens=16_384,
        delay=0.02,
        up_seconds=40.0,
        down_seconds=20.0,
    ),
)


def _at_least(least: float, kind: Callable[[str], Any] = float) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            raise ValueError("it must be a number") from None
        if not least <= value < float("inf"):
            raise ValueError(f"it must be {least:g} or more")
        return value

    return convert


def _kind(text: str) -> str:
    if text not in KINDS:
        raise ValueError(f"it must be one of {', '.join(KINDS)}")
    return text


# How a field is written: its name in `PoolPeer`, and what reads it.
_FIELDS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "slots": ("slots", _at_least(1, int)),
    "prefill": ("prefill_rate", _at_least(0.001)),
    "decode": ("decode_rate", _at_least(0.001)),
    "slowdown": ("slowdown", _at_least(0)),
    "cache": ("cache_tokens", _at_least(0, int)),
    "delay": ("delay", _at_least(0)),
    "load": ("load_seconds", _at_least(0)),
    "up": ("up_seconds", _at_least(0)),
    "down": ("down_seconds", _at_least(0)),
    "fail": ("failing", _at_least(0)),
    "workers": ("workers", _at_least(0, int)),
    "start": ("start_seconds", _at_least(0)),
    "kind": ("kind", _kind),
    "mended": ("mended_at", _at_least(0)),
    "claims": ("claims", _at_least(0.001)),
    "dies": ("dies_of_tokens", _at_least(1, int)),
}

_SPEEDS = re.compile(r"[0-9.]+(:[0-9.]+)*")
_MANY = re.compile(r"(?P<count>[0-9]+)x(?P<speed>[0-9.]+)")
_NAMED = re.compile(r"(?P<name>[A-Za-z][A-Za-z0-9_.-]{0,63})=(?P<speed>[0-9.]+)")


def parse_pool(text: str) -> Pool:
    """The pool that *text* describes; see the module.

    Raises:
      ConfigurationError: naming the part, the rule and how to write it.

    """
    names = _Names(text)
    peers: list[PoolPeer] = []
    for word in text.split():
        if word == "home":
            peers += [attrs.evolve(peer, name=names.like(peer.name)) for peer in HOME]
        else:
            head, *rest = word.split(",")
            peers += _described(word, head, _fields(word, rest), names)
    if not peers:
        raise ConfigurationError("--peers is empty: write 1:4:10, home, or NAME=SPEED,slots=4 ...")
    if len(peers) >= MAX_PEERS:
        raise ConfigurationError(
            f"--peers has {len(peers)} peers; a namespace takes {MAX_PEERS} with its dialers: "
            f"write at most {MAX_PEERS - 1}"
        )
    return Pool(name=text, peers=tuple(peers))


class _Names:
    """Names the machines of a pool, each by a name of its own.

    A name that the text gives is kept; the others step aside.

    Args:
      text: The whole text of the pool.

    Raises:
      ConfigurationError: if the text gives two machines the same name.

    """

    def __init__(self, text: str) -> None:
        heads = [word.split(",")[0] for word in text.split()]
        given = Counter(named["name"] for head in heads if (named := _NAMED.fullmatch(head)))
        for name, times in given.items():
            if times > 1:
                raise ConfigurationError(f"--peers names {name!r} twice: give each its own name")
        self._taken = set(given)
        self._speeds = itertools.count()
        self._numbers = itertools.count()

    def of_speed(self, speed: float) -> str:
        """The next letter with a *speed*: ``a-x1``."""
        number = next(self._speeds)
        letter = chr(ord("a") + number) if number < 26 else f"peer-{number}"
        return self.like(f"{letter}-x{speed:g}")

    def of_many(self) -> str:
        """The next number: ``peer-000``."""
        return self.like(f"peer-{next(self._numbers):03d}")

    def like(self, wanted: str) -> str:
        """The name *wanted*, or one with a number behind it if another machine has that."""
        name, number = wanted, 2
        while name in self._taken:
            name, number = f"{wanted}-{number}", number + 1
        self._taken.add(name)
        return name


def _fields(word: str, parts: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in parts:
        key, equals, text = part.partition("=")
        if not equals or key not in _FIELDS:
            raise ConfigurationError(
                f"--peers: {part!r} in {word!r} is not known: write one of "
                f"{', '.join(map(_written, _FIELDS))}"
            )
        name, convert = _FIELDS[key]
        try:
            found[name] = convert(text)
        except ValueError as error:
            raise ConfigurationError(f"--peers: {key} in {word!r} is {text!r}: {error}") from None
    if found.get("failing", 0.0) > 1:
        raise ConfigurationError(f"--peers: fail in {word!r} is a share: it must be from 0 to 1")
    if "mended_at" in found and "kind" not in found:
        raise ConfigurationError(f"--peers: {word!r} is mended and has no kind: add kind=silent")
    if "dies_of_tokens" in found and found.get("kind") != FRAGILE:
        raise ConfigurationError(f"--peers: dies in {word!r} is for kind={FRAGILE} only")
    if found.get("kind") == BOASTING:
        found.setdefault("claims", BOAST)
    if bool(found.get("up_seconds")) != bool(found.get("down_seconds")):
        raise ConfigurationError(f"--peers: {word!r} needs both up and down, or neither")
    return found


def _written(name: str) -> str:
    return f"{name}=KIND" if name == "kind" else f"{name}=NUMBER"


def _described(word: str, head: str, fields: dict[str, Any], names: _Names) -> list[PoolPeer]:
    if many := _MANY.fullmatch(head):
        count, speed = int(many["count"]), _speed(word, many["speed"])
        # Checked before they are made: the text may say a million.
        if count >= MAX_PEERS:
            raise ConfigurationError(f"--peers: {word!r} is too many: at most {MAX_PEERS - 1}")
        return [_peer(names.of_many(), speed, fields) for _ in range(count)]
    if named := _NAMED.fullmatch(head):
        return [_peer(named["name"], _speed(word, named["speed"]), fields)]
    if _SPEEDS.fullmatch(head):
        speeds = [_speed(word, part) for part in head.split(":")]
        return [_peer(names.of_speed(speed), speed, fields) for speed in speeds]
    raise ConfigurationError(
        f"--peers: {word!r} describes no machine: write speeds such as 1:4:10, many such as "
        "100x1, home, or NAME=SPEED, each with ,slots=4 and so on"
    )


def _speed(word: str, text: str) -> float:
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        raise ConfigurationError(f"--peers: the speed {text!r} in {word!r} must be above 0")
    return speed


def _peer(name: str, speed: float, fields: dict[str, Any]) -> PoolPeer:
    return attrs.evolve(of_speed(name, speed), **fields)
