"""How fast a plan will be: a value that says where each second goes."""

from __future__ import annotations

from collections.abc import Mapping

import attrs


@attrs.frozen(kw_only=True)
class Parts:
    """Where the seconds of one formula go."""

    compute: float = 0.0
    """Seconds in which devices compute; of a load: until the head asks for the first worker."""

    waits: float = 0.0
    """Seconds of round trips."""

    traffic: float = 0.0
    """Seconds of bytes on links, logits left out."""

    logits: float = 0.0
    """Seconds in which the logits come back from the last worker; 0 with the output on the head."""

    @property
    def total(self) -> float:
        """Their sum in seconds."""
        return self.compute + self.waits + self.traffic + self.logits

    def times(self, factor: float) -> Parts:
        """Each of them so many times."""
        return Parts(
            compute=self.compute * factor,
            waits=self.waits * factor,
            traffic=self.traffic * factor,
            logits=self.logits * factor,
        )

    def as_dict(self) -> dict[str, float]:
        """Name to seconds."""
        return {
            "compute": self.compute,
            "waits": self.waits,
            "traffic": self.traffic,
            "logits": self.logits,
        }


@attrs.frozen(kw_only=True)
class DeviceTime:
    """What one device of a plan takes."""

    device: str
    """Its id."""

    token: Parts
    """Seconds for one token of an answer."""

    micro_batch: Parts
    """Seconds for one micro-batch of a prompt."""

    up_bytes: int
    """Bytes that go there for each token."""

    down_bytes: int
    """Bytes that come back for each token."""


@attrs.frozen(kw_only=True)
class Prediction:
    """What a plan is worth, in seconds."""

    token: float
    """Seconds for one token of one answer, without speculation: `token_parts`."""

    first_token: float
    """Seconds from a prompt of the mix to the first token of its answer: `prompt_parts`."""

    prompt_rate: float
    """Tokens of such a prompt a second."""

    load: float
    """Seconds until it can be asked: `load_parts`."""

    seconds: float
    """Seconds for the mix, to the end of its last answer, without `load`: the sum of `terms`."""

    terms: Mapping[str, float]
    """Where those go, by name."""

    step: float
    """Seconds for one token of each of the answers that are made at once."""

    gain: float = 1.0
    """So many times as many tokens as without speculation, in plain text."""

    guess: float = 0.0
    """Seconds that each guessed token adds to a step; 0 without speculation."""

    token_parts: Parts
    """Where the seconds of a token go."""

    prompt_parts: Parts
    """Where the seconds to the first token go."""

    load_parts: Parts
    """Where the seconds of loading go."""

    devices: tuple[DeviceTime, ...] = ()
    """What each device takes, in their order."""

    @property
    def decode_rate(self) -> float:
        """Tokens of one answer a second."""
        return self.gain / self.token

    def without_guessing(self) -> Prediction:
        """What the same plan is worth without speculation."""
        terms = {**self.terms, "speculation": 0.0}
        return attrs.evolve(self, terms=terms, seconds=sum(terms.values()), gain=1.0, guess=0.0)

    def as_dict(self) -> dict[str, float]:
        """Plain data for logs and JSON, in seconds and tokens a second."""
        return {
            "token": self.token,
            "first_token": self.first_token,
            "prompt_rate": self.prompt_rate,
            "decode_rate": self.decode_rate,
            "load": self.load,
            "seconds": self.seconds,
            "gain": self.gain,
        }
