"""The interface between a lane and a backend: what is asked of one, and what it gives back.

A backend runs one engine. It knows nothing of peers, queues and slots that are shared out: the
lane calls `Backend.generate` for no more than `Backend.slots` requests at a time. What an answer
claims of itself is not believed before `plausible` has looked at it.
"""

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

The call waits while the reader is behind, which slows the backend down with it: text is buffered
nowhere else. A `Thought` in the place of a text is what the model thinks, which is no part of the
answer. An empty text says that tokens were made which nobody will read, and a `PromptCount`, before
any text, how many the prompt has.

No other task has its turn in a call that need not wait: an engine whose next token is waited for
gives them one, and a backend that waits for nothing must.
"""

Loading = Callable[[float], None]
"""``loading(seconds)`` reports that the model is not ready yet, and how many seconds are left."""

# How often a waiting dialer hears that the model is still loading. Silence is what a dialer takes
# for a fault, so this is well below its patience.
LOADING_SECONDS = 5.0


@attrs.frozen(kw_only=True)
class Generation:
    """What a backend says of an answer it has finished."""

    completion: Completion
    """The answer and why it ended. `text` is all of it, although it was emitted in parts."""

    usage: Usage = attrs.field(factory=Usage)
    """Tokens, as the backend itself counted them; a count that it does not give is `None`."""

    timings: Timings = attrs.field(factory=Timings)
    """`prefill` and `decode` in seconds, as the backend itself measured them."""

    guesses: tuple[int, int] = (0, 0)
    """Tokens that the engine guessed and then checked together, and those of them that were right;
    zeros if it says nothing of that."""


class Backend(Protocol):
    """Runs models. Made by an `open_*()` context manager, which also ends the engine.

    `generate` is called for at most `slots` requests at a time. Cancelling the task that awaits
    `generate` stops the work in the engine within 100 ms: the slot is given to the next request
    at once.
    """

    @property
    def name(self) -> str:
        """The word that selects this backend, such as ``llama_cpp``."""
        ...

    @property
    def simulated(self) -> bool:
        """True if answers are made up."""
        ...

    @property
    def slots(self) -> int:
        """Requests that the backend serves side by side, at least 1."""
        ...

    @property
    def threads(self) -> int | None:
        """Threads that the engine computes with; `None` if that is not known."""
        ...

    @property
    def offers(self) -> tuple[ModelOffer, ...]:
        """The models that can be asked now; empty while there are none.

        Rates are left out, since the lane measures them.
        """
        ...

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """GPUs on the backend's own device list, where it has one."""
        ...

    async def ready(self, loading: Loading) -> None:
        """Return when the engine can work; call *loading* at once and every 5 s until then.

        Raises:
          BackendCrashed: if the engine is down for good.

        """
        ...

    async def generate(self, request: CommandRequest, emit: Emit) -> Generation:
        """Answer *request*, which was checked and is for a model on offer.

        It names the model, unless the backend has one alone and is not `Adopted`.

        The errors say whose fault it is, which decides what the dialer does next.

        Raises:
          InvalidRequest: if a parameter would be wrong for any backend; the text names it.
          PeerRefused: if this backend cannot do what is asked although another may; the text
            says what.
          ContextTooLong: if the prompt does not fit the context of a slot.
          GenerationFailed: if this answer failed but the engine lives.
          BackendCrashed: if the engine is gone; it may be back for the next call.

        """
        ...


@runtime_checkable
class Supervisable(Protocol):
    """A backend whose engine is started again when it ends, which says how often and why."""

    @property
    def restarts(self) -> int:
        """How often the engine was started again."""
        ...

    @property
    def why_restarted(self) -> str | None:
        """Why the engine ended last, in a sentence; `None` if it never has."""
        ...


@runtime_checkable
class Explained(Protocol):
    """A backend that says why it is not ready."""

    @property
    def reason(self) -> str | None:
        """Why it is not ready, in words that every peer may read; `None` if it is."""
        ...


@runtime_checkable
class Adopted(Protocol):
    """A backend whose engine is not ours: it may be away, and its models come and go."""

    @property
    def state(self) -> str:
        """See `punch.capability.Lane.state`."""
        ...

    @property
    def reason(self) -> str | None:
        """Why it is not ready, in words that every peer may read; `None` if it is."""
        ...

    @property
    def changed(self) -> trio.Event:
        """Set at the next change of its state, slots or offers; another one from then on."""
        ...

    async def loaded(self) -> tuple[str, ...]:
        """Names of the models on offer that are in memory, as the engine says now."""
        ...

    def rest(self, model: str) -> None:
        """Offer *model* no more for a while: it did not answer a short question of our own."""
        ...


def with_continuation(offer: ModelOffer) -> ModelOffer:
    """*offer* of a backend that can continue an answer that another peer has begun."""
    # A begun chat is continued by writing the same prompt once more, with the text so far at its
    # end. Another template would write another prompt, so the template must be known.
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
