"""Reads which port of this machine peers may reach by a tunnel, as a person writes it."""

from __future__ import annotations

import re

import attrs

from ._rules import Rule, count

_SHAPE = "write NAME=PORT, or NAME=PORT@PEER_ID for one peer alone, such as ssh=22"
_PORT = count(1, most=65535)
_PEER = re.compile(r"[1-9A-HJ-NP-Za-km-z]{40,64}")

MAX_NAME_CHARACTERS = 64
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@attrs.frozen(kw_only=True)
class TunnelPort:
    """One port, and one peer that may reach it."""

    name: str
    """What peers call it."""

    port: int
    """The port, of loopback."""

    peer: str | None = None
    """The peer; `None` for every member of a closed namespace."""

    @classmethod
    def of(cls, text: str) -> TunnelPort:
        """What *text* says.

        Raises:
          ValueError: with the rule that it breaks.

        """
        name, sign, rest = (part.strip() for part in text.partition("="))
        port, at, peer = (part.strip() for part in rest.partition("@"))
        if not sign or not port:
            raise ValueError(_SHAPE)
        if len(name) > MAX_NAME_CHARACTERS or not _NAME.fullmatch(name):
            raise ValueError(
                f"the name {name[:80]!r} is to be 1 to {MAX_NAME_CHARACTERS} letters, digits, "
                "dots, hyphens and underscores"
            )
        if at and not _PEER.fullmatch(peer):
            raise ValueError(f"{peer[:80]!r} is no identity of a peer: {_SHAPE}")
        try:
            return cls(name=name, port=_PORT.value(port), peer=peer or None)
        except ValueError as error:
            raise ValueError(f"the port {port[:20]!r}: {error}") from None

    def __str__(self) -> str:
        return f"{self.name}={self.port}" + (f"@{self.peer}" if self.peer else "")


TUNNEL_PORT_RULE = Rule(TunnelPort.of)
