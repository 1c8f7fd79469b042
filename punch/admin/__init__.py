"""How a command of this user talks to the punch that runs: a port of loopback and a token.

`open_admin` serves, with a file in a folder that nobody but this user can read; `call` and `follow`
ask. Whoever can read the file has the scope `admin` on this machine, and nobody else has anything.
"""

from ._client import Replies, call, follow
from ._server import Admin, Call, Handler, open_admin

__all__ = [
    # the running program
    "open_admin",
    "Admin",
    "Handler",
    "Call",
    # a command to it
    "call",
    "follow",
    "Replies",
]
