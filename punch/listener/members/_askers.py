"""Decides for whom a request is: which machine asks, and within which caps.

What a cap allows is decided by `punch.admission`, and who is let in by `punch.session`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs

from ...access import Membership
from ...admission import NO_CAPS, Caps, CapsByPeer
from ...capability import Capability, PeerId
from ...exceptions import ConfigurationError
from ...session import Door, ServerCall
from ._usage import UsageByMember


@attrs.frozen(kw_only=True)
class Asker:
    """Who asks."""

    claimant: PeerId
    """Whose turn it is in the queue: the dialer's, or in a closed namespace that of its machine,
    which makes as many identities for its processes as it likes."""

    caps: Caps = NO_CAPS
    """What it may ask for."""


class Askers:
    """The dialers of one listener.

    Args:
      door: Lets them in, if the namespace is closed.
      membership: Our membership, then.
      strangers: What peers of other owners may ask for.
      limits: What single members may, by the name of their machine or its identity.
      wall: The time, in seconds of UTC since 1970.

    Raises:
      ConfigurationError: if single members are limited in an open namespace.

    """

    def __init__(
        self,
        door: Door | None,
        membership: Membership | None,
        strangers: Caps,
        limits: Mapping[str, Caps] | None,
        wall: Callable[[], float],
    ) -> None:
        self._door = door
        if door is not None and membership is not None:
            self.usage = UsageByMember(membership.called)
            self.caps = CapsByPeer(
                strangers,
                limits,
                member_of=door.member,
                own=door.own,
                called=membership.called,
                wall=wall,
            )
            return
        _refuse_in_open(limits)
        self.usage = UsageByMember()
        """What each member has asked so far."""
        self.caps = CapsByPeer(strangers, wall=wall)
        """What each dialer may ask for."""

    def change(self, strangers: Caps, limits: Mapping[str, Caps]) -> None:
        """Take other caps from now on.

        Raises:
          ConfigurationError: if single members are limited in an open namespace.

        """
        if self._door is None:
            _refuse_in_open(limits)
        self.caps.change(strangers, limits)

    def machine(self, call: ServerCall) -> PeerId | None:
        """The machine of the dialer of *call*; `None` in an open namespace."""
        return None if self._door is None else self._door.machine(call.dialer)

    def within(self, call: ServerCall, machine: PeerId | None) -> Asker:
        """Who asks in *call*, from a process of *machine*, and may.

        Raises:
          PeerRefused: if it may not: at this hour, of this length, or with this priority.

        """
        caps = self.caps.of(call.dialer, is_own=call.is_own)
        if caps.hours is not None:
            caps.check_time(self.caps.now())
        caps.check(call.request)
        return Asker(claimant=machine or call.dialer, caps=caps)

    def told(self, call: ServerCall, capability: Capability) -> Capability:
        """*capability* as the dialer of *call* is told it."""
        caps = self.caps.of(call.dialer, is_own=call.is_own)
        return caps.on(capability, self.caps.now())


def _refuse_in_open(limits: Mapping[str, Caps] | None) -> None:
    if limits:
        raise ConfigurationError(
            f"limits names {', '.join(limits)[:100]!r}, and the namespace is open: there "
            "everybody takes another identity at will; limit strangers instead, or close the "
            "namespace"
        )
