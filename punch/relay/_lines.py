"""What peers and relays say to each other before bytes are carried: a line of text each way.

====================== ============ ============================ =================================
Protocol               Opened by    Says                         Hears
====================== ============ ============================ =================================
`RESERVE`              the hidden   nothing                      `OK`, and nothing more: the stream
                                                                 is the reservation
`CONNECT`              the dialer   whom it wants                `OK`, and the circuit's bytes
`ACCEPT`               the relay    who wants it                 `OK`, and the circuit's bytes
====================== ============ ============================ =================================

Any other answer is a word that says why not. These are the roles of libp2p's circuit relay v2
without its vouchers and clocks: a reservation lives as long as its stream, so it is never renewed,
and ends with the machine that has made it.
"""

from __future__ import annotations

from ..exceptions import PeerUnreachable
from ..network import Stream

RESERVE = "/punch/relay/reserve/1"
CONNECT = "/punch/relay/connect/1"
ACCEPT = "/punch/relay/accept/1"

OK = "ok"
"""The answer that begins a reservation, or a circuit."""

# Above a peer id, which has 64 characters at most.
MAX_LINE_BYTES = 128


async def say(stream: Stream, word: str) -> None:
    """Send a line.

    Raises:
      PeerUnreachable: if the stream has ended.

    """
    await stream.send_all(word.encode("ascii") + b"\n")


async def read_line(stream: Stream) -> tuple[str, bytes]:
    """The next line, and what came after it.

    Raises:
      PeerUnreachable: if the stream ends before its line does, or what comes is no line.

    """
    data = b""
    while b"\n" not in data and len(data) <= MAX_LINE_BYTES:
        more = await stream.receive_some()
        if not more:
            raise PeerUnreachable("hung up", peer_id=stream.peer_id)
        data += more
    line, _, rest = data.partition(b"\n")
    if len(line) > MAX_LINE_BYTES or not line.isascii() or not line.decode("ascii").isprintable():
        raise PeerUnreachable("speaks otherwise", peer_id=stream.peer_id)
    return line.decode("ascii"), rest
