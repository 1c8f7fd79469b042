"""A bootstrap as a source of the directory: found by its address, and met there for ever.

What is said on the stream to it is in `attendance`. Also reads the addresses of bootstraps as
people write them. The bootstrap's own side is in `punch.bootstrap`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from contextlib import nullcontext

import trio

from .._logs import get_logger
from ..capability import PeerId
from ..exceptions import (
    ConfigurationError,
    NetworkError,
    PeerUnreachable,
    RemoteProtocolError,
)
from ..network import Address, Node, parse_address
from ._known_peers import KnownPeers, who_is_at
from ._meeting import BOOTSTRAP_PORT, PROTOCOL
from ._quiet import Lasting
from ._source import Announce, Found, Sighting
from .attendance import Attendance, Attended, Checks

log = get_logger(__name__)

# A bootstrap that restarts is back in seconds. A thousand peers dial one that is away two hundred
# times a second at most, which a starting process can refuse.
MIN_RETRY_SECONDS = 0.5
MAX_RETRY_SECONDS = 5.0

# Each is a stream that is renewed for ever. Three machines that are never off at the same time
# are enough; a dozen is a mistake in a settings file.
MAX_BOOTSTRAPS = 16

# ``HOST``, ``HOST:PORT``, ``[IPV6]:PORT``; a bare IPv6 address has colons of its own.
_PLACE = re.compile(r"(?:\[(?P<ip6>[^\[\]]+)\]|(?P<host>[^:\[\]/\s]+))(?::(?P<port>\d{1,5}))?")


def parse_bootstrap(text: str, *, setting: str = "bootstrap") -> Address:
    """The address of a bootstrap as people write it.

    A multiaddress, ``HOST:PORT``, or a name or IP address alone, which means port 51820. An IPv6
    address with a port is written in brackets.

    Raises:
      ConfigurationError: naming *setting*, the text and the forms there are.

    """
    text = text.strip()
    if text.startswith("/"):
        return parse_address(text, setting=setting)
    match = _PLACE.fullmatch(text)
    host = text if match is None else match["ip6"] or match["host"]
    host, percent, zone = host.partition("%")
    port = BOOTSTRAP_PORT if match is None or match["port"] is None else int(match["port"])
    try:
        kind = f"ip{ipaddress.ip_address(host).version}"
    except ValueError:
        # The last label of a name is never a number (RFC 3696, section 2): `51820` alone, or an
        # IPv4 address with a slip, is a mistake and no name.
        kind = "" if host.rpartition(".")[2].isdigit() else "dns"
    brackets = match is not None and match["ip6"] is not None
    if (
        not kind
        or port == 0
        or bool(percent) != bool(zone)
        or brackets != (kind == "ip6" and match is not None)
    ):
        raise _bad_bootstrap(text, setting)
    try:
        where = f"/ip6zone/{zone}" if zone else ""
        return parse_address(f"{where}/{kind}/{host}/tcp/{port}", setting=setting)
    except ConfigurationError:
        raise _bad_bootstrap(text, setting) from None


def _bad_bootstrap(text: str, setting: str) -> ConfigurationError:
    return ConfigurationError(
        f"{setting} is {text!r}: write HOST:PORT, [IPV6]:PORT, a name alone (port "
        f"{BOOTSTRAP_PORT}), or a multiaddress such as /ip4/192.168.1.10/tcp/{BOOTSTRAP_PORT}, "
        "with or without /p2p/PEER_ID"
    )


def parse_bootstraps(
    texts: str | Address | Iterable[str | Address], *, setting: str = "bootstrap"
) -> tuple[Address, ...]:
    """All addresses of *texts*; one text may hold several with commas in between.

    Raises:
      ConfigurationError: if one is no address, or there is none.

    """
    several = (texts,) if isinstance(texts, str | Address) else texts
    found: list[Address] = []
    for text in several:
        if isinstance(text, Address):
            found.append(text)
        else:
            parts = (part for part in text.split(",") if part.strip())
            found += [parse_bootstrap(part, setting=setting) for part in parts]
    if not found:
        raise ConfigurationError(
            f"{setting} is empty: give at least one address, such as HOST:{BOOTSTRAP_PORT}, "
            "or leave it out for this machine's own"
        )
    return tuple(dict.fromkeys(found))


class BootstrapSource:
    """A source that is a bootstrap; tried again for ever while that is away.

    Args:
      node: Our own node.
      address: Address of the bootstrap.
      known: The identities that bootstraps had before.
      namespace: The namespace whose members we look for there.
      checks: What is asked of each registration; by default what an open namespace asks.
      attended: In a closed namespace whom we meet already, so that no member is met twice.

    """

    def __init__(
        self,
        node: Node,
        address: Address,
        *,
        known: KnownPeers,
        namespace: str,
        checks: Checks | None = None,
        attended: Attended | None = None,
    ) -> None:
        self.name = f"bootstrap {address}"
        """Name of the source, for people."""
        self._node = node
        self._address = address
        self._known = known
        self._attendance = Attendance(checks or Checks(node, namespace), namespace)
        self._attended = attended
        self._away = Lasting()

    async def run(self, announce: Announce, found: Found) -> None:
        """Stay registered, for ever."""
        delay = MIN_RETRY_SECONDS
        while True:
            began = trio.current_time()
            try:
                await self._meet(announce, found)
            except (PeerUnreachable, RemoteProtocolError) as error:
                # A fault of the network and of no peer: a dialer that asks now has no peer yet.
                trouble = NetworkError(f"the bootstrap is out of reach: {error}")
                found(Sighting(trouble=trouble))
                if self._away.goes_on(trio.current_time()):
                    log.info(
                        "the bootstrap is out of reach; still trying",
                        address=str(self._address),
                        why=str(error),
                    )
            except NetworkError as error:
                found(Sighting(trouble=error, is_final=True))
                if self._away.goes_on(trio.current_time()):
                    log.error(
                        "the bootstrap cannot be used", address=str(self._address), why=str(error)
                    )
            # The bootstrap worked for a while: this is a new trouble and not the last one.
            if trio.current_time() - began > MAX_RETRY_SECONDS:
                delay = MIN_RETRY_SECONDS
            with trio.move_on_after(delay) as pause:
                await self._node.moved.wait()
            # From another address of ours the way may be open at once.
            delay = min(2 * delay, MAX_RETRY_SECONDS) if pause.cancelled_caught else 0.0
            delay = max(delay, MIN_RETRY_SECONDS)

    async def _meet(self, announce: Announce, found: Found) -> None:
        peer_id = await who_is_at(self._node, self._address, self._known)
        with nullcontext() if self._attended is None else self._attended.claimed(peer_id):
            await self._meet_there(peer_id, announce, found)

    async def _meet_there(self, peer_id: PeerId, announce: Announce, found: Found) -> None:
        try:
            stream = await self._node.open_stream(peer_id, (str(self._address),), PROTOCOL)
        except PeerUnreachable as error:
            if error.why == "no_protocol":
                raise PeerUnreachable(
                    f"a libp2p peer is at {self._address}, and it is no bootstrap of punch "
                    f"({error.message}); a bootstrap has port {BOOTSTRAP_PORT} if nothing else "
                    "was said, and a listener another one",
                    why=error.why,
                ) from error
            raise

        def is_back() -> None:
            away = self._away.ended(trio.current_time())
            if away is not None:
                log.info("the bootstrap is back", address=str(self._address), seconds=round(away))

        await self._attendance.hold(stream, announce, found, listed=is_back)


def bootstrap_sources(
    node: Node,
    addresses: Iterable[Address],
    *,
    known: KnownPeers,
    namespace: str,
    checks: Checks | None = None,
    attended: Attended | None = None,
) -> tuple[BootstrapSource, ...]:
    """A source for each of *addresses*; the same place given twice is one source.

    Raises:
      ConfigurationError: if there are more than `MAX_BOOTSTRAPS`.

    """
    places = tuple(dict.fromkeys(addresses))
    if len(places) > MAX_BOOTSTRAPS:
        raise ConfigurationError(
            f"there are {len(places)} bootstraps; at most {MAX_BOOTSTRAPS} can be given: "
            "two or three that are rarely off at the same time are enough"
        )
    checks = checks or Checks(node, namespace)
    return tuple(
        BootstrapSource(
            node, place, known=known, namespace=namespace, checks=checks, attended=attended
        )
        for place in places
    )
