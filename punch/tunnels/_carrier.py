"""The carrier of a process: opens tunnels, whose bytes another process moves (`direct._process`).

What a tunnel may lead to is decided here: ports of loopback that `Carrier.allow` was given, which
are those of programs that punch has started, or that its settings name. With whom a tunnel is
agreed, and over what, is left to the rooms that need one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Self, TypeVar

import attrs
import trio

from .._background import open_background
from .._logs import get_logger
from ..exceptions import (
    AddressUnavailable,
    NetworkError,
    NotPermitted,
    PeerUnreachable,
    PunchError,
    RemoteProtocolError,
)
from ..network import own_hosts
from ._certificates import LeaseCertificate, check_certificate
from ._child import CarrierChild
from ._places import Place
from ._values import Measured, TunnelStatistics

log = get_logger(__name__)

_WILDCARDS: Final = {"0.0.0.0": False, "::": True}  # noqa: S104 - Named, not bound.


class _End:
    """What both ends of a tunnel have here. Closed by `aclose`, or with ``async with``."""

    def __init__(self, carrier: Carrier, number: int) -> None:
        self._carrier = carrier
        self._number = number
        self._is_open = True
        self.lost = trio.Event()
        """Set when the tunnel carries nothing any more and was not closed here."""
        self.why: str | None = None
        """Why it is lost, in a sentence; `None` until then."""

    def close(self) -> None:
        """Close it with all its connections, at once; does not wait until that is done."""
        if self._is_open:
            self._is_open = False
            self._carrier._close(self._number)

    async def aclose(self) -> None:
        """Close it with all its connections."""
        self.close()
        with trio.CancelScope(shield=True):
            await trio.lowlevel.checkpoint()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.aclose()

    def _tell(self, message: dict[str, Any]) -> None:
        if message["event"] == "lost":
            self._lose(message["reason"])

    def _lose(self, why: str) -> None:
        if not self.lost.is_set():
            self.why = why
            self._is_open = False
            self.lost.set()


E = TypeVar("E", bound=_End)


class FarEnd(_End):
    """Leads whoever has the lease's certificate to one port. Made by `Carrier.open_far`."""

    def __init__(
        self, carrier: Carrier, number: int, target: int, places: tuple[Place, ...]
    ) -> None:
        super().__init__(carrier, number)
        self.target = target
        """The port of loopback that it leads to."""
        self.addresses = places
        """Where the near end finds it; a wildcard stands for all addresses of this machine."""

    def _tell(self, message: dict[str, Any]) -> None:
        event = message["event"]
        if event == "refused":
            log.warning("strangers at a tunnel were refused", hosts=message["hosts"])
        elif event == "forbidden":
            log.warning("a tunnel to a port that is not allowed was refused", port=message["port"])
        elif event == "gone":
            log.info("the near end of a tunnel is gone", target=self.target, why=message["reason"])
        else:
            super()._tell(message)


class NearEnd(_End):
    """A port of loopback that leads to the other side's. Made by `Carrier.open_near`."""

    def __init__(self, carrier: Carrier, number: int, port: int, place: Place) -> None:
        super().__init__(carrier, number)
        self.port = port
        """Port on 127.0.0.1 that programs of this machine connect to."""
        self.place = place
        """Where the far end was reached."""
        self._counts = TunnelStatistics()
        self._counted_at = trio.current_time()

    def statistics(self) -> TunnelStatistics:
        """What went through until now, a quarter of a second old at most."""
        age = self._counts.oldest_reply_age
        if age is None:
            return self._counts
        passed = trio.current_time() - self._counted_at
        return attrs.evolve(self._counts, oldest_reply_age=age + passed)

    async def measure(self) -> Measured:
        """What the tunnel costs, measured through it in half a second.

        Raises:
          NetworkError: if nothing could be measured.

        """
        if not self._is_open:
            raise NetworkError(f"the tunnel is closed: {self.why or 'its lease has ended'}")
        return await self._carrier._measure(self._number)

    def _tell(self, message: dict[str, Any]) -> None:
        event = message.pop("event")
        if event == "counts":
            self._counts = TunnelStatistics(**message)
            self._counted_at = trio.current_time()
        elif event == "broken":
            log.debug("a connection of a tunnel broke off", port=self.port, why=message["reason"])
        else:
            super()._tell({"event": event, **message})


class Carrier:
    """Opens both ends of tunnels. Made by `open_carrier`."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._process = CarrierChild(
            nursery,
            first=lambda: [{"do": "allow", "port": port} for port in self._allowed],
            hear=self._hear,
            ended=self._lose_all,
        )
        self._allowed: set[int] = set()
        self._numbers = 0
        self._ends: dict[int, _End] = {}
        self._answers: dict[int, tuple[trio.Event, list[dict[str, Any]]]] = {}

    @property
    def pid(self) -> int | None:
        """Process id of the process that moves the bytes; `None` while there is none."""
        return self._process.pid

    # ---- what may be reached ----

    def allow(self, port: int) -> None:
        """Let far ends lead to *port* of loopback, until `forbid`."""
        self._allowed.add(port)
        self._process.say({"do": "allow", "port": port})

    def forbid(self, port: int) -> None:
        """Let no new connection lead to *port* any more."""
        self._allowed.discard(port)
        self._process.say({"do": "forbid", "port": port})

    # ---- ends ----

    async def open_far(
        self,
        listen_hosts: Sequence[str],
        ports: Sequence[int],
        *,
        certificate: LeaseCertificate,
        trusted_pem: str,
        target: int,
    ) -> FarEnd:
        """Listen for the near end of one lease, and lead it to *target*.

        Args:
          listen_hosts: IP addresses of this machine, or wildcards; one port is taken at all.
          ports: Ports to try, in order; 0 for any.
          certificate: This side's, for this lease alone.
          trusted_pem: The other side's; nobody else is let in.
          target: A port of loopback, which must be allowed.

        Raises:
          NotPermitted: if *target* is not allowed.
          RemoteProtocolError: if *trusted_pem* is no certificate.
          AddressUnavailable: if it cannot listen there.
          NetworkError: if the carrier's process cannot do its work.

        """
        if target not in self._allowed:
            log.warning("a tunnel to a port that is not allowed was refused", port=target)
            raise NotPermitted(f"port {target} is not one that tunnels may lead to")
        check_certificate(trusted_pem)
        said = {"hosts": list(listen_hosts), "ports": list(ports), "target": target}
        number, opened = await self._open("far", certificate, trusted_pem, said)
        places: dict[Place, None] = {}
        for host, port in opened["places"]:
            hosts = _expanded(host) if host in _WILDCARDS else (host,)
            places.update((Place(each, port), None) for each in hosts)
        return self._keep(FarEnd(self, number, target, tuple(places)))

    async def open_near(
        self,
        addresses: Sequence[Place | tuple[str, int]],
        *,
        certificate: LeaseCertificate,
        trusted_pem: str,
        frames: bool = False,
        listen: Sequence[int] = (0,),
    ) -> NearEnd:
        """Connect to a far end, and lead a port of loopback there.

        Args:
          addresses: IP addresses and ports where it may be; the first that answers is taken.
          certificate: This side's, for this lease alone.
          trusted_pem: The other side's; whoever has another is not believed.
          frames: Whether what it carries is llama.cpp's RPC: then messages and replies are counted.
          listen: Ports of loopback to try, in order; 0 for any.

        Raises:
          NotPermitted: if the far end does not accept our certificate, or has another itself;
            `rule` is then ``refused`` or ``certificate``.
          PeerUnreachable: if nothing answers at any of the addresses.
          RemoteProtocolError: if *trusted_pem* is no certificate.
          AddressUnavailable: if no port can be listened at.
          NetworkError: if the carrier's process cannot do its work.

        """
        check_certificate(trusted_pem)
        places = [each if isinstance(each, Place) else Place(*each) for each in addresses]
        said = {
            "addresses": [(each.host, each.port) for each in places],
            "frames": frames,
            "listen": list(listen),
        }
        number, opened = await self._open("near", certificate, trusted_pem, said)
        return self._keep(NearEnd(self, number, opened["port"], Place(*opened["place"])))

    def _keep(self, end: E) -> E:
        number = end._number
        for message in self._answers.pop(number)[1]:
            end._tell(message)
        self._ends[number] = end
        return end

    async def _open(
        self, do: str, certificate: LeaseCertificate, trusted: str, said: dict[str, Any]
    ) -> tuple[int, dict[str, Any]]:
        await self._process.ensure()
        number = self._next()
        keys = {"certificate": certificate.pem, "key": certificate.key, "trusted": trusted}
        try:
            answer = await self._ask(number, {"do": do, "id": number, **keys, **said})
        except BaseException:
            self._answers.pop(number, None)
            self._close(number)
            raise
        if answer["event"] != "opened":
            self._answers.pop(number, None)
            raise _error(answer)
        return number, answer

    def _next(self) -> int:
        self._numbers += 1
        return self._numbers

    async def _ask(self, number: int, message: dict[str, Any]) -> dict[str, Any]:
        """Say something, and wait for the first message with this number."""
        answered = trio.Event()
        answers: list[dict[str, Any]] = []
        self._answers[number] = (answered, answers)
        self._process.say(message)
        await answered.wait()
        return answers.pop(0)

    async def _measure(self, number: int) -> Measured:
        call = self._next()
        try:
            found = await self._ask(call, {"do": "measure", "id": number, "call": call})
        finally:
            self._answers.pop(call, None)
        if "rtt" not in found:
            raise NetworkError(found["reason"])
        return Measured(rtt=found["rtt"], rate=found["rate"])

    def _close(self, number: int) -> None:
        self._ends.pop(number, None)
        self._process.say({"do": "close", "id": number})

    def _lose_all(self, why: str) -> None:
        ends, self._ends = self._ends, {}
        for end in ends.values():
            end._lose(why)
        for answered, answers in list(self._answers.values()):
            answers.append({"event": "failed", "word": "carrier", "reason": why})
            answered.set()

    def _hear(self, message: dict[str, Any]) -> None:
        number = message.pop("call", None) or message.pop("id", None)
        message.pop("id", None)
        if number in self._answers:
            answered, answers = self._answers[number]
            answers.append(message)
            answered.set()
        elif number in self._ends:
            is_lost = message["event"] == "lost"
            end = self._ends.pop(number) if is_lost else self._ends[number]
            end._tell(message)


def _expanded(wildcard: str) -> tuple[str, ...]:
    is_six = _WILDCARDS[wildcard]
    return tuple(host for host in own_hosts() if (":" in host) == is_six)


def _error(answer: dict[str, Any]) -> PunchError:
    """The exception for an end that was not opened."""
    word, reason = answer["word"], answer["reason"]
    if word in ("refused", "certificate"):
        error = NotPermitted(reason)
        error.rule = word
        return error
    if word == "unavailable":
        return AddressUnavailable(reason)
    if word == "carrier":
        return NetworkError(reason)
    if word == "protocol":
        return RemoteProtocolError(reason)
    return PeerUnreachable(reason, why="no_answer")


@asynccontextmanager
async def open_carrier() -> AsyncIterator[Carrier]:
    """Be able to open tunnels; what was opened is closed on the way out.

    The process that moves the bytes starts now, and anew with the next tunnel if it has ended.

    Raises:
      NetworkError: if it cannot start.

    """
    async with open_background() as nursery:
        carrier = Carrier(nursery)
        await carrier._process.ensure()
        yield carrier
