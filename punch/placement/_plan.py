"""Which device holds which layers: the outcome of planning, which explains itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from ._prediction import Prediction
from ._settings import Guesses, Speculation
from ._wants import HEAD, HEAD_CPU, Solo


@attrs.frozen(kw_only=True)
class Share:
    """What one device holds."""

    device: str
    """Its id."""

    holder: str = HEAD
    """The peer whose device it is; `HEAD` for the head's own."""

    layers: range
    """Blocks of layers, without a gap."""

    weights: int
    """Bytes of weights, those of the output among them where it `has_output`."""

    kv: int
    """Bytes for the contexts of all slots."""

    memory: int = 0
    """Bytes in all, at most: those, buffers, and the message of the largest tensor."""

    has_output: bool = False
    """Whether it turns the last layer into logits."""

    @property
    def is_remote(self) -> bool:
        """Whether it is a worker's."""
        return self.holder != HEAD

    @property
    def is_head_cpu(self) -> bool:
        """Whether it is the head's processor, which is in no ``--device`` list."""
        return self.holder == HEAD and self.device == HEAD_CPU

    def as_dict(self) -> dict[str, Any]:
        """Plain data for logs and JSON."""
        return {
            "device": self.device,
            "holder": self.holder,
            "layers": [self.layers.start, self.layers.stop],
            "weights": self.weights,
            "kv": self.kv,
            "memory": self.memory,
            "has_output": self.has_output,
        }


@attrs.frozen(kw_only=True)
class Considered:
    """One way to run the model that was looked at."""

    devices: tuple[str, ...]
    """Ids of its devices in their order, or the peer that has the model whole."""

    layers: tuple[int, ...] = ()
    """How many each holds; empty where none were given out."""

    seconds: float | None = None
    """Seconds for the mix; `None` where it cannot be had."""

    token: float | None = None
    """Seconds for one token."""

    terms: Mapping[str, float] = attrs.field(factory=dict)
    """Term to seconds; they add up to `seconds`."""

    removed_by: str | None = None
    """The word of the rule that removed it; `None` for the plan itself."""

    reason: str | None = None
    """That rule's reason, in a sentence."""

    is_solo: bool = False
    """Whether it is a peer that has the model whole."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data for logs and JSON."""
        found: dict[str, Any] = {"devices": list(self.devices)}
        if self.is_solo:
            found["is_solo"] = True
        if self.layers:
            found["layers"] = list(self.layers)
        if self.seconds is not None:
            found |= {"seconds": self.seconds, "token": self.token, "terms": dict(self.terms)}
        if self.removed_by is not None:
            found |= {"removed_by": self.removed_by, "reason": self.reason}
        return found


@attrs.frozen(kw_only=True)
class Plan:
    """How the model will run."""

    shares: tuple[Share, ...]
    """In the order of ``--device``; the head's processor, where it holds layers, is the first."""

    output_on_head: bool
    """Whether the head's processor turns the last layer into logits (``-ot``)."""

    is_tied: bool
    """Whether the output is the token matrix, so that ``-ot`` names that one."""

    micro_batch: int
    """Tokens of a prompt that go through the devices together (``-ub``)."""

    slots: int
    """Requests that are served at once (``-np``)."""

    context_tokens: int
    """Context of each slot, in tokens."""

    speculation: Speculation | None
    """How the head guesses tokens; `None`: not at all."""

    prediction: Prediction
    """How fast that will be."""

    considered: tuple[Considered, ...] = attrs.field(default=(), repr=False)
    """What was looked at, the plan itself first, then the best of what was not taken."""

    left_out: int = 0
    """Further ones that are not spelled out."""

    @property
    def workers(self) -> tuple[str, ...]:
        """The peers that hold layers, in the order of their first ones."""
        return tuple(dict.fromkeys(one.holder for one in self.shares if one.is_remote))

    @property
    def is_split(self) -> bool:
        """Whether a worker holds any."""
        return bool(self.workers)

    @property
    def listed(self) -> tuple[Share, ...]:
        """The shares of ``--device``."""
        return tuple(one for one in self.shares if not one.is_head_cpu)

    @property
    def tensor_split(self) -> tuple[int, ...]:
        """For ``--tensor-split``: layers of each listed device, and one more for the last.

        llama.cpp counts the output as a layer of the last device, wherever ``-ot`` puts it.
        """
        counts = [len(one.layers) for one in self.listed]
        if counts:
            counts[-1] += 1
        return tuple(counts)

    @property
    def gpu_layers(self) -> int:
        """For ``-ngl``: layers that are not left to the head's processor, and the output."""
        return sum(self.tensor_split)

    def judged(self, guesses: Guesses) -> Plan:
        """The same without speculation, if that cost more than it earned in earlier answers."""
        if self.speculation is None or guesses.pay(self.prediction):
            return self
        return attrs.evolve(self, speculation=None, prediction=self.prediction.without_guessing())

    def as_dict(self, *, candidates: int = 8) -> dict[str, Any]:
        """Plain data for logs and JSON, with at most *candidates* of those considered."""
        kept = self.considered[:candidates]
        return {
            "shares": [one.as_dict() for one in self.shares],
            "output_on_head": self.output_on_head,
            "micro_batch": self.micro_batch,
            "slots": self.slots,
            "context_tokens": self.context_tokens,
            "speculation": None if self.speculation is None else str(self.speculation),
            "prediction": self.prediction.as_dict(),
            "considered": [one.as_dict() for one in kept],
            "left_out": self.left_out + len(self.considered) - len(kept),
        }


@attrs.frozen(kw_only=True)
class Refused:
    """Why there is no plan, with the numbers."""

    word: str
    """``solo_is_faster``, ``does_not_fit``, ``too_few_workers``, ``no_device`` or ``bad_split``."""

    reason: str
    """The same in a sentence, with its numbers."""

    split_seconds: float | None = None
    """Seconds of the best split for the mix, where one was found."""

    solo_seconds: float | None = None
    """Seconds of the best peer that has the model whole."""

    solo: Solo | None = None
    """That peer."""

    needed: int | None = None
    """What is needed: bytes for ``does_not_fit``, workers for ``too_few_workers``."""

    had: int | None = None
    """What there is."""

    considered: tuple[Considered, ...] = attrs.field(default=(), repr=False)
    """What was looked at, best first."""

    left_out: int = 0
    """Further ones that are not spelled out."""

    def as_dict(self, *, candidates: int = 8) -> dict[str, Any]:
        """Plain data for logs and JSON, with at most *candidates* of those considered."""
        kept = self.considered[:candidates]
        return {
            "refused": self.word,
            "reason": self.reason,
            "split_seconds": self.split_seconds,
            "solo_seconds": self.solo_seconds,
            "solo": None if self.solo is None else self.solo.peer,
            "needed": self.needed,
            "had": self.had,
            "considered": [one.as_dict() for one in kept],
            "left_out": self.left_out + len(self.considered) - len(kept),
        }
