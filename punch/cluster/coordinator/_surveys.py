"""Asks everybody who might lend what they have, before a plan, and says why others are left out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import trio

from ..._logs import get_logger
from ...exceptions import PeerUnreachable, PunchError
from ...placement import Device
from ._lending import Lendable, Lender
from ._versions import HeadBuild, fault_of

log = get_logger(__name__)

# A lender that says nothing for longer is left out of this plan: requests wait for it.
SURVEY_SECONDS = 3.0

# A worker that was lost is not asked sooner, unless there is no plan without it: it would cost the
# requests that wait the time that a mute machine takes.
LOST_REST_SECONDS = 10.0


class Surveys:
    """What is known for one plan.

    Args:
      lenders: Everybody who may lend, in the order in which their devices are to be.
      lendable: Who lends already, and what.
      head: The head's program, which all must fit.
      is_forced: Take those of other builds, too.

    """

    def __init__(
        self,
        lenders: Sequence[Lender],
        lendable: Mapping[str, Lendable],
        *,
        head: HeadBuild,
        is_forced: bool,
    ) -> None:
        self._lenders = tuple(lenders)
        self.lendable = dict(lendable)
        """Who can lend, and what."""
        self.left_out: dict[str, str] = {}
        """Who cannot, and why."""
        self._head = head
        self._is_forced = is_forced
        self._asked = set(self.lendable)

    def rested(self, lost_at: Mapping[str, float]) -> list[Lender]:
        """The lenders that were not lost a moment ago; *lost_at* says when they were."""
        until = trio.current_time() - LOST_REST_SECONDS
        tired = {one.name for one in self._lenders if lost_at.get(one.name, -math.inf) > until}
        self.left_out |= dict.fromkeys(sorted(tired), "it was lost a moment ago")
        return [lender for lender in self.not_asked() if lender.name not in tired]

    def not_asked(self) -> list[Lender]:
        """The lenders that were not asked yet, and lend nothing."""
        return [lender for lender in self._lenders if lender.name not in self._asked]

    async def ask(self, lenders: Sequence[Lender]) -> None:
        """Ask *lenders* at the same time, and none of them for long."""
        async with trio.open_nursery() as nursery:
            for lender in lenders:
                self._asked.add(lender.name)
                nursery.start_soon(self._ask, lender)

    def asked(self, name: str) -> tuple[Lender, Lendable, list[Device]]:
        """Who is called *name*, also if it has left the namespace since, and what it lends.

        Raises:
          PeerUnreachable: if it had left before anybody was asked, and its loan was lost now.

        """
        found = next((one for one in self._lenders if one.name == name), None)
        if found is None:
            raise PeerUnreachable("it has left the namespace")
        return found, self.lendable[name], devices_of(name, self.lendable[name])

    def devices(self) -> list[Device]:
        """What can be borrowed, as a plan knows it."""
        order = [one.name for one in self._lenders if one.name in self.lendable]
        # A loan is kept also of one that the directory has forgotten.
        order += [name for name in self.lendable if name not in order]
        return [each for name in order for each in devices_of(name, self.lendable[name])]

    def leave_out(self, name: str, why: str) -> None:
        """Plan without *name*."""
        self.lendable.pop(name, None)
        self.left_out[name] = why
        log.warning("a worker is left out", worker=name, why=why)

    async def _ask(self, lender: Lender) -> None:
        name, why = lender.name, f"it said nothing within {SURVEY_SECONDS:g} s"
        with trio.move_on_after(SURVEY_SECONDS):
            try:
                found = await lender.survey()
            except PunchError as error:
                why = error.message
            else:
                fault = fault_of(
                    name, found.version, found.build, head=self._head, is_forced=self._is_forced
                )
                if fault is None:
                    self.left_out.pop(name, None)
                    self.lendable[name] = found
                    return
                why = fault
        self.leave_out(name, why)


def devices_of(name: str, lendable: Lendable) -> list[Device]:
    """The devices of a lender, as a plan knows them."""
    several = len(lendable.devices) > 1
    return [
        Device(
            id=f"{name}/{device.name or number}" if several else name,
            holder=name,
            memory=device.memory,
            bandwidth=device.bandwidth,
            compute=device.compute,
            link=lendable.link,
        )
        for number, device in enumerate(lendable.devices)
    ]
