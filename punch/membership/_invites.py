"""Makes invites, and keeps them on disk: what `punch.access.Invites` holds, of one namespace.

A program that serves reads the file anew for every guest, so that an invite counts from the moment
it is made, and a withdrawn one no longer. The secret of an invite is in this file and in its code.
"""

from __future__ import annotations

import json
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
from ._members import named
from .codes import MAX_CODE_ADDRESSES, Code, LongCode, new_secret, new_short_code

FILE = "invites.json"

INVITE_SECONDS = 24 * 3600
"""How long an invite counts unless said."""

SHORT_INVITE_SECONDS = 3600
"""How long one with a short code counts at most: it is said and typed at once."""

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
      NotPermitted: if this machine is no admin, has not all of *scopes*, or has too many invites.
      ConfigurationError: if the file cannot be written.

    """
    grant = home.grant
    if grant.kind != "admin":
        raise NotPermitted(
            f"this machine is no admin of {home.namespace}: make the invite on one that is"
        )
    asked = scopes or (SCOPES_OF_MINE if mine else SCOPES_OF_GUESTS)
    if not asked <= grant.scopes:
        raise NotPermitted(
            f"this machine has not the scopes {', '.join(sorted(asked - grant.scopes))} itself"
        )
    usual = SHORT_INVITE_SECONDS if short else INVITE_SECONDS
    kind: Kind = "admin" if "admin" in asked else "machine"
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
            ends=int(now + (usual if seconds is None else seconds)),
            uses=uses,
            kind=kind,
            scopes=asked,
            is_mine=mine,
            name=named(name),
        )
        invites.add(invite, now=now)
    return code, invite


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
