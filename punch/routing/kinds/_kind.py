"""Says of one candidate where its model would run, whole or split, and whether it runs at all."""

from __future__ import annotations

import attrs

from ...peers import Candidate
from ..starts import Startable

HERE = "here"
"""This machine has the model whole."""

PEER = "peer"
"""Another machine has the model whole."""

SPLIT = "split"
"""The model runs over several machines."""

TO_START = "start"
"""Nobody runs the model in this way; it could be started."""

KINDS = (HERE, PEER, SPLIT, TO_START)
"""Every kind, in the order in which they are shown."""

_WORDS = {HERE: "this machine, whole", PEER: "a peer, whole"}


@attrs.frozen(kw_only=True)
class Kind:
    """The kind of one candidate, with what it takes before it can answer."""

    word: str
    """``here``, ``peer``, ``split`` or ``start``."""

    is_here: bool = False
    """Whether its listener is on this machine; of a split, the one that runs its head."""

    machines: int | None = None
    """Machines that hold a part of the model, the head's among them; `None` where that is not
    told."""

    is_plain: bool = False
    """Whether a machine of a split is reached by plain RPC, where nobody proves who it is."""

    load_seconds: float = 0.0
    """Seconds until its model is loaded; 0 if it is."""

    start_seconds: float | None = None
    """Seconds until it can answer, of what has to be started."""

    is_under_way: bool = False
    """Whether its start has begun."""

    def __str__(self) -> str:
        """The same in words, such as ``a peer, whole``."""
        if self.word in _WORDS:
            text = _WORDS[self.word]
        elif self.word == TO_START:
            text = f"{'is starting' if self.is_under_way else 'could be started'}"
            if self.start_seconds is not None:
                text += f" in {brief(self.start_seconds)}"
            text += ", whole" if self.machines == 1 else f", {self._split()}"
        else:
            text = f"{self._split()}{', run from this machine' if self.is_here else ''}"
        if self.load_seconds > 0:
            text += f", to be loaded in {brief(self.load_seconds)}"
        return text

    def _split(self) -> str:
        text = f"split over {self.machines or 'several'} machines"
        return f"{text}, one of them unauthenticated" if self.is_plain else text


def brief(seconds: float) -> str:
    """Some seconds, as exact as they are of interest."""
    return f"{seconds:.0f} s" if seconds >= 100 else f"{seconds:.3g} s"


def word_of(candidate: Candidate, start: Startable | None = None) -> str | None:
    """The word of its kind alone; see `kind_of`."""
    if not candidate.is_offered:
        return None
    if start is not None:
        return TO_START
    if candidate.offer.split:
        return SPLIT
    return HERE if candidate.peer.is_here else PEER


def kind_of(candidate: Candidate, start: Startable | None = None) -> Kind | None:
    """The kind of *candidate*; `None` if it offers nothing that was asked for.

    Args:
      candidate: One offer of a peer, as it is or as it would be.
      start: What would have to be started for it, if it does not run.

    """
    word = word_of(candidate, start)
    if word is None:
        return None
    is_here = candidate.peer.is_here
    if start is not None:
        workers = start.offer.workers
        is_known = workers > 0 or not start.offer.offer.split
        return Kind(
            word=word,
            is_here=is_here,
            machines=workers + 1 if is_known else None,
            is_plain=start.offer.offer.plain_rpc,
            start_seconds=start.seconds,
            is_under_way=start.is_under_way,
        )
    offer = candidate.offer
    return Kind(
        word=word,
        is_here=is_here,
        machines=offer.machines if offer.split else None,
        is_plain=offer.split and offer.plain_rpc,
        load_seconds=offer.load_seconds,
    )
