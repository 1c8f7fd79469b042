"""Three listeners in processes of their own and a dialer, told when to ask and whom to strike.

A process of its own, so that the punch of another commit can stand beside this one: `gaps.py`
starts one for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import trio
from _processes import serve
from _town import START_SECONDS, Listener, Town, open_town

from punch.backends import mock_words
from punch.dialer import Answer, Router, chat_request, open_router
from punch.exceptions import PunchError
from punch.wire import Sampling

LISTENERS = 3
TOKENS = 48
TIMEOUT_SECONDS = 60.0


@attrs.frozen(kw_only=True)
class Heard:
    """How one answer came."""

    gap: float
    """The longest silence between two of its texts, in seconds."""

    asked: int
    """Peers that were asked for it."""

    segments: int
    """Peers that delivered some of it."""

    was_hit: bool
    """Whether the blow fell on the peer that was answering."""

    fault: str | None
    """What was wrong with it, if anything."""


class Reading:
    """Several answers at once."""

    def __init__(self, router: Router, name: str, asked: int) -> None:
        self.begun = trio.Event()
        """Set once one of them has a text."""
        self.hit: set[int] = set()
        """Those whose peer was struck."""
        self.heard: list[Heard] = []
        """Those that are over."""
        self._router = router
        self._name = name
        self._asked = asked
        self._answers: dict[int, Answer] = {}

    def struck(self, listeners: Sequence[Listener]) -> Listener:
        """The listener that works on most of them, which is about to be struck."""
        victim = max(listeners, key=lambda listener: len(self._at(listener)))
        self.hit = self._at(victim)
        return victim

    def _at(self, listener: Listener) -> set[int]:
        peer = listener.peer_id
        return {number for number, answer in self._answers.items() if answer.peer_id == peer}

    async def run(self) -> None:
        """Ask, and read to the end."""
        async with trio.open_nursery() as nursery:
            for number in range(self._asked):
                nursery.start_soon(self._read, number)

    async def _read(self, number: int) -> None:
        request = chat_request(
            f"{self._name}: tell me about {number}.",
            sampling=Sampling(max_tokens=TOKENS, temperature=0.0),
            timeout=TIMEOUT_SECONDS,
        )
        gap, heard_at, fault = 0.0, None, None
        async with self._router.answer(request) as answer:
            self._answers[number] = answer
            try:
                async for _ in answer:
                    now = trio.current_time()
                    gap, heard_at = max(gap, now - (heard_at or now)), now
                    self.begun.set()
                if answer.text != " ".join(mock_words(request)):
                    fault = "not the right text"
            except PunchError as error:
                fault = f"{type(error).__name__}: {error}"
            del self._answers[number]
        self.heard.append(
            Heard(
                gap=gap,
                asked=len(answer.decisions),
                segments=len(answer.segments),
                was_hit=number in self.hit,
                fault=fault,
            )
        )


class Struck:
    """Commands of the town."""

    def __init__(self, town: Town, router: Router) -> None:
        self._town = town
        self._router = router

    async def strike(
        self, *, name: str, asked: int, after: float, seconds: float | None, kill: bool
    ) -> list[dict[str, Any]]:
        """Ask, and strike the listener that answers most; how the answers came.

        Args:
          name: Told apart from other rounds by this.
          asked: Questions.
          after: Seconds after the first text at which the blow falls.
          seconds: How long the listener is frozen; for good if `None`.
          kill: Whether it is killed and not frozen.

        """
        await self._all_there()
        reading = Reading(self._router, name, asked)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reading.run)
            await reading.begun.wait()
            await trio.sleep(after)
            victim = reading.struck(self._town.there)
            if kill:
                await victim.kill()
            else:
                victim.freeze()
            if seconds is not None:
                await trio.sleep(seconds)
                victim.thaw()
        if not kill:
            await victim.kill()
        # Another peer takes its place: nothing is held against that one, and it has no breaker.
        victim.number += LISTENERS
        await victim.start()
        return [attrs.asdict(one) for one in reading.heard]

    async def read(self, *, name: str, asked: int) -> list[dict[str, Any]]:
        """Ask, and strike nobody."""
        await self._all_there()
        reading = Reading(self._router, name, asked)
        await reading.run()
        return [attrs.asdict(one) for one in reading.heard]

    async def _all_there(self) -> None:
        with trio.fail_after(START_SECONDS):
            await self._router.wait_for_peers(lambda peers: len(peers) == LISTENERS)


async def main() -> None:
    """Serve the parent."""
    async with open_town(LISTENERS) as town, open_router(bootstrap=town.bootstrap) as router:
        struck = Struck(town, router)
        await serve({"strike": struck.strike, "read": struck.read})


if __name__ == "__main__":
    trio.run(main)
