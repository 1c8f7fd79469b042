"""What a listener needs of a backend, and nothing else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import attrs

from ..capability import Gpu, ModelOffer
from ..wire import CommandRequest, Completion, Timings, Usage

Emit = Callable[[str, int], Awaitable[None]]
"""``await emit(text, tokens)`` delivers the next part of an answer.

It waits while the reader is behind; a backend that awaits it is slowed down with it.
"""


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
