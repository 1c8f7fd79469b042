"""Home routers of the laboratory: machines with two wires that hide those behind them.

::

    home = router(lab, "home", "restricted")    # on the first wire, which stands for the internet
    shed = home.machine("shed")                 # goes out through it alone
    inner = router(lab, "inner", "symmetric", behind=home)   # double NAT

Four kinds of home: none, which is a machine of `Lab.machine` itself, and the three of `KINDS`. All
lead IPv4 only, let nothing in that fits no mapping, and forget a mapping with its connection.
"""

from __future__ import annotations

from itertools import count
from typing import Literal

from lab.machines import Lab, Machine, Wire, command

Kind = Literal["cone", "restricted", "symmetric"]

# What a router does with a connection that goes out, by the words of RFC 4787, section 4.1 and 5.
KINDS: dict[Kind, str] = {
    # Full cone: mapping and filtering do not look at who is at the other end.
    "cone": "keeps the port, and lets anybody in at one that was used to go out",
    # Port-preserving, port-restricted: mapping does not look at it, filtering does.
    "restricted": "keeps the port, and lets in at it who was asked alone",
    # Symmetric: another port for each, drawn by chance.
    "symmetric": "has another port for each connection",
}

# Seconds that a full cone remembers a port.
CONE_SECONDS = 300

_FILTER = """
table ip filter {
  chain forward {
    type filter hook forward priority 0; policy drop;
    iifname "lan" accept
    ct state established,related accept
    ct status dnat accept
  }
  chain input { type filter hook input priority 0; policy accept; iifname "wan" ct state new drop; }
}
"""

_NAT = {
    "cone": f"""
table ip nat {{
  map used {{ type inet_service : ipv4_addr; flags dynamic,timeout; timeout {CONE_SECONDS}s; }}
  chain in {{
    type nat hook prerouting priority -100;
    iifname "wan" dnat to tcp dport map @used
  }}
  chain out {{
    type nat hook postrouting priority 100;
    oifname "wan" ip protocol tcp update @used {{ tcp sport : ip saddr }}
    oifname "wan" masquerade
  }}
}}
""",
    "restricted": """
table ip nat {
  chain out { type nat hook postrouting priority 100; oifname "wan" masquerade; }
}
""",
    "symmetric": """
table ip nat {
  chain out { type nat hook postrouting priority 100; oifname "wan" masquerade fully-random; }
}
""",
}


class Router(Machine):
    """A router between a wire and a home of its own. Made by `router`."""

    def __init__(self, lab: Lab, name: str, kind: Kind, outside: Wire, inside: Wire) -> None:
        home = lab.folder / name
        home.mkdir(parents=True)
        super().__init__(lab, name, home, wire=outside, interface="wan")
        self.inside = inside
        """The wire of its home."""
        self._inner = self.plug(inside, "lan")
        self.shell("sysctl", "-qw", "net.ipv4.ip_forward=1")
        text = _NAT[kind] + _FILTER
        command("ip", "netns", "exec", self.namespace, "nft", "-f", "-", typed=text)

    @property
    def way_out(self) -> str:
        """Its address at home, by which its machines go out."""
        return self.inside.ip4(self._inner)

    def machine(self, name: str) -> Machine:
        """A machine of its home, made now."""
        home = self.lab.folder / name
        home.mkdir(parents=True)
        machine = self.lab.machines[name] = Machine(self.lab, name, home, wire=self.inside)
        machine.ip("route", "add", "default", "via", self.way_out)
        return machine


def router(lab: Lab, name: str, kind: Kind, *, behind: Router | None = None) -> Router:
    """A router of a *kind* on the first wire, or *behind* another one, with a home of its own."""
    # The first wire is the internet; each home gets the next one that is not there yet.
    homes = [each.inside for each in lab.machines.values() if isinstance(each, Router)]
    number = next(n for n in count(1) if all(home.bridge != f"wire{n}" for home in homes))
    outside = lab.wire() if behind is None else behind.inside
    made = Router(lab, name, kind, outside, lab.wire(number))
    if behind is not None:
        made.ip("route", "add", "default", "via", behind.way_out)
    lab.machines[name] = made
    return made
