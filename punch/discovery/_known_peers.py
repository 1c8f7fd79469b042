"""Decides which identity a bootstrap must have: trust on first use, as with ssh's known hosts.

Identities are remembered by host and port in a file. An address that names its peer id needs none
of this.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from .._logs import get_logger
from ..capability import PeerId
from ..exceptions import IdentityChanged, NetworkError
from ..network import Address, Node

log = get_logger(__name__)

# A line is under 120 bytes, and no machine meets at a thousand bootstraps.
MAX_ENTRIES = 1000


class KnownPeers:
    """Remembers identities by place, in a file of lines ``host:port peer-id``.

    Args:
      path: The file; `None` remembers for the life of this object only.

    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        # All of them where there is no file; else those that it did not take.
        self._memory: dict[str, PeerId] = {}
        self._warned = False

    def get(self, place: str) -> PeerId | None:
        """The identity that was at *place*, ``host:port``; `None` if none is remembered.

        Raises:
          NetworkError: if the file cannot be read.

        """
        return self._read().get(place)

    def remember(self, place: str, peer_id: PeerId) -> None:
        """Remember that *peer_id* is at *place*, in place of any other.

        Where the file cannot be written, as on a full disk, this process remembers it all the same.

        Raises:
          NetworkError: if the file cannot be read.

        """
        known = self._read()
        known.pop(place, None)
        known[place] = peer_id
        known = dict(list(known.items())[-MAX_ENTRIES:])
        if self.path is None:
            self._memory = known
            return
        try:
            _replace(self.path, "".join(f"{place} {peer}\n" for place, peer in known.items()))
        except OSError as error:
            self._memory[place] = peer_id
            if not self._warned:
                self._warned = True
                log.warning(
                    "the known peers cannot be written: this process alone remembers them",
                    path=str(self.path),
                    why=error.strerror,
                    hint="see that the disk has room, or name another file with --known-peers",
                )
        else:
            self._memory = {}
            if self._warned:
                self._warned = False
                log.info("the known peers are written again", path=str(self.path))

    def _read(self) -> dict[str, PeerId]:
        return self._in_file() | self._memory

    def _in_file(self) -> dict[str, PeerId]:
        if self.path is None:
            return {}
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise self._unusable(error) from error
        pairs = (line.split() for line in lines if not line.startswith("#"))
        return {pair[0]: PeerId(pair[1]) for pair in pairs if len(pair) == 2}

    def _unusable(self, error: Exception) -> NetworkError:
        return NetworkError(
            f"the known peers cannot be kept in {self.path}: {error}; "
            "repair or remove the file, or name another with --known-peers"
        )


def _replace(path: Path, text: str) -> None:
    """Put *text* in the file at once; nothing of it is left where that fails."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


async def who_is_at(node: Node, address: Address, known: KnownPeers) -> PeerId:
    """The identity at *address*: the one that it names, the remembered one, or the first found.

    Raises:
      IdentityChanged: if another identity answers than is remembered.
      PeerUnreachable: if no peer answers.
      NetworkError: if the file of known peers cannot be used.

    """
    if address.peer_id is not None:
        return address.peer_id
    found = await node.identify(str(address))
    before = known.get(address.place)
    if before is None:
        known.remember(address.place, found)
        log.info("trusting a bootstrap on first use", address=str(address), peer=found)
    elif before != found:
        raise IdentityChanged(
            f"{address} answers as {found}, and was {before} before: somebody may be in between, "
            f"or it was set up anew. To accept it, remove the line of {address.place} from "
            f"{known.path or 'the known peers'}, or write the address with /p2p/{found}"
        )
    return found
