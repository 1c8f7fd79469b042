"""A backend that plays a script."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ..backends import Emit, Generation, Loading
from ..capability import Gpu, ModelOffer
from ..wire import CommandRequest, Completion, Timings, Usage

Play = Callable[[CommandRequest, Emit], Awaitable[Generation]]


async def _echo(request: CommandRequest, emit: Emit) -> Generation:
    text = request.messages[-1].content if request.messages else request.prompt or ""
    await emit(text, 1)
    return Generation(
        completion=Completion(text=text),
        usage=Usage(prompt_tokens=1, completion_tokens=1),
        timings=Timings(),
    )


class ScriptedBackend:
    """Answers with whatever *play* does; by default it gives the last message back.

    Args:
      play: What `generate` does.
      simulated: Whether the backend says that it simulates: true, unless a test needs a lie.
      slots: Requests at a time.
      offers: The models on offer.
      name: Name of the backend.

    """

    threads: int | None = None
    gpus: tuple[Gpu, ...] = ()

    def __init__(
        self,
        play: Play = _echo,
        *,
        simulated: bool = True,
        slots: int = 4,
        offers: tuple[ModelOffer, ...] = (ModelOffer(name="scripted"),),
        name: str = "scripted",
    ) -> None:
        self.simulated = simulated
        self.slots = slots
        self.offers = offers
        self.name = name
        self._play = play

    async def ready(self, loading: Loading) -> None:
        """Return at once: the script needs no loading."""

    async def generate(self, request: CommandRequest, emit: Emit) -> Generation:
        """Play the script."""
        return await self._play(request, emit)
