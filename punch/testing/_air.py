"""A LAN in memory, for peers that find each other on it: multicast without sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import attrs
import trio

from ..discovery.lan import Event, Failed, Heard, Interface, Lan, Said, Unheard

NETWORK = "10.0.0.1/8"
"""The network that the peers of a `MemoryNetwork` have their addresses in."""


@attrs.define(eq=False)
class _Ear:
    """A peer's interface while its multicast is open."""

    air: Air
    interface: Interface
    said: Said | None
    send: trio.MemorySendChannel[Event]
    events: trio.MemoryReceiveChannel[Event]
    lost: int = 0

    def tell(self, event: Event) -> None:
        try:
            self.send.send_nowait(event)
        except (trio.WouldBlock, trio.BrokenResourceError):
            self.lost += 1


class Air:
    """A LAN, or several that do not hear each other.

    ::

        air = Air()
        async with open_listener(backend, node=node, bootstrap=None, lan=air.lan(node)): ...
    """

    def __init__(self) -> None:
        self.is_blocked = False
        """True while nothing is carried between peers; each hears itself."""
        self.deaf: set[str] = set()
        """Addresses of peers that do not even hear themselves."""
        self._ears: list[_Ear] = []

    def lan(self, *networks: str, name: str = "eth0", fails: str | None = None) -> Lan:
        """An interface with addresses in *networks*; with *fails* it is one that cannot work."""
        interface = Interface(name=name, index=1, networks=networks)

        @asynccontextmanager
        async def open_ear(said: Mapping[Interface, Said | None]) -> AsyncIterator[_Ear]:
            send, events = trio.open_memory_channel[Event](1024)
            ear = _Ear(self, interface, said.get(interface), send, events)
            if fails is not None:
                ear.tell(Failed(interface=name, why=fails))
                yield ear
                return
            for other in self._ears:
                self._carry(other, ear)
            self._ears.append(ear)
            for other in self._ears:
                self._carry(ear, other)
            try:
                yield ear
            finally:
                self._ears.remove(ear)
                if ear.said is not None:
                    for other in self._ears:
                        self.unsay(other.interface.name, ear.said.instance)

        return Lan(open=open_ear, interfaces=lambda: (interface,))

    def _carry(self, speaker: _Ear, hearer: _Ear) -> None:
        said = speaker.said
        is_own = speaker is hearer
        if said is None or (self.is_blocked and not is_own):
            return
        if is_own and self.deaf.intersection(speaker.interface.hosts):
            return
        hearer.tell(
            Heard(
                interface=hearer.interface.name,
                instance=said.instance,
                hosts=said.hosts,
                port=said.port,
                properties={name.encode(): value for name, value in said.properties.items()},
            )
        )

    def say(self, heard: Heard) -> None:
        """Have everybody hear *heard*, as from a stranger."""
        for ear in self._ears:
            ear.tell(attrs.evolve(heard, interface=ear.interface.name))

    def unsay(self, interface: str, instance: str) -> None:
        """Have everybody hear that a record is taken back."""
        for ear in self._ears:
            ear.tell(Unheard(interface=interface, instance=instance))

    @property
    def said(self) -> tuple[Said, ...]:
        """All records, as they travel: what a stranger on the LAN reads."""
        return tuple(ear.said for ear in self._ears if ear.said is not None)
