"""What llama-server needs as the head of a split, which computes on other machines too.

Which machines these are, and what becomes of it when one is lost, is decided by who opens the
split; here is only what the server is told and asked for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from ...llama_cpp import Program
from ...processes import Supervised
from ...wire import Timings, Usage


class Head(Protocol):
    """What is around a server whose model lies on several machines."""

    @property
    def env(self) -> Mapping[str, str]:
        """Variables of the server."""
        ...

    @property
    def is_own(self) -> bool:
        """Whether all machines of the start that was prepared last are of this one's owner."""
        ...

    @property
    def is_plain(self) -> bool:
        """Whether one of these machines is reached by plain RPC, where nobody proves who it is."""
        ...

    @property
    def machines(self) -> int | None:
        """Machines of that start, the server's own among them; `None` before the first."""
        ...

    async def prepare(self, supervised: Supervised) -> None:
        """Reserve what the server needs, before each of its starts.

        Args:
          supervised: The server, to be killed if a machine is lost.

        Raises:
          PunchError: if it cannot be started now; the text says why.

        """
        ...

    def arguments(self, program: Program) -> Sequence[str]:
        """Arguments for the start that was prepared last, in the flags that *program* knows."""
        ...

    def note_line(self, line: str) -> None:
        """Hear a line that the server prints."""
        ...

    def note_token(self) -> bool:
        """Hear that the server made a token; whether each machine of the plan took part in it."""
        ...

    def note_answer(self, *, tokens: int, guessed: int, right: int) -> None:
        """Hear of an answer that is complete.

        Args:
          tokens: How many it has.
          guessed: Tokens that the server guessed for it, and
          right: how many of these are part of it.

        """
        ...

    def note_times(self, usage: Usage, timings: Timings) -> None:
        """Hear what the server measured of an answer at which it worked alone."""
        ...

    async def has_lost_machine(self) -> bool:
        """Whether the server, which has ended, did so for want of a machine.

        Then no request is why. Waits a moment: a server ends before its machine's loss is known.
        """
        ...
