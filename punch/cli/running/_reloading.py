"""The command `reload` of a running program: what has changed, and what of it can be taken now.

What no part of the program can take while it runs is named, and stays as it was until a restart.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import attrs
import trio

from ...admin import Call, Handler
from ...settings import Settings
from ._rereading import Change, changes, read_again, with_changed

S = TypeVar("S", bound=Settings)

Take = Callable[[Any], Awaitable[None]]
"""Takes the settings of the whole program, of which some have other values now."""


@attrs.frozen(kw_only=True)
class Live:
    """Settings that a part of the program can take while it runs."""

    names: frozenset[str]
    """What they are called: ``routing.alias``; one that ends with a dot means a whole section."""

    take: Take
    """Takes them. A `PunchError` says why not, and nothing has changed then."""

    def has(self, name: str) -> bool:
        """Whether it is about the setting of this name."""
        return name in self.names or f"{name.partition('.')[0]}." in self.names


class Reloading:
    """Takes a changed settings file while a program runs.

    Args:
      settings: Gives the settings that the program goes by now.
      keep: Is given those that it goes by from then on.
      live: What can be taken, in this order.
      environment: The variables of the program.

    """

    def __init__(
        self,
        settings: Callable[[], Settings],
        keep: Callable[[Any], None],
        live: tuple[Live, ...],
        environment: Mapping[str, str],
    ) -> None:
        self._settings = settings
        self._keep = keep
        self._live = live
        self._environment = environment
        # Two at a time would each take what the other has not seen.
        self._lock = trio.Lock()

    async def reload(self) -> dict[str, Any]:
        """Read again, take what can be taken, and say what came of it.

        Raises:
          ConfigurationError: if the file or a value is wrong; nothing has changed then.
          PunchError: if a part cannot take its settings; those of the parts before it are taken.

        """
        async with self._lock:
            before = self._settings()
            after = await trio.to_thread.run_sync(read_again, before, self._environment)
            found = changes(before, after)
            taken: list[Change] = []
            for live in self._live:
                mine = [each for each in found if live.has(each.name) and each not in taken]
                if mine:
                    names = {each.name for each in mine}
                    changed = with_changed(self._settings(), after, names)
                    await live.take(changed)
                    self._keep(changed)
                    taken += mine
        return {
            "changed": [attrs.asdict(each) for each in taken],
            "restart": [attrs.asdict(each) for each in found if each not in taken],
        }

    def handler(self) -> Handler:
        """The handler of the command."""

        async def handle(call: Call) -> Any:
            del call
            return await self.reload()

        return handle
