"""A bootstrap as a source of the directory: registers there, renews, and follows its roster.

1. There is one stream to a bootstrap at a time; on it one task renews and one task follows.
2. A bootstrap may leave members out, but it cannot make any up: what it lists is passed on only
   if the member itself signed it.

Also reads the addresses of bootstraps as people write them. The bootstrap's own side is in
`punch.bootstrap`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

import attrs
import trio

from .._logs import get_logger
from ..capability import PeerId
from ..exceptions import (
    ConfigurationError,
    NetworkError,
    NotPermitted,
    PeerUnreachable,
    PunchError,
    RemoteProtocolError,
)
from ..network import Address, Node, is_own, parse_address
from ..wire import Goodbye, Join, Ping, Registration, Roster, decode_registration, quoted
from ._dials import Pace
from ._known_peers import KnownPeers, who_is_at
from ._meeting import (
    BOOTSTRAP_PORT,
    PROTOCOL,
    RENEWAL_SECONDS,
    SILENCE_SECONDS,
    FramedStream,
    send_goodbye,
    verified,
)
from ._quiet import Lasting
from ._source import Announce, Found, Sighting

log = get_logger(__name__)

# A bootstrap that restarts is back in seconds. A thousand peers dial one that is away two hundred
# times a second at most, which a starting process can refuse.
MIN_RETRY_SECONDS = 0.5
MAX_RETRY_SECONDS = 5.0

# Each is a stream that is renewed for ever. Three machines that are never off at the same time
# are enough; a dozen is a mistake in a settings file.
MAX_BOOTSTRAPS = 16

# A signature takes a tenth of a millisecond to check: after so many others have their turn.
VERIFIED_AT_ONCE = 16

# Joins whose signatures need not be checked again: more than a bootstrap keeps for one namespace.
MAX_VERIFIED = 4096

# Rosters that are taken at once, and a second: a namespace of thousands comes in a few dozen, and
# changes are told twenty times a second at most.
ROSTER_BURST, ROSTER_RATE = 64.0, 20.0

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
    port = BOOTSTRAP_PORT if match is None or match["port"] is None else int(match["port"])
    try:
        kind = f"ip{ipaddress.ip_address(host).version}"
    except ValueError:
        # The last label of a name is never a number (RFC 3696, section 2): `51820` alone, or an
        # IPv4 address with a slip, is a mistake and no name.
        kind = "" if host.rpartition(".")[2].isdigit() else "dns"
    brackets = match is not None and match["ip6"] is not None
    if not kind or port == 0 or brackets != (kind == "ip6" and match is not None):
        raise _bad_bootstrap(text, setting)
    try:
        return parse_address(f"/{kind}/{host}/tcp/{port}", setting=setting)
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

    """

    def __init__(self, node: Node, address: Address, *, known: KnownPeers, namespace: str) -> None:
        self.name = f"bootstrap {address}"
        """Name of the source, for people."""
        self._node = node
        self._address = address
        self._known = known
        self._namespace = namespace
        # Minor version of the bootstrap; it may be the oldest until it has said otherwise.
        self._minor = 0
        self._heard = trio.Event()
        self._away = Lasting()
        self._is_near = False
        # The joins that were verified last, by their peers: a roster repeats what is known.
        self._verified: dict[PeerId, tuple[Join, Registration]] = {}
        self._rosters = Pace(ROSTER_BURST, ROSTER_RATE)

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
        self._is_near = is_own(stream)
        frames = FramedStream(stream)
        self._heard = trio.Event()
        lost: list[PunchError] = []
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._renew, frames, announce, nursery.cancel_scope, lost)
                nursery.start_soon(self._follow, frames, found, nursery.cancel_scope, lost)
        except BaseException:
            # We are leaving: tell the bootstrap, which otherwise waits for the expiry.
            with trio.CancelScope(shield=True), trio.move_on_after(1.0):
                await send_goodbye(frames, Goodbye(code="bye", message="leaving"))
            raise
        finally:
            await stream.aclose()
        raise lost[0]

    async def _renew(
        self,
        frames: FramedStream,
        announce: Announce,
        scope: trio.CancelScope,
        lost: list[PunchError],
    ) -> None:
        nonce = 0
        try:
            ours = announce()
            if self._minor < 1 and decode_registration(ours.registration).roles > {"dialer"}:
                # A bootstrap of minor 0 knows one role a peer, and tells of others only those
                # whose first word on a stream was that they dial. It lists a peer by its latest.
                await frames.send(announce(as_dialer=True))
                ours = announce()
            while True:
                nonce += 1
                altered = announce.altered
                if self._minor >= 1:
                    ours = attrs.evolve(ours, reach=announce.troubles())
                await frames.send(ours)
                await frames.send(Ping(nonce=nonce))
                with trio.move_on_after(RENEWAL_SECONDS) as renewal:
                    await altered.wait()
                if not renewal.cancelled_caught:
                    await self._heard.wait()
                    if self._minor < 1:
                        # It must hear of our roles one after the other, from the first word on.
                        raise PeerUnreachable("our roles are others, and it has to be met anew")
                ours = announce()
        except PeerUnreachable as error:
            lost.append(error)
            scope.cancel()

    async def _follow(
        self, frames: FramedStream, found: Found, scope: trio.CancelScope, lost: list[PunchError]
    ) -> None:
        try:
            while True:
                with trio.move_on_after(SILENCE_SECONDS) as patience:
                    message = await frames.receive()
                if patience.cancelled_caught:
                    raise PeerUnreachable(f"silent for {SILENCE_SECONDS:.0f} s")
                if message is None:
                    raise PeerUnreachable("the connection was lost")
                if isinstance(message, Goodbye):
                    raise NotPermitted(f"turned away ({message.code}): {quoted(message.message)}")
                if isinstance(message, Roster):
                    await trio.sleep(self._rosters.wait(trio.current_time()))
                    found(await self._sighting(message))
        except (PeerUnreachable, RemoteProtocolError, NotPermitted) as error:
            lost.append(error)
            scope.cancel()

    async def _sighting(self, roster: Roster) -> Sighting:
        if roster.namespace != self._namespace:
            raise RemoteProtocolError(f"a roster of namespace {roster.namespace!r}")
        if roster.minor < self._minor:
            # Another program answers there now, which must hear of our roles one after the other.
            self._minor = roster.minor
            raise PeerUnreachable("the bootstrap was replaced by an older one")
        self._minor = roster.minor
        self._heard.set()
        away = self._away.ended(trio.current_time())
        if away is not None:
            log.info("the bootstrap is back", address=str(self._address), seconds=round(away))
        present = []
        for number, join in enumerate(roster.present, 1):
            present.append(self._registration(join))
            if number % VERIFIED_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
        return Sighting(
            present=tuple(present),
            gone=roster.gone,
            is_whole=roster.whole,
            is_ordered=True,
            is_near=self._is_near,
            notices=roster.notices if roster.whole else None,
            reach=roster.reach,
        )

    def _registration(self, join: Join) -> Registration:
        registration = decode_registration(join.registration)
        known = self._verified.get(registration.peer_id)
        if known is not None and known[0] == join:
            return known[1]
        registration = verified(self._node, join)
        if registration.namespace != self._namespace:
            raise RemoteProtocolError(f"{registration.peer_id} is no member of this namespace")
        if len(self._verified) >= MAX_VERIFIED:
            self._verified.clear()
        self._verified[registration.peer_id] = join, registration
        return registration


def bootstrap_sources(
    node: Node, addresses: Iterable[Address], *, known: KnownPeers, namespace: str
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
    return tuple(BootstrapSource(node, place, known=known, namespace=namespace) for place in places)
