"""Decides which namespace `punch up` is in, and which one it may drop; it makes and drops none.

A namespace that it makes is closed. Whatever is said counts: a setting first, then the one that
this machine has joined, then the one of several that `up` was moved into last.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from ...exceptions import ConfigurationError
from ...membership import Home, MemberStatus
from ...settings import NetworkSettings, Origin

DEFAULT_NAME = "home"
"""What a namespace is called that nobody has named."""

MADE = "made-by-up"
"""A file in the folder of a namespace that `punch up` has made, unasked."""

LAST = "up-was-here"
"""A file in the folder of the namespace that `punch up` was moved into last."""


@attrs.frozen
class Make:
    """A closed namespace is to be made."""

    name: str
    """What to call it."""


@attrs.frozen
class Enter:
    """A namespace that was joined is to be entered."""

    home: Home
    """The namespace."""


@attrs.frozen
class AsSaid:
    """The namespace that the settings say, whichever that is."""


Choice = Make | Enter | AsSaid


def choose_namespace(
    network: NetworkSettings, homes: Sequence[Home], *, unused: Sequence[Home] = ()
) -> Choice:
    """The namespace to be in.

    Args:
      network: What the settings say.
      homes: The closed namespaces that this machine is a member of.
      unused: Those of them that may be dropped, see `may_drop`: what was joined since is meant.

    Raises:
      ConfigurationError: if it is in several, and none is said.

    """
    if network.origin("namespace").layer != "default":
        return AsSaid()
    if not homes:
        return Make(DEFAULT_NAME)
    used = [home for home in homes if home not in unused]
    if len(homes) == 1 or len(used) == 1:
        return Enter((used or homes)[0])
    last = [home for home in homes if home.folder.exists(LAST)]
    if len(last) == 1:
        return Enter(last[0])
    names = [str(home.namespace) for home in homes]
    raise ConfigurationError(
        f"this machine is a member of several namespaces: {', '.join(names)}; say which one with "
        f"--namespace {names[0]}, or once for all with: punch settings set namespace {names[0]}"
    )


def in_namespace(network: NetworkSettings, home: Home) -> NetworkSettings:
    """*network* with *home* said, so that all parts of the program mean the same one."""
    return attrs.evolve(
        network,
        namespace=str(home.namespace),
        origins={**network.origins, "namespace": Origin(layer="flag", name="--namespace")},
    )


def may_drop(home: Home, members: Sequence[MemberStatus]) -> bool:
    """Whether nobody loses anything with a namespace: `up` made it, and nobody else came.

    Args:
      home: The namespace, which `up` is in no longer.
      members: Who is in it, as `list_members` says.

    """
    return (
        home.folder.exists(MADE)
        and all(each.is_this_machine for each in members)
        and not any(
            # Another program of this machine is in it.
            each.is_connected
            for each in members
        )
    )
