"""The machines of the closed namespace: who is a member, who was invited, and what people change.

The same calls as those of `punch invite` and `punch members`. Who may change anything is left to
`_rights`. A code is in the answer to whoever made it and nowhere else: not in the feed, not in a
log, and never shown again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import attrs
import trio
from starlette.requests import Request

from ..capability import PeerId
from ..exceptions import ConfigurationError, InvalidRequest, NotPermitted
from ..membership import (
    CreatedInvite,
    Home,
    InviteStatus,
    MemberStatus,
    create_invite,
    draw,
    list_invites,
    list_members,
    remove_member,
    serving,
    withdraw_invite,
)
from ..wire import short_word
from ._rights import Rights
from ._rows import Row

# Members that a page shows, those that are still in first; `punch members list` has all.
MAX_SHOWN_MEMBERS = 200

# Invites that it shows, those that count first.
MAX_SHOWN_INVITES = 32

# Machines that one code of the page may let in: a household. `punch invite` takes more.
MAX_USES = 20

# How long a code of the page counts at most, in seconds: a month.
MAX_SECONDS = 31 * 24 * 3600
MIN_SECONDS = 60

MAX_NAME_CHARACTERS = 64

# What the form of the page has at most, in bytes, and its seconds: a page sends it at once.
MAX_FORM_BYTES = 4096
MAX_FORM_SECONDS = 10.0


@attrs.frozen(kw_only=True)
class Wish:
    """An invite, as the form of the page asks for it."""

    uses: int = 1
    """Machines that may use it, 1 to `MAX_USES`."""

    seconds: int | None = None
    """How long it counts; `None` for as long as is usual."""

    name: str = ""
    """What the machine is to be called; empty if it may say."""

    mine: bool = False
    """Whether the machine is of the same owner as this one."""

    short: bool = False
    """Whether the code is a number and two words, good for one try."""


class Machines:
    """Shows the machines of one namespace, and changes them.

    Args:
      home: The namespace.
      rights: Who may change them.
      wall: The time, in seconds since 1970.

    """

    def __init__(
        self,
        home: Home,
        *,
        rights: Rights | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._home = home
        self._rights = rights or Rights()
        self._wall = wall
        # Pages that ask often keep one thread busy, and no more.
        self._reading = trio.CapacityLimiter(1)

    async def as_data(self, request: Request) -> dict[str, Any]:
        """What the page shows: members, invites, and whether *request* may change them.

        Raises:
          ConfigurationError: if the files of the namespace are damaged.

        """

        def read() -> tuple[tuple[MemberStatus, ...], tuple[InviteStatus, ...], str | None, bool]:
            home = self._home
            is_admin = home.is_admin
            invites = list_invites(home) if is_admin else ()
            hindrance = self._hindrance(request, "punch invite", is_admin=is_admin)
            return list_members(home), invites, hindrance, bool(serving(home))

        members, invites, hindrance, is_served = await trio.to_thread.run_sync(
            read, limiter=self._reading
        )
        now = self._wall()
        return {
            "namespace": str(self._home.namespace),
            "may": hindrance is None,
            "why_not": hindrance,
            "served": is_served,
            "members": [_member_row(each, now) for each in members[:MAX_SHOWN_MEMBERS]],
            "more_members": max(0, len(members) - MAX_SHOWN_MEMBERS),
            # Names of invites are no secrets, and for those who could make one.
            "invites": [_invite_row(each, now) for each in invites[:MAX_SHOWN_INVITES]]
            if hindrance is None
            else [],
        }

    def _hindrance(self, request: Request, command: str, *, is_admin: bool) -> str | None:
        return self._rights.hindrance(request, is_admin=is_admin, command=command)

    async def invite(self, request: Request) -> dict[str, Any]:
        """Make the invite that the form of *request* asks for; its code is in the answer.

        Raises:
          NotPermitted: if it is not for this request, or for this machine, to invite.
          InvalidRequest: if the form makes no sense; names the field.
          ConfigurationError: if the files cannot be written.

        """
        wish = await _wish_of(request)

        def make() -> tuple[CreatedInvite, Any]:
            self._check(request, "punch invite")
            made = create_invite(
                self._home,
                uses=wish.uses,
                seconds=wish.seconds,
                name=wish.name,
                mine=wish.mine,
                short=wish.short,
            )
            return made, draw(made.code)

        made, drawing = await trio.to_thread.run_sync(make, limiter=self._reading)
        return {
            "id": made.identifier,
            "code": made.code,
            "short": wish.short,
            "uses": made.uses,
            "ends": made.ends,
            "at": made.addresses[0] if made.addresses else None,
            "qr": {"size": drawing.size, "path": drawing.path},
        }

    async def withdraw(self, request: Request, identifier: str) -> str:
        """Take an invite back; says what was done.

        Raises:
          NotPermitted: if it is not for this request to do so.
          ConfigurationError: if there is none, or it is over.

        """

        def take() -> str:
            self._check(request, "punch invite withdraw")
            found = [each for each in list_invites(self._home) if each.identifier == identifier]
            if not found:
                raise ConfigurationError("there is no such invite any more")
            withdraw_invite(self._home, identifier)
            return "the invite was withdrawn: its code lets nobody in any more"

        return await trio.to_thread.run_sync(take, limiter=self._reading)

    async def remove(self, request: Request, machine: str) -> str:
        """Remove a member, by its whole key; says what was done.

        Raises:
          NotPermitted: if it is not for this request, or for this machine, to remove it.
          ConfigurationError: if it is no member, or this machine.

        """

        def remove() -> str:
            self._check(request, "punch members remove")
            found = [
                each
                for each in list_members(self._home)
                if each.machine == machine and not each.is_out
            ]
            if not found:
                raise ConfigurationError("no member has that key any more")
            remove_member(self._home, PeerId(machine))
            return f"{found[0].name or machine} was removed from {self._home.namespace}"

        return await trio.to_thread.run_sync(remove, limiter=self._reading)

    def _check(self, request: Request, command: str) -> None:
        hindrance = self._hindrance(request, command, is_admin=self._home.is_admin)
        if hindrance is not None:
            raise NotPermitted(hindrance)


def _member_row(member: MemberStatus, now: float) -> Row:
    return {
        "machine": member.machine,
        "name": short_word(member.name) if member.name else None,
        "state": member.state,
        "here": member.is_this_machine,
        "connected": member.is_connected,
        "admin": member.is_admin,
        "scopes": sorted(map(short_word, member.scopes)),
        "owner": member.owner,
        "ends": member.ends or None,
        # The clock may have been set back meanwhile.
        "seen": max(0, round(now - member.seen)) if member.seen else None,
    }


def _invite_row(invite: InviteStatus, now: float) -> Row:
    return {
        "id": invite.identifier,
        "state": invite.state,
        "uses": invite.uses,
        "left": invite.uses_left,
        "seconds": max(0, round(invite.ends - now)),
        "name": short_word(invite.name) if invite.name else None,
        "mine": invite.mine,
        "short": invite.short,
        "used_by": [short_word(name) for name in invite.used_by[:MAX_USES]],
    }


async def _wish_of(request: Request) -> Wish:
    """What the form says, checked field by field.

    Raises:
      InvalidRequest: naming the field and its rule.

    """
    try:
        with trio.fail_after(MAX_FORM_SECONDS):
            body = await _body_of(request)
    except trio.TooSlowError:
        raise InvalidRequest(
            f"the form was not complete within {MAX_FORM_SECONDS:.0f} s: send it faster"
        ) from None
    try:
        given = _json(body)
    except (ValueError, RecursionError):
        raise InvalidRequest("the form is no JSON object") from None
    known = {field.name for field in attrs.fields(Wish)}
    if unknown := sorted(given.keys() - known):
        raise InvalidRequest(f"the form has {unknown[0][:40]!r}; it has {', '.join(sorted(known))}")
    wish = Wish(
        uses=_number(given, "uses", 1, most=MAX_USES) or 1,
        seconds=_number(given, "seconds", MIN_SECONDS, most=MAX_SECONDS),
        name=_text(given, "name"),
        mine=_switch(given, "mine"),
        short=_switch(given, "short"),
    )
    if wish.short and wish.uses > 1:
        raise InvalidRequest.about("uses", "must be 1 for a short code, which is good for one try")
    return wish


async def _body_of(request: Request) -> bytes:
    body = b""
    async with aclosing(request.stream()) as pieces:
        async for piece in pieces:
            body += piece
            if len(body) > MAX_FORM_BYTES:
                raise InvalidRequest(f"the form has more than {MAX_FORM_BYTES} bytes")
    return body


def _json(body: bytes) -> dict[str, Any]:
    found = json.loads(body or b"{}")
    if not isinstance(found, dict):
        raise ValueError("no object")
    return found


def _number(given: dict[str, Any], name: str, least: int, *, most: int) -> int | None:
    value = given.get(name)
    if value is None:
        return None
    if type(value) is not int or not least <= value <= most:
        raise InvalidRequest.about(name, f"must be a whole number from {least} to {most}")
    return value


def _text(given: dict[str, Any], name: str) -> str:
    value = given.get(name) or ""
    if not isinstance(value, str) or len(value) > MAX_NAME_CHARACTERS or not value.isprintable():
        raise InvalidRequest.about(
            name, f"must be a text of one line, at most {MAX_NAME_CHARACTERS} characters"
        )
    return value.strip()


def _switch(given: dict[str, Any], name: str) -> bool:
    value = given.get(name, False)
    if type(value) is not bool:
        raise InvalidRequest.about(name, "must be true or false")
    return value
