"""What is known of a tunnel while it lasts, as values."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class TunnelStatistics:
    """What went through a near end until now."""

    bytes_up: int = 0
    """Bytes that programs on this machine have sent to the target."""

    bytes_down: int = 0
    """Bytes that came back."""

    connections: int = 0
    """Connections of programs on this machine that are open now."""

    connections_total: int = 0
    """Connections of programs on this machine since the start."""

    messages: int | None = None
    """RPC requests that were passed on, whole; `None` where no frames are read."""

    oldest_reply_age: float | None = None
    """Seconds since anything came of the RPC reply that is outstanding the longest; `None` if none
    is, or no frames are read."""

    trouble: str | None = None
    """Why replies are not counted on a connection any more, in words; `None` while they are."""

    fault: str | None = None
    """What the RPC server did that a head does not survive, in words; see `RpcCounts.fault`."""


@attrs.frozen(kw_only=True)
class Measured:
    """What a tunnel costs, measured through it."""

    rtt: float
    """Seconds from one end to the other and back, the smallest of a few."""

    rate: float
    """Bytes a second from the near end to the far one."""

    carrier: str = "direct"
    """``direct`` for TLS connections of its own, ``stream`` for streams of the node."""
