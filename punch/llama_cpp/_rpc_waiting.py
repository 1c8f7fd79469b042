"""Waits for an RPC server's answer in a process of its own, after the program that asked has ended.

A server that answers a client which has left dies, with all of its borrower's work, unless whoever
started it had it ignore SIGPIPE. So the connection is handed to a process that reads what comes
and ends with it.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import suppress
from typing import Final

# A borrower may hold a server for days. Whoever asked is long gone by then, and so is whatever the
# server had to do for it; a process that never ends would be worse.
MAX_WAIT_SECONDS: Final = 24 * 3600

# What answers is read and thrown away; the connection ends when the server closes it.
_CODE: Final = """\
import signal, socket, sys
signal.alarm(int(sys.argv[2]))
waiting = socket.socket(fileno=int(sys.argv[1]))
waiting.setblocking(True)
while waiting.recv(4096):
    pass
"""


def hand_over(waiting: socket.socket) -> None:
    """Have another process wait for what *waiting* is still owed, and close it here.

    Where no process can be given a connection (Windows), it is closed and nothing else.
    """
    with waiting, suppress(OSError):
        if sys.platform == "win32":
            return
        # The server reads our end after its answer, and closes its own.
        waiting.shutdown(socket.SHUT_WR)
        # A dead machine's connection is to end some day, too.
        waiting.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        fd = waiting.fileno()
        # Not in our group: whatever ends a whole group is not to end the wait.
        subprocess.Popen(  # noqa: S603 - Our own Python, with code that stands above.
            [sys.executable, "-I", "-S", "-c", _CODE, str(fd), str(MAX_WAIT_SECONDS)],
            pass_fds=(fd,),
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
        )
