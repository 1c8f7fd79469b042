"""What a listener needs of a backend, and nothing else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, runtime_checkable

import attrs
import trio

from .._background import open_background
from ..capability import Gpu, ModelOffer
from ..wire import CommandRequest, Completion, Timings, Usage

Emit = Callable[[str, int], Awaitable[None]]
"""``await emit(text, tokens)`` delivers the next part of an answer.

It waits while the reader is behind; a backend that awaits it is slowed down with it. An empty text
says that tokens were made which are no part of the answer: the model thinks.
"""

Loading = Callable[[float], None]
"""``loading(seconds)`` is told that the model is not ready yet, and how much longer it may take."""

# A waiting dialer is told so this often: it takes a longer silence for a fault.
LOADING_SECONDS = 5.0


@attrs.frozen(kw_only=True)
class Generation:
    """What a backend says of an answer it has finished."""

    completion: Completion
    """How it ended. `text` is the whole answer, also when it was emitted in parts."""

    usage: Usage
    """Tokens, as the backend itself counted them."""

    timings: Timings
    """`prefill` and `decode` seconds, as the backend itself measured them."""


class Backend(Protocol):
    """Runs a model. Made by an `open_*()` context manager, which also ends it.

    `generate` is called for at most `slots` requests at a time. Cancelling the task that
    awaits it stops the work in the backend within 100 ms.
    """

    @property
    def name(self) -> str:
        """The word that selects it, such as ``llama_cpp``."""
        ...

    @property
    def simulated(self) -> bool:
        """True if answers are made up."""
        ...

    @property
    def slots(self) -> int:
        """Requests it serves side by side, at least 1."""
        ...

    @property
    def threads(self) -> int | None:
        """Threads it computes with, where known."""
        ...

    @property
    def offers(self) -> tuple[ModelOffer, ...]:
        """The models it answers with, now. Rates are left out: the executor measures them."""
        ...

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """GPUs on the backend's own device list, where it has one."""
        ...

    async def ready(self, loading: Loading) -> None:
        """Return when it can work; calls *loading* at once and every 5 s while it cannot.

        Raises:
          BackendCrashed: if it is down for good.

        """
        ...

    async def generate(self, request: CommandRequest, emit: Emit) -> Generation:
        """Answer *request*, which was checked and is for a model on offer.

        Raises:
          InvalidRequest: if a parameter is wrong anywhere; the text names it.
          PeerRefused: if this backend cannot do it though another may; the text says what.
          ContextTooLong: if the prompt does not fit.
          GenerationFailed: if this answer failed but the backend lives.
          BackendCrashed: if the backend is gone. It may be back for the next call.

        """
        ...


@runtime_checkable
class Supervisable(Protocol):
    """A backend whose engine is started again when it ends: it says how often, and why."""

    @property
    def restarts(self) -> int:
        """How often its engine was started again."""
        ...

    @property
    def why_restarted(self) -> str | None:
        """Why its engine ended last, in a sentence; `None` if it never has."""
        ...


def with_continuation(offer: ModelOffer) -> ModelOffer:
    """*offer* of a backend that can go on with an answer that another peer has begun.

    For a chat that takes a known template: another one would write another prompt.
    """
    can = offer.chat_template is not None or "chat" not in offer.features
    return attrs.evolve(offer, continues=can and offer.features != frozenset({"embed"}))


async def say_while(work: Callable[[], Awaitable[None]], say: Callable[[], None]) -> None:
    """Await *work*; call *say* at once and every `LOADING_SECONDS` until it is done."""

    async def repeat() -> None:
        while True:
            say()
            await trio.sleep(LOADING_SECONDS)

    async with open_background() as nursery:
        nursery.start_soon(repeat)
        await work()
