"""Makes an invite as text, with the addresses where this machine serves, and lists those made."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import attrs

from ...discovery import parse_bootstrap
from ...network import Address
from .._home import Home
from .._invites import make_invite, read_invites
from .._members import read_members
from .._removing import read_removals
from .._running import serving


@attrs.frozen(kw_only=True)
class CreatedInvite:
    """A right to join, as it was made."""

    code: str = attrs.field(repr=False)
    """What `join_namespace` takes; whoever has it may join, so show it to nobody else."""

    uses: int
    """How many machines may use it."""

    ends: int
    """When it ends, in seconds of UTC since 1970."""

    addresses: tuple[str, ...]
    """Where this machine lets newcomers in; a long code has the first of them in it."""

    identifier: str
    """Names the invite among those of this machine; no secret."""


@attrs.frozen(kw_only=True)
class InviteStatus:
    """An invite that this machine has made, and how it is now."""

    identifier: str
    """Names it among those of this machine; no secret."""

    state: str
    """``open``, ``used up``, ``expired``, ``withdrawn`` or ``guessed wrong``."""

    uses: int
    """How many machines it was for."""

    uses_left: int
    """How many may still use it."""

    ends: int
    """When it ends, in seconds of UTC since 1970."""

    name: str
    """What the machine is to be called; empty if it may say."""

    scopes: frozenset[str]
    """What the machine may do."""

    mine: bool
    """Whether the machine is of the same owner as this one."""

    short: bool
    """Whether the code is a number and two words, good for one try."""

    used_by: tuple[str, ...]
    """The machines that have used it: their names, and the key of one without a name."""


def list_invites(home: Home) -> tuple[InviteStatus, ...]:
    """The invites of this machine, those first that can still be used; as ``punch invite list``.

    Raises:
      ConfigurationError: if a file is damaged.

    """
    lock, members, now = read_removals(home), read_members(home.folder), time.time()
    found = []
    for each in read_invites(home).all:
        outcome = each.outcome(now, lock)
        known = [members.get(use.key) for use in each.used_by]
        found.append(
            InviteStatus(
                identifier=each.identifier,
                state="guessed wrong" if outcome == "unknown" else outcome.replace("_", " "),
                uses=each.uses,
                uses_left=each.uses - len(each.used_by) if outcome == "open" else 0,
                ends=each.ends,
                name=each.name,
                scopes=each.scopes,
                mine=each.is_mine,
                short=each.is_short,
                used_by=tuple(
                    (record.name if record is not None else "") or use.key
                    for use, record in zip(each.used_by, known, strict=True)
                ),
            )
        )
    return tuple(sorted(found, key=lambda each: (each.state != "open", each.ends)))


def create_invite(
    home: Home,
    *,
    scopes: Iterable[str] = (),
    uses: int = 1,
    seconds: float | None = None,
    name: str = "",
    mine: bool = False,
    short: bool = False,
    at: Sequence[str] = (),
    serves: Sequence[Address] | None = None,
) -> CreatedInvite:
    """Make an invite to a namespace that this machine is an admin of; as ``punch invite``.

    It is redeemed at any program of this machine that was opened with a membership and can be
    dialled, such as a listener; without one it counts, and nobody answers.

    Args:
      home: The namespace.
      scopes: What the machine may do; by default ``dial`` and ``listen``, with *mine* all but
        ``admin``.
      uses: How many machines may use it.
      seconds: How long it counts; by default a day, a short code an hour.
      name: What the machine is to be called; empty if it may say.
      mine: Whether the machine is of the same owner as this one.
      short: Whether the code is a number and two words to say, good for one try.
      at: Where this machine is reached, ``HOST:PORT``, if not at its own addresses.
      serves: Where programs of this machine serve the namespace; by default it is looked up.

    Raises:
      NotPermitted: if this machine is no admin, has not all of *scopes*, or has too many invites.
      ConfigurationError: if an address is none, or the file cannot be written.

    """
    given = [parse_bootstrap(text, setting="--at") for text in at]
    places = _elsewhere(serving(home) if serves is None else serves)
    code, invite = make_invite(
        home,
        now=time.time(),
        # A code is for another machine, unless this one has no other address.
        addresses=[*given, *places],
        scopes=frozenset(scopes) or None,
        uses=uses,
        seconds=seconds,
        name=name,
        mine=mine,
        short=short,
    )
    return CreatedInvite(
        code=code.text(),
        uses=invite.uses,
        ends=invite.ends,
        addresses=tuple(each.place for each in [*given, *places]),
        identifier=invite.identifier,
    )


def _elsewhere(places: Iterable[Address]) -> list[Address]:
    plain_places = [attrs.evolve(place, peer_id=None) for place in places]
    others = [place for place in plain_places if not place.is_loopback()]
    return list(dict.fromkeys(others + [each for each in plain_places if each.is_loopback()]))
