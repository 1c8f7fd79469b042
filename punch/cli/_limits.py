"""Makes of the limits that were set for members what a listener takes, and warns of idle ones.

A limit that names nobody, or no model, is no error: a member may come later, and a model too. But
it is most often a slip, and would be noticed only when it is missed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .._logs import get_logger
from ..access import decode_chain, is_name
from ..admission import Caps
from ..capability import Capability, PeerId
from ..exceptions import ConfigurationError, RemoteProtocolError
from ..membership import DiskMembership, MemberRecord, read_members
from ..routing.names import stands_for
from ..settings import ListenerSettings
from ._namespace import Place

log = get_logger("punch.listener")

# Members that are limited by one listener: more than a household has, and far less than would be
# felt when a session begins.
MAX_LIMITED = 256


def caps_of_members(settings: ListenerSettings, place: Place) -> dict[str, Caps]:
    """What single members may ask for, by the name or the identity that was said.

    Raises:
      ConfigurationError: if the namespace is open, a member is there twice, or there are too many.

    """
    said = settings.said("limit")
    if settings.limit and place.home is None:
        raise ConfigurationError(
            f"{said} limits {settings.limit[0].member!r}, and the namespace {place} is open: there "
            "everybody takes another identity at will. Limit all strangers (--stranger-tokens, "
            "--stranger-seconds, --stranger-priority), or make a closed namespace (`punch "
            "namespace create`)"
        )
    if len(settings.limit) > MAX_LIMITED:
        raise ConfigurationError(
            f"{said} limits {len(settings.limit)} members, and {MAX_LIMITED} are the most: limit "
            "all strangers, and let those have more who may"
        )
    found: dict[str, Caps] = {}
    for each in settings.limit:
        if each.member in found:
            raise ConfigurationError(
                f"{said} names {each.member!r} twice: say all limits of a member in one"
            )
        found[each.member] = Caps(
            max_output=each.tokens,
            max_seconds=each.seconds,
            max_priority=each.priority,
            models=each.models,
            hours=each.hours,
        )
    return found


def caps_of_strangers(settings: ListenerSettings) -> Caps:
    """What peers of other owners may ask for."""
    return Caps(
        max_output=settings.stranger_tokens,
        max_seconds=settings.stranger_seconds,
        max_priority=settings.stranger_priority,
    )


def warn_of_names(limits: Mapping[str, Caps], membership: DiskMembership) -> None:
    """Warn of each limit that names no member that is known here, several, or this machine."""
    if not limits:
        return
    home = membership.home
    records = [each for each in read_members(home.folder).values() if _is_member(each, membership)]
    for name in limits:
        machines = {each.machine for each in records if name in _names_of(each)}
        machines |= {each.machine for each in records if _is_hidden_name(name, each)}
        if name in (home.machine, home.name):
            machines.add(home.machine)
        if home.machine in machines:
            log.warning(
                "a limit names this machine, whose own programs are never limited", member=name
            )
        elif not machines:
            log.warning(
                "a limit names no member that this machine has heard of yet; `punch members list` "
                "has those that it has",
                member=name,
            )
        if len(machines) > 1:
            log.warning(
                "a limit names several members, and holds for each of them: say the identity of "
                "the one that is meant",
                member=name,
                machines=sorted(machines),
            )


def _is_member(record: MemberRecord, membership: DiskMembership) -> bool:
    return record.number > membership.lock.removed_up_to(record.machine)


def _names_of(record: MemberRecord) -> Iterator[PeerId | str]:
    yield record.machine
    if record.shown:
        yield record.shown


def _is_hidden_name(name: str, record: MemberRecord) -> bool:
    """Whether the grant of a member that has shown one is for a machine of this name."""
    try:
        chain = decode_chain(record.chain)
    except RemoteProtocolError:
        return False
    return is_name(name, chain[-1].grant.name)


def warn_of_models(limits: Mapping[str, Caps], capability: Capability) -> None:
    """Warn of each limit whose models are none of those on offer."""
    offered = [offer.name for offer in capability.models]
    for name, caps in limits.items():
        idle = [
            model
            for model in sorted(caps.models or ())
            if offered and not any(stands_for(model, each) for each in offered)
        ]
        if idle:
            log.warning(
                "a limit allows models that are not on offer here",
                member=name,
                models=idle,
                offered=offered,
            )
