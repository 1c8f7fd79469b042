"""What a plan is made for and of: devices, links, the mix of work, and what the user wishes."""

from __future__ import annotations

import math

import attrs
from attrs.validators import ge, gt, in_

from ..peers import DEFAULT_SLOWDOWN

HEAD = ""
"""The holder of the head's own devices."""

HEAD_CPU = "CPU"
"""llama.cpp's name for the processor of the machine that it runs on."""


@attrs.frozen(kw_only=True)
class Link:
    """The way from the head to a worker, as it was measured."""

    rtt: float = attrs.field(validator=ge(0.0))
    """Seconds there and back for a few bytes."""

    rate: float = attrs.field(validator=gt(0.0))
    """Bytes a second."""

    carrier: str = attrs.field(default="direct", validator=in_(("direct", "stream")))
    """``direct`` (TLS of its own) or ``stream`` (over libp2p); for people only, since `rtt` and
    `rate` were measured over it."""


@attrs.frozen(kw_only=True)
class Device:
    """Something that can hold layers and compute them."""

    id: str
    """Its name, which no other device of the plan has."""

    holder: str
    """The peer whose device it is; `HEAD` for the head's own."""

    memory: int = attrs.field(validator=ge(0))
    """Bytes that may be used."""

    bandwidth: float = attrs.field(validator=gt(0.0))
    """Bytes of weights that it goes through a second while it makes an answer."""

    compute: float = attrs.field(validator=gt(0.0))
    """Multiply-adds a second while it reads a prompt."""

    link: Link | None = None
    """The way there; `None` for the head's own."""

    def __attrs_post_init__(self) -> None:
        if (self.holder == HEAD) is not (self.link is None):
            raise ValueError(f"{self.id}: a worker's device has a link, the head's own has none")

    @property
    def is_remote(self) -> bool:
        """Whether it is a worker's."""
        return self.holder != HEAD

    @property
    def is_head_cpu(self) -> bool:
        """Whether it is the head's processor, which is in no ``--device`` list.

        It holds the embeddings always, and the first layers where ``-ngl`` leaves some.
        """
        return self.holder == HEAD and self.id == HEAD_CPU


@attrs.frozen(kw_only=True)
class Mix:
    """The usual request."""

    prompt_tokens: int = attrs.field(default=512, validator=ge(0))
    """Tokens of the prompt that are in no cache."""

    answer_tokens: int = attrs.field(default=128, validator=ge(0))
    """Tokens of the answer."""

    concurrent: int = attrs.field(default=1, validator=ge(1))
    """Requests at the same time."""

    @property
    def context_tokens(self) -> int:
        """How long the text is at its middle, which is what layers look back at, on the average."""
        return self.prompt_tokens + self.answer_tokens // 2


@attrs.frozen(kw_only=True)
class Wants:
    """What the user wants of a plan."""

    context_tokens: int = attrs.field(default=4096, validator=ge(1))
    """Context of each slot, in tokens."""

    slots: int | None = attrs.field(default=None)
    """Requests that are served at once; `None`: as the formulas say for the mix."""

    mix: Mix = Mix()
    """The usual request."""

    key_type: str = "F16"
    """How keys are kept, in llama.cpp's word."""

    value_type: str = "F16"
    """How values are kept."""

    is_forced: bool = False
    """Split even where a peer alone is faster, be it the head itself; a head without workers that
    can hold layers runs the model alone."""

    min_workers: int = attrs.field(default=0, validator=ge(0))
    """At least so many workers hold layers."""

    tensor_split: tuple[float, ...] | None = attrs.field(default=None)
    """Shares of the layers, one for each device that may be used, in their order; 0: none."""

    exclude: frozenset[str] = frozenset()
    """Peers and devices that hold nothing."""

    device: frozenset[str] | None = None
    """Devices, or the peers that have them, of which alone may be used; `None`: all."""

    may_speculate: bool = True
    """Whether n-gram speculation may be turned on where it hides more than it costs."""

    @slots.validator
    def _check_slots(self, _: object, value: int | None) -> None:
        if value is not None and value < 1:
            raise ValueError(f"slots is {value}; it must be 1 or more, or None")

    @tensor_split.validator
    def _check_split(self, _: object, value: tuple[float, ...] | None) -> None:
        if value is not None and (min(value, default=0.0) < 0.0 or not sum(value) > 0.0):
            raise ValueError(f"tensor_split is {value}; shares are 0 or more, and one is above 0")

    def allows(self, device: Device) -> bool:
        """Whether layers may lie on *device*."""
        names = {device.id, device.holder} - {HEAD}
        return not names & self.exclude and (self.device is None or bool(names & self.device))


@attrs.frozen(kw_only=True)
class Solo:
    """A peer that has the model whole and could serve the mix alone."""

    peer: str
    """Which peer."""

    decode_rate: float = attrs.field(validator=gt(0.0))
    """Tokens of an answer a second."""

    prefill_rate: float = attrs.field(validator=gt(0.0))
    """Tokens of a prompt a second."""

    wait: float = attrs.field(default=0.0, validator=ge(0.0))
    """Seconds until it begins: queue, loading, the way there."""

    slots: int | None = None
    """Requests that it serves at once; `None`: as many as come."""

    slowdown: float = attrs.field(default=DEFAULT_SLOWDOWN, validator=ge(0.0))
    """By how much of its time each further request at once slows a token down."""

    def seconds(self, mix: Mix) -> float:
        """Seconds to the end of the last answer of the mix: the sum of `terms`."""
        return sum(self.terms(mix).values())

    def terms(self, mix: Mix) -> dict[str, float]:
        """Where those go, by name."""
        at_once = min(self.slots or mix.concurrent, mix.concurrent)
        waves = math.ceil(mix.concurrent / at_once)
        batch = 1.0 + self.slowdown * (at_once - 1)
        return {
            "wait": self.wait,
            "prompt": waves * at_once * mix.prompt_tokens / self.prefill_rate,
            "answer": waves * mix.answer_tokens * batch / self.decode_rate,
        }
