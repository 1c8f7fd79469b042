"""Measures what `punch.doctor` judges of this machine. These functions block, for a moment."""

from __future__ import annotations

import errno
import ipaddress
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

from ...discovery.lan import lan_interfaces
from ...doctor import FolderFact, GpuFacts, InterfaceFacts, PortFact
from ...exceptions import ConfigurationError
from ...machine import Machine
from ...network import own_hosts, parse_address
from ...settings import data_folder
from ..running import running_here
from ..up import UpSettings

# Where Linux shows NVIDIA's kernel driver, whatever its library says.
_NVIDIA_DEVICES = (Path("/dev/nvidiactl"), Path("/proc/driver/nvidia/version"))


def measure_interfaces(*, meets_elsewhere: bool, uses_lan: bool) -> InterfaceFacts:
    """The addresses of this machine."""
    addresses = (ipaddress.ip_address(host) for host in own_hosts())
    return InterfaceFacts(
        addresses=tuple(
            str(each) for each in addresses if not (each.is_loopback or each.is_link_local)
        ),
        lans=tuple(each.name for each in lan_interfaces()),
        meets_elsewhere=meets_elsewhere,
        uses_lan=uses_lan,
    )


def measure_ports(settings: UpSettings) -> tuple[PortFact, ...]:
    """The TCP ports that `punch up` would listen on, as far as their numbers are fixed."""
    ours = frozenset(each.mark.pid for each in running_here())
    return tuple(
        _port(name, host, port, ours) for name, host, port in _wanted_ports(settings) if port
    )


def _wanted_ports(settings: UpSettings) -> Iterator[tuple[str, str, int]]:
    yield "gateway.port", settings.host, settings.port
    yield "gateway.ollama_port", settings.host, settings.ollama_port or 0
    for address in settings.listener.listen:
        try:
            place = parse_address(address)
        except ConfigurationError:
            continue  # Told where the settings are judged.
        if place.transport == "tcp" and not place.is_name:
            yield "listener.listen", place.host, place.port


def _port(setting: str, host: str, port: int, ours: frozenset[int]) -> PortFact:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            if sys.platform != "win32":
                # Connections that ended a moment ago do not matter; listening sockets do.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((host, port))
            sock.listen(1)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            holder, is_ours = _holder(port, ours)
            return PortFact(
                setting=setting, port=port, is_free=False, is_ours=is_ours, holder=holder
            )
        is_refused = error.errno == errno.EACCES
        # An address that this machine has not, say, is told by the program that wants it.
        return PortFact(setting=setting, port=port, is_free=not is_refused, is_refused=is_refused)
    return PortFact(setting=setting, port=port, is_free=True)


def _holder(port: int, ours: frozenset[int]) -> tuple[str | None, bool]:
    """The program that listens on *port*, and whether that is punch, as far as can be seen."""
    try:
        for one in psutil.net_connections("tcp"):
            if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port:
                if one.pid is None:
                    continue
                process = psutil.Process(one.pid)
                family = {one.pid, *(each.pid for each in process.parents())}
                return f"process {one.pid} ({process.name()})", bool(family & ours)
    except (psutil.Error, OSError):
        pass  # Not ours to see; the port is taken all the same.
    return None, False


def measure_folders() -> tuple[FolderFact, ...]:
    """The folders that punch writes to."""
    data = data_folder()
    return tuple(
        _folder(kind, path) for kind, path in (("data", data), ("models", data / "models"))
    )


def _folder(kind: str, path: Path) -> FolderFact:
    while not path.exists() and path != path.parent:
        path = path.parent
    try:
        free: int | None = shutil.disk_usage(path).free
    except OSError:
        free = None
    return FolderFact(
        kind=kind,
        path=str(path),
        is_writable=path.is_dir() and os.access(path, os.W_OK | os.X_OK),
        free_bytes=free,
    )


def measure_gpus(on_cpu: tuple[str, ...]) -> GpuFacts:
    """The GPUs of this machine.

    Args:
      on_cpu: Models that an engine of this machine has in main memory alone.

    """
    machine = Machine(models_folder=data_folder())
    try:
        gpus = machine.sample().gpus
    finally:
        machine.close()
    return GpuFacts(
        names=tuple(each.name for each in gpus),
        has_device=any(path.exists() for path in _NVIDIA_DEVICES),
        on_cpu=on_cpu,
    )
