"""mDNS for real: the only door to zeroconf, which runs on asyncio in a thread of its own.

One instance an interface, so that on each only its own addresses are told. zeroconf bounds what it
remembers; what comes past it to us is bounded here.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

import trio
from zeroconf import DNSQuestionType, IPVersion, ServiceStateChange, Zeroconf
from zeroconf import Error as ZeroconfError
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from ..._logs import get_logger
from ._multicast import MAX_WAITING, Event
from ._records import SERVICE, Failed, Heard, Interface, Said, Unheard

log = get_logger(__name__)

# Records that are asked for at a time, and how long for each: those of peers that told their names
# and not where they are, which ours never do.
MAX_ASKED = 8
MAX_TO_ASK = 256
ASK_MILLISECONDS = 3000

# zeroconf says goodbye three times, an eighth of a second apart.
CLOSE_SECONDS = 2.0

_CHANGES = ServiceStateChange


class _Instance:
    """mDNS on one interface; lives in the thread."""

    def __init__(self, interface: Interface, tell: _Teller) -> None:
        self._interface = interface
        self._tell = tell
        self._asked: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Semaphore(MAX_ASKED)
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None

    async def open(self, said: Said | None) -> None:
        """Listen, and say *said*; a failure is told as an event."""
        hosts = [host for host in self._interface.hosts if ":" not in host]
        has_ip6 = any(":" in host for host in self._interface.hosts)
        places: list[str | tuple[tuple[str, int, int], int] | int] = [*hosts]
        if has_ip6 and self._interface.index:
            places.append(self._interface.index)
        version = IPVersion.All if hosts and has_ip6 else None
        version = version or (IPVersion.V4Only if hosts else IPVersion.V6Only)
        try:
            self._zeroconf = AsyncZeroconf(interfaces=places, ip_version=version)
            await self._zeroconf.zeroconf.async_wait_for_start()
            # By multicast only: an answer to us alone goes to one of the processes of this machine
            # that have the port, and none knows which.
            self._browser = AsyncServiceBrowser(
                self._zeroconf.zeroconf,
                SERVICE,
                handlers=[self._changed],
                question_type=DNSQuestionType.QM,
            )
            if said is not None:
                # Nobody else has our name, which is drawn at random: one that is in use already is
                # ours, from before the machine's addresses were others, and no reason to be silent.
                await self._zeroconf.async_register_service(
                    _info(said), cooperating_responders=True
                )
        except (OSError, ZeroconfError, TimeoutError) as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            self._tell(Failed(interface=self._interface.name, why=why))

    def _changed(
        self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange
    ) -> None:
        if not name.endswith(f".{SERVICE}"):
            return
        instance = name.removesuffix(f".{SERVICE}")
        if state_change is _CHANGES.Removed:
            self._tell(Unheard(interface=self._interface.name, instance=instance))
            return
        info = AsyncServiceInfo(service_type, name)
        if info.load_from_cache(zeroconf):
            self._heard(info, instance)
        elif len(self._asked) < MAX_TO_ASK:
            task = asyncio.get_running_loop().create_task(self._ask(zeroconf, info, instance))
            self._asked.add(task)
            task.add_done_callback(self._asked.discard)

    async def _ask(self, zeroconf: Zeroconf, info: AsyncServiceInfo, instance: str) -> None:
        async with self._turn:
            with suppress(OSError, ZeroconfError, TimeoutError):
                found = await info.async_request(
                    zeroconf, ASK_MILLISECONDS, question_type=DNSQuestionType.QM
                )
                if found:
                    self._heard(info, instance)

    def _heard(self, info: AsyncServiceInfo, instance: str) -> None:
        self._tell(
            Heard(
                interface=self._interface.name,
                instance=instance,
                hosts=tuple(info.parsed_scoped_addresses()),
                port=info.port,
                properties=dict(info.properties),
            )
        )

    async def close(self) -> None:
        """Say goodbye and end."""
        for task in list(self._asked):
            task.cancel()
        with suppress(OSError, ZeroconfError, TimeoutError):
            if self._browser is not None:
                await self._browser.async_cancel()
        with suppress(OSError, ZeroconfError, TimeoutError):
            if self._zeroconf is not None:
                await self._zeroconf.async_close()


def _info(said: Said) -> AsyncServiceInfo:
    return AsyncServiceInfo(
        SERVICE,
        f"{said.instance}.{SERVICE}",
        port=said.port,
        properties=dict(said.properties),
        server=f"punch-{said.instance}.local.",
        addresses=[ipaddress.ip_address(host).packed for host in said.hosts],
    )


class _Teller:
    """Carries events from the thread to trio, and drops what is too much."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._send, self.events = trio.open_memory_channel[Event](MAX_WAITING)
        self._waiting = 0
        self.lost = 0

    def __call__(self, event: Event) -> None:
        # Two counts that two threads change: it does not matter if they are off by one.
        if self._waiting >= MAX_WAITING:
            self.lost += 1
            return
        self._waiting += 1
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._arrived, event)

    def _arrived(self, event: Event) -> None:
        self._waiting -= 1
        try:
            self._send.send_nowait(event)
        except (trio.WouldBlock, trio.BrokenResourceError):
            self.lost += 1


class _Airing:
    """The thread, and what it runs."""

    def __init__(self, said: Mapping[Interface, Said | None], tell: _Teller) -> None:
        self.events = tell.events
        self._said = said
        self._tell = tell
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._is_stopped = False
        self._token = trio.lowlevel.current_trio_token()
        self.ended = trio.Event()
        threading.Thread(target=self._run, name="punch-mdns", daemon=True).start()

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except Exception:
            log.exception("mDNS has a bug")
        finally:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self.ended.set)

    @property
    def lost(self) -> int:
        """How many events were dropped."""
        return self._tell.lost

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        instances = []
        tasks = []
        try:
            for interface, said in self._said.items():
                instance = _Instance(interface, self._tell)
                instances.append(instance)
                tasks.append(asyncio.create_task(instance.open(said)))
            while not self._is_stopped and not self._stop.is_set():
                await self._stop.wait()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(*(each.close() for each in instances), return_exceptions=True)

    def stop(self) -> None:
        """Have the thread end."""
        self._is_stopped = True
        if self._loop is not None:
            with suppress(RuntimeError):  # It has ended by itself.
                self._loop.call_soon_threadsafe(self._stop.set)


@asynccontextmanager
async def open_multicast(said: Mapping[Interface, Said | None]) -> AsyncIterator[_Airing]:
    """Say and hear records by mDNS while the context lasts; a `Multicast`.

    Args:
      said: What to say on each interface; `None` to hear only.

    """
    # It warns of each malformed packet, which any stranger sends as it likes.
    logging.getLogger("zeroconf").setLevel(logging.CRITICAL)
    airing = _Airing(said, _Teller())
    try:
        yield airing
    finally:
        airing.stop()
        with trio.CancelScope(shield=True), trio.move_on_after(CLOSE_SECONDS):
            await airing.ended.wait()
