"""Makes invites, and keeps them on disk: what `punch.access.Invites` holds, of one namespace.

A program that serves reads the file anew for every guest, so that an invite counts from the moment
it is made, and a withdrawn one no longer. The secret of an invite is in this file and in its code.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import attrs

from ..access import Invite, Invites, Kind, Use
from ..capability import PeerId
from ..exceptions import ConfigurationError, NotPermitted
from ..network import Address
from ._home import Home
from ._letting_in import check_promise
from ._members import named
from .codes import MAX_CODE_ADDRESSES, Code, LongCode, new_secret, new_short_code

FILE = "invites.json"

INVITE_SECONDS = 24 * 3600
"""How long an invite counts unless said."""

SHORT_INVITE_SECONDS = 3600
"""How long one with a short code counts at most: it is said and typed at once."""

MIN_WHICH = 4
"""Letters of an identifier by which a person may mean an invite."""

OVER: dict[str, str] = {
    "used_up": "is used up",
    "expired": "has expired",
    "withdrawn": "was withdrawn",
    "unknown": "has ended by a wrong guess",
}
"""What has become of an invite, for those who made it."""

SCOPES_OF_GUESTS = frozenset({"dial", "listen"})
"""What an invite gives unless said."""

SCOPES_OF_MINE = frozenset({"dial", "listen", "lend", "borrow", "relay"})
"""What an invite for a machine of the same owner gives unless said."""


def identifier_of(code: Code) -> str:
    """How a code names its invite to whoever serves it: nothing that helps to guess the secret."""
    if isinstance(code, LongCode):
        return sha256(b"punch invite 1 " + code.secret).hexdigest()[:16]
    return str(code.number)


def make_invite(
    home: Home,
    *,
    now: float,
    addresses: Iterable[Address] = (),
    scopes: frozenset[str] | None = None,
    uses: int = 1,
    seconds: float | None = None,
    name: str = "",
    mine: bool = False,
    short: bool = False,
) -> tuple[Code, Invite]:
    """Make an invite to a namespace that this machine is an admin of.

    Args:
      home: The namespace.
      now: UTC, in seconds since 1970.
      addresses: Where this machine serves it, for a long code.
      scopes: What the grant allows; by default `SCOPES_OF_GUESTS`, or `SCOPES_OF_MINE`.
      uses: How many machines may use it.
      seconds: How long it counts; by default a day, a short code an hour.
      name: What the machine is to be called; empty if it may say.
      mine: Whether the machine is of this one's owner.
      short: Whether its code is short.

    Raises:
      NotPermitted: if nobody could use the invite, since this machine may not give such a grant;
        or if there are too many.
      ConfigurationError: if the file cannot be written.

    """
    asked = promised_scopes(home, scopes, mine=mine)
    ends = _end(home, seconds, SHORT_INVITE_SECONDS if short else INVITE_SECONDS, now)
    with changed_invites(home) as invites:
        code: Code
        if short:
            code = new_short_code(lambda number: invites.find(str(number)) is None)
        else:
            code = LongCode(
                name=home.namespace.name,
                root=home.namespace.key,
                secret=new_secret(),
                addresses=tuple(addresses)[:MAX_CODE_ADDRESSES],
            )
        invite = Invite(
            identifier=identifier_of(code),
            secret=code.secret,
            is_short=short,
            ends=ends,
            uses=uses,
            kind=kind_of(asked),
            scopes=asked,
            is_mine=mine,
            name=named(name),
        )
        check_promise(home, invite, now=now)
        invites.add(invite, now=now)
    return code, invite


def promised_scopes(home: Home, scopes: frozenset[str] | None, *, mine: bool) -> frozenset[str]:
    """The scopes that a machine is to get which this one lets in.

    Args:
      home: The namespace.
      scopes: Those that were asked for; `None` for what is usual.
      mine: Whether the machine is of this one's owner.

    Raises:
      NotPermitted: if this machine is no admin, or has not all of them itself.

    """
    grant = home.grant
    if grant.kind != "admin":
        raise NotPermitted(
            f"this machine is no admin of {home.namespace}: let machines in on one that is"
        )
    asked = scopes or (SCOPES_OF_MINE if mine else SCOPES_OF_GUESTS)
    if not asked <= grant.scopes:
        raise NotPermitted(
            f"this machine has not the scopes {', '.join(sorted(asked - grant.scopes))} itself: "
            f"it may give {', '.join(sorted(grant.scopes))}, with --scope"
        )
    return asked


def kind_of(scopes: frozenset[str]) -> Kind:
    """The kind of a machine's grant with *scopes*."""
    return "admin" if "admin" in scopes else "machine"


def _end(home: Home, seconds: float | None, usual: float, now: float) -> int:
    """When an invite ends: not after this machine's own grant, below which it gives one.

    Raises:
      NotPermitted: if it was to end after that.

    """
    own = home.grant.ends
    ends = now + (usual if seconds is None else seconds)
    if ends <= own or own <= now:
        return int(ends)
    if seconds is not None:
        raise NotPermitted(
            f"the grant of this machine ends before the invite would, in {(own - now) / 86_400:.1f}"
            " days: say an earlier end, or make the invite on an admin whose grant lasts longer"
        )
    return own


def find_invite(home: Home, which: str, *, now: float) -> Invite:
    """The invite that *which* means: its number, the beginning of its identifier, or its name.

    A name means the one that can still be used, if there is one.

    Raises:
      ConfigurationError: if there is none, or several could be meant.

    """
    known = read_invites(home).all
    found = [each for each in known if each.identifier == which]
    found = found or [each for each in known if which and each.name == which]
    if not found and len(which) >= MIN_WHICH:
        found = [each for each in known if not each.is_short and each.identifier.startswith(which)]
    found = [each for each in found if each.outcome(now) == "open"] or found
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join(each.identifier for each in found)
        raise ConfigurationError(f"several invites are meant by {which!r}: say which: {listed}")
    raise ConfigurationError(
        f"this machine has made no invite {which!r}; `punch invite list` has those that it has"
    )


def withdraw_invite(home: Home, which: str, *, now: float | None = None) -> Invite:
    """Take an invite back: whoever holds its code hears that it was, and is let in no more.

    Those who have used it stay members.

    Args:
      home: The namespace.
      which: See `find_invite`.
      now: UTC, in seconds since 1970; by default what it is.

    Raises:
      ConfigurationError: if there is none, it is over already, or the file cannot be written.

    """
    now = time.time() if now is None else now
    found = find_invite(home, which, now=now)
    with changed_invites(home) as invites:
        # Meanwhile somebody may have used it.
        if invites.withdraw(found.identifier, now=now):
            return attrs.evolve(found, withdrawn_at=int(now))
        after = invites.find(found.identifier)
    outcome = "expired" if after is None else after.outcome(now)
    raise ConfigurationError(f"the invite {found.identifier} {OVER[outcome]}, and lets nobody in")


@contextmanager
def changed_invites(home: Home) -> Iterator[Invites]:
    """The invites of this machine, to be changed: nobody else changes them meanwhile.

    Raises:
      ConfigurationError: if the file is damaged or cannot be written.

    """
    with home.folder.locked():
        invites = read_invites(home)
        yield invites
        home.folder.write(FILE, json.dumps([_plain(each) for each in invites.all]).encode())


def read_invites(home: Home) -> Invites:
    """The invites of this machine, as they are now.

    Raises:
      ConfigurationError: if the file is damaged: an invite that was used once is never forgotten.

    """
    try:
        found = json.loads(home.folder.read(FILE) or b"[]")
        return Invites([_invite(each) for each in found])
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ConfigurationError(
            f"{home.folder / FILE} is damaged: remove it, and all invites are withdrawn"
        ) from None


def _plain(invite: Invite) -> dict[str, Any]:
    fields = attrs.asdict(invite, recurse=False)
    return fields | {
        "secret": invite.secret.hex(),
        "scopes": sorted(invite.scopes),
        "used_by": [attrs.asdict(use) for use in invite.used_by],
    }


def _invite(found: dict[str, Any]) -> Invite:
    known = {field.name: found[field.name] for field in attrs.fields(Invite) if field.name in found}
    return Invite(
        **known
        | {
            "secret": bytes.fromhex(found["secret"]),
            "scopes": frozenset(found["scopes"]),
            "used_by": tuple(
                Use(key=PeerId(use["key"]), number=use["number"]) for use in found["used_by"]
            ),
        }
    )
