"""A member of the directory as dialers see it, with those of its addresses that may be dialled."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import attrs

from ..capability import PeerId
from ..exceptions import ConfigurationError
from ..network import Address, parse_address, unfit
from ..wire import Reach, Registration, short_word

# Members that one source may list: more than any bootstrap keeps for one namespace. What a source
# lists beyond that is ignored, so that a hostile one fills no memory.
MAX_LISTED = 4096


@attrs.frozen(kw_only=True)
class KnownMember:
    """A peer of our namespace that does more than dial, by its own signed word."""

    peer_id: PeerId
    """Identity of the member."""

    addresses: tuple[str, ...]
    """Multiaddresses where the member can be dialled."""

    incarnation: int
    """Grows each time the member starts."""

    roles: frozenset[str] = frozenset({"listener"})
    """Roles of the member; some may be unknown here."""

    unfit: tuple[str, ...] = ()
    """Further addresses that it names and that are not dialled, each with the reason."""

    sources: frozenset[str] = attrs.field(default=frozenset(), eq=False)
    """Names of the sources that list the member. Two values that differ in nothing else are equal:
    a listener is not dialled anew because one more source has found it."""

    reach: Reach | None = attrs.field(default=None, eq=False)
    """How bootstraps could dial the member; `None` if none has said."""

    sequence: int = attrs.field(default=0, eq=False)
    """Grows each time the member's registration is told anew: when it moved, or came back."""


def known_member(
    registration: Registration,
    sources: set[str],
    *,
    is_near: bool,
    reach: Reach | None,
    on_link: tuple[str, ...] = (),
) -> KnownMember:
    """What the directory says of a member, with those of its addresses that may be dialled.

    Args:
      registration: What the member says.
      sources: Names of the sources that list it.
      is_near: Whether it is on this machine.
      reach: How bootstraps could dial it.
      on_link: Where it was found on a link of ours; dialled last.

    """
    addresses, refused = _sorted_out(registration.addresses, is_near)
    return KnownMember(
        peer_id=registration.peer_id,
        addresses=tuple(dict.fromkeys((*addresses, *on_link))),
        incarnation=registration.incarnation,
        sequence=registration.sequence,
        reach=reach,
        roles=registration.roles,
        unfit=refused,
        sources=frozenset(sources),
    )


def with_role(members: Mapping[PeerId, KnownMember], role: str) -> dict[PeerId, KnownMember]:
    """Those of *members* that have *role*, whatever others they have."""
    return {peer_id: member for peer_id, member in members.items() if role in member.roles}


@lru_cache(maxsize=MAX_LISTED)
def _sorted_out(
    addresses: tuple[str, ...], is_near: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The addresses to dial, each once, and the others with their reasons; cached."""
    fit: dict[Address | str, str] = {}
    refused: dict[str, None] = {}
    for text in addresses:
        try:
            address = parse_address(text, relayed=True)
        except ConfigurationError:
            # The node says what it does not understand, and dials nothing.
            fit.setdefault(text, text)
            continue
        why = None if is_near else unfit(address)
        if why is None:
            fit.setdefault(attrs.evolve(address, peer_id=None), text)
        else:
            refused[f"{short_word(text)}: {why}"] = None
    return tuple(fit.values()), tuple(refused)
