"""Tells whose program is at the other end of a connection over loopback, where the system says so.

Loopback is open to every user of a machine, and to every program in a sandbox that shares its
network; a port there says nothing of who asks.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from ._address import plain_ip

# Linux's tables of TCP, of the network that this process is in: proc(5), under /proc/net/tcp.
_TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))

# The fields of a row that count.
_LOCAL, _REMOTE, _STATE, _USER = 1, 2, 3, 7

# A connection in any other state has been closed by the caller, or half so. Its row may say that it
# is root's, since no program has it any more.
_ESTABLISHED = "01"

# Of 150 bytes each: more connections than any machine of a home has.
MAX_ROWS = 200_000

_ROOT = 0

End = tuple[str, int]
"""IP address and port."""


def is_of_this_user(client: End, server: End) -> bool:
    """Whether the program that has connected from *client* is this user's, or root's.

    True where the system does not say, which is everywhere but on Linux. Reads a file that has a
    line for each connection of the machine.

    Args:
      client: The caller's end, on this machine.
      server: Our end.

    """
    found = False
    for table in _TABLES:
        try:
            with table.open(encoding="ascii", errors="replace") as rows:
                user = owner_in(islice(rows, MAX_ROWS), client, server)
        except OSError:
            continue
        found = True
        if user is not None:
            return user in (_ROOT, os.getuid())
    return not found


def owner_in(rows: Iterable[str], client: End, server: End) -> int | None:
    """The user who has the established connection from *client* to *server*, by a table.

    `None` if nobody has it (any more).
    """
    local, remote = _written(client), _written(server)
    for row in rows:
        fields = row.split()
        if len(fields) <= _USER or fields[_STATE] != _ESTABLISHED:
            continue
        if fields[_LOCAL] in local and fields[_REMOTE] in remote and fields[_USER].isdecimal():
            return int(fields[_USER])
    return None


def _written(end: End) -> frozenset[str]:
    """How the tables write *end*: words of 32 bits as this processor has them, in hexadecimal."""
    host, port = end
    address = ipaddress.ip_address(plain_ip(host))
    forms = [address.packed]
    if address.version == 4:
        # A socket of version 6 may lead to an address of version 4.
        forms.append(ipaddress.IPv6Address(f"::ffff:{address}").packed)
    return frozenset(
        "".join(
            f"{int.from_bytes(form[start : start + 4], sys.byteorder):08X}"
            for start in range(0, len(form), 4)
        )
        + f":{port:04X}"
        for form in forms
    )
