"""Who is a member, as people see it: by name, with what is known; what people do about it.

A person means a machine by its name, by its key, or by an end of the key that no other has. What
could mean several, or nobody, is an error that says which there are.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Iterable
from typing import Literal

import attrs

from ...access import KEY_BYTES, Lock, Member, Refusal, fault_of_member_name, key_of
from ...capability import PeerId
from ...exceptions import ConfigurationError, LocalProtocolError
from .._home import Home, record_of
from .._members import MemberRecord, call_member, named, read_members
from .._removing import read_removals, remove_machine
from .._running import running_now, seen_now, serving
from ..nearby import NearbyRequest, approve_request, find_request, read_requests, refuse_request
from ..nearby import is_digits as looks_like_digits

State = Literal["member", "ended", "removed", "left"]

# An end of a key that people may say in place of it: less is no one's.
MIN_END_CHARACTERS = 6

# Names that an error lists at most.
MAX_LISTED = 8


@attrs.frozen(kw_only=True)
class MemberStatus:
    """A machine that is, or was, a member, as far as this machine knows."""

    machine: PeerId
    """The key of the machine."""

    name: str
    """What people call it here; empty if nobody has said."""

    own_name: str
    """What it is called in the namespace, whatever it is called here."""

    owner: PeerId | None
    """Whose machine it is: a machine key."""

    scopes: frozenset[str]
    """What its grant allows."""

    ends: int
    """End of its grant, in seconds of UTC since 1970; 0 if that is not known."""

    state: State
    """Whether its grant counts, or has ended, or it was removed, or an admin above it with it; or
    whether it has left."""

    is_this_machine: bool
    """Whether it is the machine that says this."""

    is_connected: bool
    """Whether a program of this machine has a session with it now, or meets it now; of this machine
    itself, whether a program runs here."""

    seen: int
    """When a program of this machine last heard of it, by the clock of this machine, in seconds
    since 1970; 0 if none ever did. A program that runs writes it every few minutes."""

    addresses: tuple[str, ...]
    """Where it said to be then, as multiaddresses; none of a machine that only asks."""

    @property
    def is_out(self) -> bool:
        """Whether it was removed, or has left."""
        return self.state in ("removed", "left")

    @property
    def is_admin(self) -> bool:
        """Whether it may let others in."""
        return "admin" in self.scopes


def list_members(home: Home) -> tuple[MemberStatus, ...]:
    """The machines that this one knows to be, or to have been, members; as ``punch members list``.

    This machine comes first, then the others by name, and at the end those that are members no
    longer.

    Args:
      home: The namespace.

    """
    lock, now, seen = read_removals(home), time.time(), seen_now(home)
    records = read_members(home.folder)
    own = record_of(home.chain(), called=home.name, now=0)
    records[own.machine] = records[own.machine].merged(own) if own.machine in records else own
    found = []
    for record in records.values():
        verdict = lock.judge(record.machine, record.chain, now) if record.chain else None
        state = _state(record, verdict, lock, now)
        is_here = record.machine == home.machine
        found.append(
            MemberStatus(
                machine=record.machine,
                name=record.shown,
                own_name=record.name,
                owner=record.owner,
                scopes=record.scopes,
                ends=record.ends,
                state=state,
                is_this_machine=is_here,
                is_connected=bool(running_now(home)) if is_here else record.machine in seen,
                seen=record.seen,
                addresses=tuple(map(str, serving(home))) if is_here else record.addresses,
            )
        )
    return tuple(sorted(found, key=_order))


def _order(status: MemberStatus) -> tuple[bool, bool, bool, str, PeerId]:
    is_out = status.state != "member"
    name = status.name.casefold()
    return is_out, not status.is_this_machine, not name, name, status.machine


def _state(record: MemberRecord, verdict: Member | Refusal | None, lock: Lock, now: float) -> State:
    rule = verdict.rule if isinstance(verdict, Refusal) else ""
    if 0 < record.number <= lock.removed_up_to(record.machine, by_others=True):
        return "removed"
    if 0 < record.number <= lock.removed_up_to(record.machine):
        return "left"
    if rule == "revoked":
        return "removed"
    if rule == "expired" or (verdict is None and 0 < record.ends < now):
        return "ended"
    return "member"


def find_member(home: Home, who: str) -> MemberStatus:
    """The member that *who* means: by name, by key, or by the end of its key.

    A machine that is a member no longer is meant by its key alone.

    Args:
      home: The namespace.
      who: What a person says.

    Raises:
      ConfigurationError: if there is none, or several could be meant.

    """
    everybody = list_members(home)
    members = [each for each in everybody if not each.is_out]
    who = who.strip()
    for found in (
        [each for each in everybody if each.machine == who],
        [each for each in members if each.name == who],
        [each for each in members if each.own_name == who],
        [each for each in members if who and each.name.casefold() == who.casefold()],
        [
            each
            for each in members
            if len(who.lstrip(".")) >= MIN_END_CHARACTERS and each.machine.endswith(who.lstrip("."))
        ],
    ):
        if len(found) == 1:
            return found[0]
        if found:
            keys = ", ".join(each.machine for each in found[:MAX_LISTED])
            raise ConfigurationError(
                f"{len(found)} machines of {home.namespace} are called {who!r}: say which by its "
                f"key or by the end of it: {keys}"
            )
    raise ConfigurationError(
        f"no member of {home.namespace} is called {who!r}, as far as this machine knows; "
        + _alike(who, members)
    )


def _alike(who: str, members: Iterable[MemberStatus]) -> str:
    names = {each.name.casefold(): each.name for each in members if each.name}
    close = difflib.get_close_matches(who.casefold(), names, n=3)
    if close:
        return f"is it {' or '.join(names[each] for each in close)}?"
    return "`punch members list` has them"


def rename_member(home: Home, who: str, name: str) -> MemberStatus:
    """Call a machine *name* on this machine; as ``punch members rename``.

    The others call it as before. With its own name it is called by that again.

    Args:
      home: The namespace.
      who: The machine, see `find_member`.
      name: What to call it.

    Raises:
      ConfigurationError: if no machine is meant, another has the name, or it is none.

    """
    member = find_member(home, who)
    fault = fault_of_member_name(name)
    if fault is None and (named(name) != name or _is_key(name)):
        fault = "must be a name, without space around it, and no key"
    if fault is not None:
        raise ConfigurationError(f"the name is {name[:80]!r}: it {fault}")
    for each in list_members(home):
        taken = {each.name.casefold(), each.own_name.casefold()}
        if each.machine != member.machine and not each.is_out and name.casefold() in taken:
            raise ConfigurationError(
                f"{each.machine} is called {name!r} already: choose another name, or rename that "
                "one first"
            )
    called = "" if name == member.own_name else name
    call_member(home.folder, member.machine, called)
    return attrs.evolve(member, name=name)


def remove_member(home: Home, who: str, *, keep: bool = True) -> PeerId:
    """Remove a machine for good, at once and everywhere; as ``punch members remove``.

    It comes back by a new invite only. Running programs of this machine end its sessions within a
    second and tell the other members; where none runs, they are told when one starts.

    Args:
      home: The namespace, of which this machine is an admin.
      who: The machine, see `find_member`; a whole key is removed though nobody knows it. An admin
        is removed with the root's key, which must be here.
      keep: Whether those stay whom a removed admin has let in. That they go, too, takes the root's
        key.

    Returns:
      The key of the machine.

    Raises:
      NotPermitted: if this machine may not remove it.
      ConfigurationError: if no machine is meant, it is this one, or the removal cannot be written.

    """
    who = who.strip()
    machine = PeerId(who) if _is_key(who) else find_member(home, who).machine
    if machine == home.machine:
        raise ConfigurationError(
            f"{who} is this machine: `punch leave {home.namespace}` takes it out"
        )
    remove_machine(home, machine, keep=keep)
    return machine


def _is_key(text: str) -> bool:
    try:
        return len(key_of(PeerId(text))) == KEY_BYTES
    except LocalProtocolError:
        return False


# ---- machines that ask to be let in ----


def list_newcomers(home: Home) -> tuple[NearbyRequest, ...]:
    """The machines that ask to be let in by ``punch join --nearby``; at most 16.

    Programs of this machine take their requests while they serve.

    Args:
      home: The namespace.

    """
    found = read_requests(home, now=time.time())
    return tuple(each for each in found if each.state == "waiting")


def approve_newcomer(
    home: Home,
    digits: str | NearbyRequest,
    *,
    scopes: Iterable[str] = (),
    mine: bool = False,
    name: str = "",
) -> NearbyRequest:
    """Let a machine in that asks; as ``punch members approve``.

    The program that it has asked does so within a second.

    Args:
      home: The namespace, of which this machine is an admin.
      digits: What the machine's own screen shows, or the request that shows the same.
      scopes: What the machine may do; by default as for an invite.
      mine: Whether the machine is of the same owner as this one.
      name: What to call it; by default as it says.

    Raises:
      NotPermitted: if this machine is no admin, or has not all of *scopes*.
      ConfigurationError: if no machine shows these digits, or it asks no more.

    """
    now = time.time()
    return approve_request(
        home,
        _asking(home, digits, now=now),
        now=now,
        scopes=frozenset(scopes) or None,
        mine=mine,
        name=name,
    )


def refuse_newcomer(home: Home, digits: str | NearbyRequest) -> NearbyRequest:
    """Refuse a machine that asks, which is told; as ``punch members refuse``.

    Args:
      home: The namespace.
      digits: What the machine's own screen shows, or its request.

    Raises:
      ConfigurationError: if no machine shows these digits, or it asks no more.

    """
    now = time.time()
    return refuse_request(home, _asking(home, digits, now=now), now=now)


def _asking(home: Home, digits: str | NearbyRequest, *, now: float) -> NearbyRequest:
    if isinstance(digits, NearbyRequest):
        return digits
    if not looks_like_digits(digits):
        raise ConfigurationError(
            f"{digits[:80]!r} is not what a screen shows, such as 123 456: a machine is let in by "
            "the digits that its own screen shows, since any may call itself anything"
        )
    return find_request(home, digits, now=now)
