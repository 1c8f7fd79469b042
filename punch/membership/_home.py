"""A closed namespace as this machine has it: its keys, its grant, and what people call it.

Creating one makes a root; joining one is in `_joining`. Which namespace a program means is decided
by `find_home`.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs

from ..access import (
    SCOPES,
    Chain,
    Grant,
    Issuer,
    Lock,
    Namespace,
    Refusal,
    decode_chain,
    encode_chain,
    hidden_name,
    key_of,
    parse_namespace,
    peer_of,
    renew_at,
)
from ..capability import PeerId
from ..exceptions import ConfigurationError, RemoteProtocolError
from ..libp2p import Key, load_key, verify
from ._folder import INFO, Folder, default_folder, discard, folders_in, keep, new_folder
from ._members import MemberRecord, add_members, named

MACHINE_KEY = "machine.key"
ROOT_KEY = "root.key"
CHAIN = "chain"
REVOCATIONS = "revocations"

# Of the digest of a name in a grant, see `hidden_name`.
SALT_BYTES = 16

OPEN = "open"
"""Behind an at sign, in place of a fingerprint: the open namespace of that name."""


@attrs.frozen(kw_only=True)
class Home:
    """A closed namespace that this machine is a member of."""

    folder: Folder
    """Its files."""

    namespace: Namespace
    """Name and root."""

    machine: PeerId
    """The key of this machine in it."""

    name: str
    """What this machine is called in it, for people."""

    def key(self) -> Key:
        """The key of this machine; see `load_key`."""
        return load_key(self.folder / MACHINE_KEY)

    def root_key(self) -> Key | None:
        """The root's key, where it is kept here."""
        return load_key(self.folder / ROOT_KEY) if self.folder.exists(ROOT_KEY) else None

    def chain(self) -> Chain:
        """What leads from the root to this machine.

        Raises:
          ConfigurationError: if the file is damaged.

        """
        try:
            return decode_chain(self.folder.read(CHAIN) or b"")
        except RemoteProtocolError as error:
            raise ConfigurationError(
                f"{self.folder / CHAIN} is damaged: {error}; restore it from a backup, or leave "
                f"with `punch leave {self.namespace}` and join again"
            ) from None

    @property
    def grant(self) -> Grant:
        """The grant of this machine."""
        return self.chain()[-1].grant

    @property
    def is_admin(self) -> bool:
        """Whether this machine may let others in."""
        return self.grant.kind == "admin"


def home_in(folder: Folder) -> Home:
    """The namespace that is kept in *folder*.

    Raises:
      ConfigurationError: if its files are damaged.

    """
    try:
        found: dict[str, Any] = json.loads(folder.read(INFO) or b"")
        return Home(
            folder=folder,
            namespace=Namespace(name=found["name"], root=peer_of(bytes.fromhex(found["root"]))),
            machine=peer_of(bytes.fromhex(found["machine"])),
            name=named(str(found.get("called", ""))),
        )
    except (ValueError, KeyError, TypeError, RemoteProtocolError, ConfigurationError):
        raise ConfigurationError(
            f"{folder / INFO} is damaged: restore it from a backup, or move {folder.path} away "
            "and join again"
        ) from None


def write_info(folder: Folder, namespace: Namespace, *, machine: bytes, called: str) -> None:
    """Make *folder* one of a namespace; it is written last."""
    found = {
        "name": namespace.name,
        "root": namespace.key.hex(),
        "machine": machine.hex(),
        "called": named(called),
    }
    folder.write(INFO, json.dumps(found, ensure_ascii=False, indent=1).encode() + b"\n")


def homes(parent: Path | None = None) -> tuple[Home, ...]:
    """The closed namespaces of this machine, by name.

    Args:
      parent: Where they are kept; by default in the data folder.

    Raises:
      ConfigurationError: if the files of one are damaged.

    """
    return tuple(map(home_in, folders_in(parent or default_folder())))


def find_home(text: str | None, parent: Path | None = None) -> Home | None:
    """The closed namespace that *text* means on this machine; `None` for an open one.

    ``NAME`` means the closed one of that name, if there is exactly one; ``NAME@FINGERPRINT`` that
    very one, ``NAME@open`` the open one. Without a text it is the one that this machine has joined.

    Raises:
      ConfigurationError: if several could be meant, or if *text* names one that this machine is no
        member of: nothing leads from a closed one to an open one without a word.

    """
    known = homes(parent)
    if text is None:
        if len(known) > 1:
            raise ConfigurationError(
                f"this machine is a member of several namespaces: {_listed(known)}; say which with "
                "--namespace, or once for all with: punch settings set namespace NAME"
            )
        return known[0] if known else None
    if is_open(text):
        return None
    found = [home for home in known if home.namespace.is_meant_by(text)]
    if len(found) > 1:
        raise ConfigurationError(
            f"several namespaces are called {text!r}: {_listed(found)}; say which, or "
            f"{text}@{OPEN} for the open one of that name"
        )
    if not found and parse_namespace(text)[1] is not None:
        raise ConfigurationError(
            f"this machine is no member of {text}: ask a member for an invite, and redeem it with: "
            "punch join"
        )
    return found[0] if found else None


def is_open(text: str) -> bool:
    """True if *text* says that an open namespace is meant: ``NAME@open``."""
    name, at, what = text.rpartition("@")
    return bool(name and at) and what == OPEN


def open_name(text: str) -> str:
    """The name of the open namespace that *text* means."""
    return text.rpartition("@")[0] if is_open(text) else text


def _listed(found: tuple[Home, ...] | list[Home]) -> str:
    return ", ".join(str(home.namespace) for home in found)


def create_home(name: str, *, called: str, now: float, parent: Path | None = None) -> Home:
    """Make a closed namespace: a root, and this machine as its first member and admin.

    Args:
      name: Name of the namespace.
      called: What people call this machine.
      now: UTC, in seconds since 1970.
      parent: Where namespaces are kept; by default in the data folder.

    Raises:
      ConfigurationError: if no namespace may have the name, this machine is a member of one with
        it, or the folder cannot be written.

    """
    parent = parent or default_folder()
    for home in homes(parent):
        if home.namespace.name == name:
            raise ConfigurationError(
                f"this machine is a member of {home.namespace} already; "
                f"`punch leave {home.namespace}` ends that"
            )
    with new_folder(parent) as folder:
        root, machine = load_key(folder / ROOT_KEY), load_key(folder / MACHINE_KEY)
        namespace = Namespace(name=name, root=root.peer_id)
        chain = Issuer(key=root.peer_id, sign=root.sign).issue(
            Lock(namespace, verify),
            machine.peer_id,
            now=now,
            kind="admin",
            scopes=SCOPES,
            name=salted(called),
        )
        folder.write(CHAIN, encode_chain(chain))
        add_members(folder, [record_of(chain, called=called, now=now)])
        write_info(folder, namespace, machine=key_of(machine.peer_id), called=called)
        return home_in(keep(folder, str(namespace)))


def renewed_by_root(home: Home, *, now: float) -> bool:
    """Renew the grant of this machine where the root, whose key must be here, has signed it.

    False if there is no need yet, or no key.
    """
    grant = home.grant
    due = renew_at(grant)
    if due is None or now < due or grant.issuer != home.namespace.root:
        return False
    root = home.root_key()
    if root is None:
        return False
    issuer = Issuer(key=root.peer_id, sign=root.sign)
    lock = Lock(home.namespace, verify, read_revocations(home))
    renewed = issuer.renew(lock, encode_chain(home.chain()), home.machine, now=now)
    if isinstance(renewed, Refusal):
        return False
    home.folder.write(CHAIN, encode_chain(renewed))
    return True


def salted(called: str) -> bytes:
    """What a grant holds of the name of a machine; nothing of an empty one."""
    name = named(called)
    return hidden_name(name, secrets.token_bytes(SALT_BYTES)) if name else b""


def record_of(chain: Chain, *, called: str, now: float) -> MemberRecord:
    """What is kept of the machine that *chain*, without a process, leads to."""
    grant = chain[-1].grant
    return MemberRecord(
        machine=grant.subject,
        name=named(called),
        owner=grant.owner,
        scopes=grant.scopes,
        ends=grant.ends,
        number=grant.number,
        seen=int(now),
        chain=encode_chain(chain),
    )


def read_revocations(home: Home) -> tuple[bytes, ...]:
    """The removals that this machine has heard of; what is damaged is left out, as by a lock."""
    lines = (home.folder.read(REVOCATIONS) or b"").split()
    found = []
    for line in lines:
        with suppress(ValueError):
            found.append(base64.b64decode(line, validate=True))
    return tuple(found)


def add_revocations(home: Home, news: Iterable[bytes]) -> None:
    """Keep *news*, which a lock has taken in, beside what others have written.

    Raises:
      ConfigurationError: if the file cannot be written.

    """
    with home.folder.locked():
        kept = Lock(home.namespace, verify, read_revocations(home))
        if kept.add(news):
            lines = map(base64.b64encode, kept.revocations)
            home.folder.write(REVOCATIONS, b"".join(line + b"\n" for line in lines))


def leave_home(home: Home) -> None:
    """Take a namespace off this machine, its keys with it.

    The others know the machine's grant until it ends, or until an admin removes it.

    Raises:
      ConfigurationError: if the root's key is here and nowhere else, or files cannot be removed.

    """
    discard(home.folder)


def export_root(home: Home, path: Path, *, keeps: bool) -> None:
    """Copy the root's key to the file *path*, and take it off this machine unless it *keeps* it.

    Raises:
      ConfigurationError: if the key is not here, there is such a file, or it cannot be written.

    """
    key = home.root_key()
    if key is None:
        raise ConfigurationError(
            f"the root key of {home.namespace} is not on this machine: it was exported, or this is "
            "not where the namespace was made"
        )
    if path.exists():
        raise ConfigurationError(f"there is a file {path}: name another")
    _copy(home.folder / ROOT_KEY, path, key.peer_id)
    if not keeps:
        home.folder.remove(ROOT_KEY)


def import_root(home: Home, path: Path) -> None:
    """Bring the root's key back from the file *path*.

    Raises:
      ConfigurationError: if the file holds another key, or cannot be read.

    """
    if not path.is_file():
        raise ConfigurationError(f"there is no file {path}")
    key = load_key(path)
    if key.peer_id != home.namespace.root:
        raise ConfigurationError(f"{path} holds another key than that of {home.namespace}")
    if not home.folder.exists(ROOT_KEY):
        _copy(path, home.folder / ROOT_KEY, key.peer_id)


def _copy(source: Path, target: Path, expected: PeerId) -> None:
    folder = Folder(target.parent)
    folder.write(target.name, source.read_bytes())
    if load_key(target).peer_id != expected:
        raise ConfigurationError(f"{target} was not written as it should be: see to its disk")
