"""The process that moves the bytes of tunnels: `main`, started by `punch.tunnels`.

It has a process of its own so that no scheduler but `_loop` is in the way of a byte. Its parent,
`_carrier`, talks to it in JSON, one object a line, over standard input and output:

    to us    {"do": "allow" | "forbid", "port"}
             {"do": "far", "id", "certificate", "key", "trusted", "hosts", "ports", "target"}
             {"do": "near", "id", "certificate", "key", "trusted", "addresses", "frames", "listen"}
             {"do": "measure", "id", "call"}
             {"do": "close", "id"}
    from us  {"id", "event": "opened", "places" | "port" and "place"}
             {"id", "event": "failed", "word", "reason"}    it was never open
             {"id", "event": "lost", "word", "reason"}      a near end whose far end is gone
             {"id", "event": "closed"}
             {"id", "event": "counts", ...}                 what a near end has carried
             {"id", "event": "measured", "call", "rtt" and "rate" | "reason"}
             {"id", "event": "broken" | "gone", "reason"}   for the log
             {"id", "event": "refused", "hosts"}            strangers, by host
             {"id", "event": "forbidden", "port"}
             {"event": "tick"}                              once a second: it is alive

Rules:

* A key is in a line of standard input and in memory, nowhere else.
* A far end connects to a port of loopback that the parent has allowed, and to no other, whatever
  it was opened with.
* When standard input closes the parent is gone, and the process ends at once.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from functools import partial
from typing import Any, BinaryIO, Final

from ...exceptions import RemoteProtocolError
from .._certificates import LeaseCertificate, check_certificate, make_context
from ._far_end import FarEnd
from ._loop import Loop
from ._near_end import NearEnd

MAX_LINE_BYTES: Final = 64 << 10
_TICK_SECONDS: Final = 1.0


class Tunnels:
    """The ends of this process, and the words of its parent.

    Args:
      loop: The loop that moves their bytes.
      output: Where the parent reads.

    """

    def __init__(self, loop: Loop, output: BinaryIO) -> None:
        self._loop = loop
        self._output = output
        self._allowed: set[int] = set()
        self._ends: dict[int, FarEnd | NearEnd] = {}
        self._tick()

    def _tick(self) -> None:
        self._write({"event": "tick"})
        self._loop.call_at(self._loop.now + _TICK_SECONDS, self._tick)

    def _write(self, message: dict[str, Any]) -> None:
        # The parent reads at all times, and what is said is little: a pipe holds minutes of it.
        try:
            self._output.write(json.dumps(message).encode("ascii") + b"\n")
            self._output.flush()
        except OSError:
            os._exit(0)  # The parent is gone.

    def _tell(self, number: int, message: dict[str, Any]) -> None:
        if message["event"] == "lost" and self._ends.pop(number, None) is None:
            return
        self._write({"id": number, **message})

    def hear(self, line: bytes) -> None:
        """Do what the parent says."""
        message = json.loads(line)
        do, number = message["do"], int(message.get("id", 0))
        if do == "allow":
            self._allowed.add(int(message["port"]))
        elif do == "forbid":
            self._allowed.discard(int(message["port"]))
        elif do == "close":
            if (end := self._ends.pop(number, None)) is not None:
                end.close()
            self._write({"id": number, "event": "closed"})
        elif do == "measure":
            self._measure(number, message["call"])
        else:
            try:
                self._open(do, number, message)
            except RemoteProtocolError as error:
                self._fail(number, "certificate", str(error))
            except OSError as error:
                self._fail(number, "unavailable", error.strerror or str(error))

    def _fail(self, number: int, word: str, reason: str) -> None:
        self._write({"id": number, "event": "failed", "word": word, "reason": reason})

    def _open(self, do: str, number: int, message: dict[str, Any]) -> None:
        certificate = LeaseCertificate(pem=message["certificate"], key=message["key"])
        expected = check_certificate(message["trusted"])
        context = make_context(certificate, message["trusted"], is_server=do == "far")

        def tell(event: dict[str, Any]) -> None:
            self._tell(number, event)

        if do == "near":
            addresses = [(str(host), int(port)) for host, port in message["addresses"]]
            self._ends[number] = NearEnd(
                self._loop,
                context=context,
                expected=expected,
                addresses=addresses,
                frames=bool(message["frames"]),
                listen=message["listen"],
                tell=tell,
            )
            return
        far = self._ends[number] = FarEnd(
            self._loop,
            context=context,
            expected=expected,
            hosts=message["hosts"],
            ports=message["ports"],
            target=int(message["target"]),
            is_allowed=self._allowed.__contains__,
            tell=tell,
        )
        self._write({"id": number, "event": "opened", "places": far.places})

    def _measure(self, number: int, call: int) -> None:
        def done(found: tuple[float, float] | str) -> None:
            said = (
                {"reason": found} if isinstance(found, str) else {"rtt": found[0], "rate": found[1]}
            )
            self._write({"id": number, "event": "measured", "call": call, **said})

        end = self._ends.get(number)
        if isinstance(end, NearEnd):
            end.measure(done)
        else:
            done("the tunnel is closed")


def _read(source: BinaryIO, loop: Loop, tunnels: Tunnels) -> None:
    """Hand each line to the loop, until the parent is gone."""
    while line := source.readline(MAX_LINE_BYTES):
        loop.call_from_thread(partial(tunnels.hear, line))
    os._exit(0)


def main() -> None:
    """Move bytes until standard input closes."""
    # The parent alone reads this: what else prints goes to standard error.
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    loop = Loop()
    tunnels = Tunnels(loop, output)
    threading.Thread(target=_read, args=(sys.stdin.buffer, loop, tunnels), daemon=True).start()
    loop.run()


if __name__ == "__main__":
    main()
