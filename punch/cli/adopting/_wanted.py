"""Makes of the settings of adopted servers what is to be adopted, keys and places included."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from ...adoption import Adoption, Given, Place, open_adoption, places_of
from ...exceptions import ConfigurationError
from ...listener import Listener
from ...network import own_hosts
from ...settings import Adoptee, AdoptingSettings

# What no key has; a file of more is another file.
MAX_KEY_BYTES = 16 * 1024


def as_given(adoptee: Adoptee, environment: Mapping[str, str]) -> Given:
    """The server that *adoptee* names, with its key.

    Raises:
      ConfigurationError: if the key is not where it should be.

    """
    return Given(
        url=adoptee.url,
        model=adoptee.model,
        features=frozenset(adoptee.features) or None,
        context=adoptee.context,
        slots=adoptee.slots,
        key=None if adoptee.key is None else _key(adoptee, adoptee.key, environment),
    )


def _key(adoptee: Adoptee, place: str, environment: Mapping[str, str]) -> str:
    if place.startswith("@"):
        key = environment.get(place[1:], "").strip()
        if not key:
            raise ConfigurationError(
                f"the key of {adoptee.url} is to be in the variable {place[1:]}, which is not set: "
                "set it where punch is started, or name a file with key=FILE"
            )
        return key
    path = Path(place).expanduser()
    try:
        data = path.read_bytes()[: MAX_KEY_BYTES + 1]
    except OSError as error:
        raise ConfigurationError(
            f"the key of {adoptee.url} is to be in the file {path}: {error.strerror}; write it "
            "there, alone and on one line"
        ) from None
    if not data.strip() or len(data) > MAX_KEY_BYTES:
        raise ConfigurationError(
            f"the file {path} is to hold the key of {adoptee.url}, alone and on one line"
        )
    return data.decode(errors="replace").strip()


def wanted(
    settings: AdoptingSettings, *, is_closed: bool, environment: Mapping[str, str] | None = None
) -> tuple[tuple[Given, ...], tuple[Place, ...]]:
    """The servers to adopt, and the places to look at: what `Adoption.update` takes.

    Args:
      settings: The settings.
      is_closed: Whether the namespace is: in an open one nothing is found unless asked for.
      environment: The variables; by default those of this process.

    Raises:
      ConfigurationError: if a key is not where it should be.

    """
    environment = os.environ if environment is None else environment
    if settings.off:
        return (), ()
    given = tuple(as_given(each, environment) for each in settings.servers)
    if not settings.finds(is_closed=is_closed):
        return given, ()
    return given, tuple(places_of(environment, frozenset(own_hosts())))


@asynccontextmanager
async def open_adoption_of(
    settings: AdoptingSettings,
    listener: Listener,
    *,
    is_closed: bool,
    ours: Callable[[], Iterable[str]] = tuple,
) -> AsyncIterator[Adoption]:
    """Adopt what *settings* say, for as long as the context lasts.

    Args:
      settings: The settings.
      listener: Gets a lane for each server.
      is_closed: Whether the namespace is.
      ours: Gives the addresses that are never adopted; see `punch.adoption.open_adoption`.

    Raises:
      ConfigurationError: if an address or a key makes no sense.

    """
    given, places = wanted(settings, is_closed=is_closed)
    async with open_adoption(listener, given=given, places=places, ours=ours) as adoption:
        yield adoption
