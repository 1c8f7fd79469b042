"""Keeps who nearby asks to be let in, in the folder of the namespace, for people to decide.

A program that serves writes what it was asked, and follows what a command wrote beside it. Requests
are few, end by themselves, and outlive neither the program's stream nor `REQUEST_SECONDS`.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs

from ...access import SCOPES, Invite
from ...capability import PeerId
from ...exceptions import ConfigurationError
from .._home import Home
from .._invites import kind_of, promised_scopes
from .._letting_in import check_promise
from .._members import named
from ._digits import shown_digits, typed_digits

FILE = "nearby.json"

REQUEST_SECONDS = 300
"""How long somebody may wait to be approved: as long as it takes to walk to the other machine."""

# Of one namespace on this machine: more is a flood, and nobody could tell them apart.
MAX_REQUESTS = 16
MAX_REQUESTS_OF_HOST = 4


@attrs.frozen(kw_only=True)
class NearbyRequest:
    """A machine that asks to be let in."""

    identifier: str
    """Names the request; random."""

    machine: PeerId
    """The key that the grant would be for."""

    name: str
    """What the machine calls itself, which nobody has checked."""

    digits: str
    """What its screen shows, if nobody stands in between."""

    host: str
    """From where it asks."""

    ends: int
    """When it ends, in seconds of UTC since 1970."""

    state: str = "waiting"
    """``waiting``, ``approved``, ``refused`` or, once the machine was told, ``joined``."""

    scopes: frozenset[str] = frozenset()
    """Of an approved one: what the grant allows."""

    is_mine: bool = False
    """Of an approved one: whether the machine is of this one's owner."""

    called: str = ""
    """Of an approved one: what to call the machine; empty for its own name."""

    def right(self) -> Invite:
        """Of an approved one: the right to a grant that it has."""
        return Invite(
            identifier=self.identifier,
            secret=b"",
            ends=self.ends,
            kind=kind_of(self.scopes),
            scopes=self.scopes,
            is_mine=self.is_mine,
            name=self.called,
        )


def read_requests(home: Home, *, now: float) -> tuple[NearbyRequest, ...]:
    """The requests that have not ended; what is damaged counts as none."""
    try:
        found = json.loads(home.folder.read(FILE) or b"[]")
        requests = [_request(each) for each in found]
    except (ValueError, TypeError, KeyError, RecursionError):
        return ()
    return tuple(each for each in requests if each.ends > now)


def find_request(home: Home, who: str, *, now: float) -> NearbyRequest:
    """The waiting request that *who* means: by its digits, or by the name of the machine.

    A name that looks like digits is never meant, and a key before a name: a machine could call
    itself like another's.

    Raises:
      ConfigurationError: if there is none, or several could be meant.

    """
    waiting = [each for each in read_requests(home, now=now) if each.state == "waiting"]
    digits = typed_digits(who)
    if digits is not None:
        found = [each for each in waiting if each.digits == digits]
    else:
        found = [each for each in waiting if who == each.machine]
        found = found or [each for each in waiting if who == each.name]
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join(f"{shown_digits(each.digits)} from {each.host}" for each in found)
        raise ConfigurationError(
            f"several machines that ask are meant by {who!r}: {listed}; say the digits that the "
            "right one shows"
        )
    others = ", ".join(f"{each.name} ({shown_digits(each.digits)})" for each in waiting)
    raise ConfigurationError(
        f"no machine that asks to join {home.namespace} is called {who!r} or shows such digits; "
        + (
            f"there are: {others}. If the digits differ, somebody else is asking: refuse it"
            if others
            else "none asks. `punch join --nearby` asks there, while a program of punch runs here"
        )
    )


def approve_request(
    home: Home,
    request: NearbyRequest,
    *,
    now: float,
    scopes: frozenset[str] | None = None,
    mine: bool = False,
    name: str = "",
) -> NearbyRequest:
    """Let a machine in that asks; the program that it has asked does so within a second.

    Args:
      home: The namespace, of which this machine is an admin.
      request: The request, as it was shown.
      now: UTC, in seconds since 1970.
      scopes: What the grant allows; by default as for an invite.
      mine: Whether the machine is of this one's owner.
      name: What to call the machine; empty for its own name.

    Raises:
      NotPermitted: if this machine may not give such a grant.
      ConfigurationError: if the request has ended, or nothing can be written.

    """
    asked = promised_scopes(home, scopes, mine=mine)
    approved: dict[str, Any] = {"scopes": asked, "is_mine": mine, "called": named(name)}
    check_promise(home, attrs.evolve(request, **approved).right(), now=now)
    return _decide(home, request, now=now, state="approved", **approved)


def refuse_request(home: Home, request: NearbyRequest, *, now: float) -> NearbyRequest:
    """Refuse a machine that asks; it is told.

    Raises:
      ConfigurationError: if the request has ended, or nothing can be written.

    """
    return _decide(home, request, now=now, state="refused")


def _decide(home: Home, request: NearbyRequest, *, now: float, **words: Any) -> NearbyRequest:
    with _changed(home, now=now) as requests:
        found = requests.get(request.identifier)
        if found is None or found.state != "waiting":
            raise ConfigurationError(f"{request.name} does not ask any more: it has to ask anew")
        decided = requests[request.identifier] = attrs.evolve(found, **words)
    return decided


def decided_words(home: Home, request: NearbyRequest) -> str:
    """What has become of *request*, in a sentence for people; empty while nobody has decided."""
    digits = shown_digits(request.digits)
    called = request.called or request.name
    return {
        "approved": f"{called} ({digits}) is being let into {home.namespace}",
        "joined": f"{called} ({digits}) is a member of {home.namespace}",
        "refused": f"refused {request.name} ({digits}) from {request.host}",
    }.get(request.state, "")


# ---- of the program that was asked ----


def add_request(
    home: Home, *, machine: PeerId, name: str, digits: str, host: str, now: float
) -> NearbyRequest | None:
    """Keep that a machine asks; `None` if too many do."""
    with _changed(home, now=now) as requests:
        of_host = sum(each.host == host for each in requests.values())
        if len(requests) >= MAX_REQUESTS or of_host >= MAX_REQUESTS_OF_HOST:
            return None
        request = NearbyRequest(
            identifier=secrets.token_hex(8),
            machine=machine,
            name=name,
            digits=digits,
            host=host,
            ends=int(now) + REQUEST_SECONDS,
        )
        requests[request.identifier] = request
    return request


def close_request(home: Home, request: NearbyRequest, *, joined: bool, now: float) -> None:
    """Take a request away; one that has *joined* is kept for the command that approved it."""
    with _changed(home, now=now) as requests:
        found = requests.pop(request.identifier, None)
        if found is not None and joined:
            requests[request.identifier] = attrs.evolve(
                found, state="joined", ends=int(now) + JOINED_SECONDS
            )


# How long the command that approved has to see what came of it.
JOINED_SECONDS = 10


@contextmanager
def _changed(home: Home, *, now: float) -> Iterator[dict[str, NearbyRequest]]:
    with home.folder.locked():
        requests = {each.identifier: each for each in read_requests(home, now=now)}
        yield requests
        home.folder.write(FILE, _encoded(requests.values()))


def _encoded(requests: Iterable[NearbyRequest]) -> bytes:
    plain = [
        attrs.asdict(each, recurse=False) | {"scopes": sorted(each.scopes)} for each in requests
    ]
    return json.dumps(plain).encode()


def _request(found: dict[str, Any]) -> NearbyRequest:
    known = {
        field.name: found[field.name]
        for field in attrs.fields(NearbyRequest)
        if field.name in found
    }
    return NearbyRequest(
        **known
        | {
            "machine": PeerId(found["machine"]),
            "name": named(found["name"]),
            "ends": int(found["ends"]),
            "scopes": frozenset(found["scopes"]) & SCOPES,
        }
    )
