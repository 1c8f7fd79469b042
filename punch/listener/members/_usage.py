"""Counts what each member has asked of a listener, and says so in the log once in a while.

A member is a machine: its processes count together, and a gateway's keys do as one, since the
listener sees the grant of the gateway alone. Which key has paid is in the gateway's own book.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from ..._logs import get_logger
from ...capability import PeerId
from ...wire import CommandResponse

log = get_logger("punch.listener")

# Members that are counted one by one, those that ask first; all later ones are one row.
MAX_MEMBERS = 256

# How often the log is told, in seconds, and of how many members at most.
SAY_SECONDS = 60.0
MAX_SAID = 32


@attrs.frozen(kw_only=True)
class MemberUsage:
    """What the programs of one machine have asked since the listener's start."""

    machine: PeerId | None
    """The key of the machine; `None` for all others together, and in an open namespace for all."""

    name: str = ""
    """What people here call it; empty if that is not known."""

    requests: int = 0
    """Requests that are over."""

    refused: int = 0
    """Those of them that were refused, such as for a limit."""

    failed: int = 0
    """Those of them that failed in another way; not those that their dialer cancelled."""

    prompt_tokens: int = 0
    """Tokens of prompts, as backends counted them."""

    tokens: int = 0
    """Tokens of answers that were sent."""

    def since(self, before: MemberUsage) -> MemberUsage:
        """What has come since *before*."""
        return attrs.evolve(
            self,
            requests=self.requests - before.requests,
            refused=self.refused - before.refused,
            failed=self.failed - before.failed,
            prompt_tokens=self.prompt_tokens - before.prompt_tokens,
            tokens=self.tokens - before.tokens,
        )


class UsageByMember:
    """The counts of one listener.

    Args:
      called: What people here call a machine.

    """

    def __init__(self, called: Callable[[PeerId], str] = lambda machine: "") -> None:
        self._called = called
        self._rows: dict[PeerId | None, MemberUsage] = {}
        self._said: dict[PeerId | None, MemberUsage] = {}
        self._said_at: float | None = None

    def all(self) -> tuple[MemberUsage, ...]:
        """Every row, as people call the machines now."""
        return tuple(map(self._named, self._rows.values()))

    def note(self, machine: PeerId | None, response: CommandResponse | None, tokens: int) -> None:
        """Count a request of a *machine* that is over.

        Args:
          machine: Of the dialer; `None` if it is none's, or the namespace is open.
          response: How it ended; `None` if it was cancelled.
          tokens: Tokens of the answer that were sent.

        """
        if machine not in self._rows and len(self._rows) >= MAX_MEMBERS:
            machine = None
        row = self._rows.get(machine) or MemberUsage(machine=machine)
        status = "cancelled" if response is None else response.status
        prompt_tokens = 0
        if response is not None:
            prompt_tokens = response.usage.prompt_tokens or 0
            tokens = max(tokens, response.usage.completion_tokens or 0)
        self._rows[machine] = MemberUsage(
            machine=machine,
            requests=row.requests + 1,
            refused=row.refused + (status == "refused"),
            failed=row.failed + (status in ("error", "timeout")),
            prompt_tokens=row.prompt_tokens + prompt_tokens,
            tokens=row.tokens + tokens,
        )

    def say(self, now: float, *, at_once: bool = False) -> None:
        """Log what members have asked since the last time, if it is time for that.

        Args:
          now: Seconds of any steady clock.
          at_once: It is time, for the listener ends.

        """
        if self._said_at is None:
            self._said_at = now
        if now < self._said_at + SAY_SECONDS and not at_once:
            return
        self._said_at = now
        news = [
            self._named(row.since(self._said.get(machine, MemberUsage(machine=machine))))
            for machine, row in self._rows.items()
            if machine is not None and row != self._said.get(machine)
        ]
        self._said = dict(self._rows)
        news.sort(key=lambda row: -row.requests)
        for row in news[:MAX_SAID]:
            log.info("asked by a member", **attrs.asdict(row))
        if len(news) > MAX_SAID:
            log.info("asked by more members", members=len(news) - MAX_SAID)

    def _named(self, row: MemberUsage) -> MemberUsage:
        return row if row.machine is None else attrs.evolve(row, name=self._called(row.machine))
