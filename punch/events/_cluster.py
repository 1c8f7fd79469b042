"""The events of a coordinator and of a worker: what becomes of a split, and of what is lent."""

from __future__ import annotations

import attrs

from ..capability import PeerId
from ._event import Lifecycle


@attrs.frozen(kw_only=True)
class HeldLayers:
    """What one device of a split holds."""

    worker: str
    """Who holds it; empty for the head itself."""

    device: str
    """The device's name in the plan."""

    first: int
    """Number of its first layer, from 0."""

    layers: int
    """How many layers it holds, one after the other."""

    bytes: int
    """What they take, weights and context."""

    token_bytes: int = 0
    """Bytes that go over the link to it, both ways, for each token of an answer, as planned."""


@attrs.frozen(kw_only=True)
class CoordinatorStarted(Lifecycle):
    """A coordinator begins with a model: nothing is planned yet."""

    split: str
    """Names the split in this process."""

    model: str
    """Name of the model."""

    workers: tuple[str, ...] = ()
    """Who might lend to it."""


@attrs.frozen(kw_only=True)
class PlanChanged(Lifecycle):
    """A split has a plan, its first or another one than before."""

    split: str
    """The split."""

    model: str
    """Name of the model."""

    layers: tuple[HeldLayers, ...]
    """Who holds what, in the order in which a token passes them."""

    output_on_head: bool
    """Whether the head itself computes the last matrix."""

    decode_rate: float | None = None
    """Tokens a second of one answer, as predicted."""

    first_token: float | None = None
    """Seconds to the first token of a usual prompt, as predicted."""

    left_out: tuple[str, ...] = ()
    """Who is not in it, each with the reason: ``b: it lends nothing now``."""


@attrs.frozen(kw_only=True)
class SplitLoading(Lifecycle):
    """A split loads its model."""

    split: str
    """The split."""

    model: str
    """Name of the model."""

    progress: float
    """How much of what its workers are to hold was sent to them, 0 to 1, as counted on the way."""


@attrs.frozen(kw_only=True)
class SplitReady(Lifecycle):
    """A split has made a token with all workers of its plan, and takes requests."""

    split: str
    """The split."""

    model: str
    """Name of the model."""

    seconds: float
    """How long that took, from the plan on."""

    starts: int = 1
    """Times that it was started, this time included."""


@attrs.frozen(kw_only=True)
class SplitFailed(Lifecycle):
    """A split does not start, or crashes again and again: no request waits for it.

    After a crash loop it is tried again, more and more seldom; `SplitReady` tells if that helps.
    """

    split: str
    """The split."""

    model: str
    """Name of the model."""

    why: str
    """How its head ended last, or why there was none, in a sentence."""

    starts: int
    """Times that it was started."""


@attrs.frozen(kw_only=True)
class WorkerConnected(Lifecycle):
    """A worker of the plan holds its layers: bytes went there, and a token came of them."""

    split: str
    """The split."""

    worker: str
    """The worker."""

    bytes: int
    """Bytes that it was sent while the model was loaded."""


@attrs.frozen(kw_only=True)
class WorkerLost(Lifecycle):
    """A worker of a running split is gone; the split is planned anew without it."""

    split: str
    """The split."""

    worker: str
    """The worker."""

    why: str
    """How that was seen, in a sentence."""


@attrs.frozen(kw_only=True)
class LeaseTaken(Lifecycle):
    """A worker lends its memory to a split."""

    split: str
    """The split."""

    worker: str
    """The worker."""

    devices: tuple[str, ...] = ()
    """What it lends."""

    bytes: int = 0
    """How much of it, in bytes."""


@attrs.frozen(kw_only=True)
class LeaseEnded(Lifecycle):
    """A worker lends nothing to a split any more."""

    split: str
    """The split."""

    worker: str
    """The worker."""

    why: str
    """Why, in a sentence."""


# ---- a worker's ----


@attrs.frozen(kw_only=True)
class MemoryLent(Lifecycle):
    """A worker lends memory: a borrower has its lease."""

    lease: str
    """The lease, as it is called on both sides."""

    borrower: PeerId
    """Who has it."""

    devices: tuple[str, ...] = ()
    """What is lent."""

    bytes: int = 0
    """How much of it, in bytes."""


@attrs.frozen(kw_only=True)
class MemoryReturned(Lifecycle):
    """A borrower has the lease no more, and its server is gone, with all that was in it."""

    lease: str
    """The lease."""

    borrower: PeerId
    """Who had it."""

    why: str
    """What ended it, in one word: ``end`` for the borrower itself."""

    reason: str = ""
    """The same in a sentence, where one was said."""
