"""Makes values of settings that several programs have: addresses, and the usual files."""

from __future__ import annotations

import shlex
from pathlib import Path

import attrs

from ..discovery import KnownPeers, parse_bootstraps
from ..discovery.lan import Lan, real_lan
from ..exceptions import ConfigurationError
from ..membership import Home, homes
from ..network import Address
from ..settings import LendingSettings, NetworkSettings, data_folder


def bootstraps(settings: NetworkSettings) -> tuple[Address, ...]:
    """The addresses where the namespace meets, with the transport that this peer dials with.

    Raises:
      ConfigurationError: if one is no address; the text has the setting, its value and the forms.

    """
    said = settings.said("bootstrap")
    return tuple(
        place.reached_by(settings.transport, setting=said)
        for place in parse_bootstraps(settings.bootstrap, setting=said)
    )


@attrs.frozen(kw_only=True)
class JoinLines:
    """What to type so that one more listener is there."""

    here: str
    """On this machine."""

    elsewhere: str | None
    """On another one; `None` if no other machine reaches any of the bootstraps."""

    closed: str | None = None
    """The closed namespace that this is for; `None` for an open one. There *elsewhere* is what
    makes the other machine a member, by an invite."""

    invite: str | None = None
    """What makes an invite, on this machine; `None` if it may let nobody in."""


def join_lines(settings: NetworkSettings, home: Home | None = None) -> JoinLines:
    """The whole line that starts a listener of this network, here and on another machine.

    Args:
      settings: Which network it is.
      home: The closed namespace, if it is one: knowing its name and an address is not enough there.

    """
    if home is not None:
        said = f" --namespace {shlex.quote(str(home.namespace))}"
        is_only = len(homes(home.folder.path.parent)) == 1
        which = "" if is_only else said
        return JoinLines(
            here=f"punch listener{which}",
            elsewhere="punch join",
            closed=str(home.namespace),
            invite=f"punch invite{which}" if home.is_admin else None,
        )
    line = f"punch listener --namespace {shlex.quote(settings.namespace)}"
    places = bootstraps(settings)
    reached = [str(place) for place in places if not place.is_loopback()]
    usual = places == parse_bootstraps(NetworkSettings().bootstrap)
    here = "" if usual else f" --bootstrap {shlex.quote(','.join(map(str, places)))}"
    elsewhere = f"{line} --bootstrap {shlex.quote(','.join(reached))}" if reached else None
    return JoinLines(here=line + here, elsewhere=elsewhere)


def known_peers(settings: NetworkSettings) -> KnownPeers:
    """The identities that bootstraps had before: the file of *settings*, or the usual one."""
    return KnownPeers(settings.known_peers or data_folder() / "known_peers")


def lan_of(settings: NetworkSettings, *, is_closed: bool = False) -> Lan | None:
    """Where to look for members nearby; `None` if it is not to be, or nothing leaves here.

    Unless said, only in a closed namespace: in an open one, anybody on a LAN who says its name
    would be asked and be shown prompts. One that meets on loopback is of this machine alone.
    """
    wanted = is_closed if settings.lan is None else settings.lan
    if not wanted or (not is_closed and meets_here(settings)):
        return None
    return real_lan(settings.lan_interfaces)


def lan_to_hear(settings: NetworkSettings) -> Lan | None:
    """Where a program of an open namespace listens for a closed one of that name.

    `None` if it is not to, if it looks for members there anyway, or if nothing leaves here.
    """
    if settings.lan is not None or meets_here(settings):
        return None
    return real_lan(settings.lan_interfaces)


def meets_here(settings: NetworkSettings) -> bool:
    """True if all bootstraps are on loopback: an open namespace is then of this machine alone."""
    return all(place.is_loopback() for place in bootstraps(settings))


def decision_log_path(given: str | None) -> Path | None:
    """The decision log: the file that was *given*, the usual one, or `None` for none at all."""
    if given is not None and given.strip().lower() == "none":
        return None
    return Path(given).expanduser() if given else data_folder() / "decisions.jsonl"


def keys_path(given: Path | None) -> Path:
    """The file of the gateway's API keys: the one that was *given*, or the usual one."""
    return given or data_folder() / "gateway.sqlite3"


def check_lend_to(settings: LendingSettings, *, is_open: bool) -> None:
    """Refuse to lend to everybody who knows the name of an open namespace.

    Raises:
      ConfigurationError: if the namespace is open and nobody is named.

    """
    if is_open and not settings.lend_to:
        raise ConfigurationError(
            "the namespace is open, and nobody may borrow here: name who may with "
            f"{settings.said('lend_to')} PEER_ID, or close the namespace with "
            "`punch namespace create`, whose members borrow by the scope of that name"
        )
