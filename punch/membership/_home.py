"""A closed namespace as this machine has it: its keys, its grant, and what people call it.

Creating one makes a root; joining one is in `_joining`. Which namespace a program means is decided
by `find_home`.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
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
    read_revocation,
    renew_at,
)
from ..capability import PeerId
from ..exceptions import ConfigurationError, RemoteProtocolError
from ..libp2p import Key, load_key, verify
from ._folder import INFO, Folder, default_folder, discard, folders_in, keep, new_folder
from ._members import MemberRecord, add_members, named

MACHINE_KEY = "machine.key"
NEXT_KEY = "machine-next.key"
ROOT_KEY = "root.key"
CHAIN = "chain"
REVOCATIONS = "revocations"
RETIRED = "retired"

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
        """The key of this machine.

        Raises:
          ConfigurationError: if it is not there, or cannot be read.

        """
        # One that was changed has its name a moment later, or at the next change of the key if the
        # machine was switched off in between.
        for name in (MACHINE_KEY, NEXT_KEY, MACHINE_KEY):
            if self.folder.exists(name):
                key = load_key(self.folder / name)
                if key.peer_id == self.machine:
                    return key
        raise ConfigurationError(
            f"{self.folder / MACHINE_KEY} is not the key of {self.machine}, which this machine's "
            f"grant is for: restore it from a backup, or leave with `punch leave {self.namespace}` "
            "and join again"
        )

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
        home = Home(
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
    try:
        # The chain decides which key is the machine's: a key is changed by writing that one file.
        return attrs.evolve(home, machine=home.grant.subject)
    except ConfigurationError:
        # Damaged, which is told where it is needed: whoever leaves needs it not.
        return home


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
    """Have the root, whose key must be here, sign the grant of this machine, an admin, anew.

    Whoever had let it in, and even if its grant has ended: whoever has the root key may do so
    anyway. A machine that was removed stays out. False if there is no need yet, or no key.
    """
    grant = home.grant
    due = renew_at(grant)
    is_signable = grant.kind == "admin" or grant.issuer == home.namespace.root
    if due is None or now < due or not is_signable:
        return False
    root = home.root_key()
    if root is None:
        return False
    lock = Lock(home.namespace, verify, read_revocations(home))
    found = lock.judge(home.machine, encode_chain(home.chain()), now)
    if isinstance(found, Refusal) and found.rule != "expired":
        return False
    issuer = Issuer(key=root.peer_id, sign=root.sign, owner=grant.owner)
    renewed = issuer.issue(
        lock,
        home.machine,
        now=now,
        kind=grant.kind,
        scopes=grant.scopes,
        seconds=grant.lasts if grant.issuer == home.namespace.root else None,
        is_mine=True,
        name=grant.name,
    )
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


def fresh_key(home: Home) -> Path:
    """A file with a new key for this machine, for `switch_key`.

    Raises:
      ConfigurationError: if it cannot be made.

    """
    path = home.folder / NEXT_KEY
    with home.folder.locked():
        if home.folder.exists(NEXT_KEY):
            if load_key(path).peer_id == home.machine:
                path.replace(home.folder / MACHINE_KEY)
            home.folder.remove(NEXT_KEY)
        load_key(path)
    return path


def switch_key(home: Home, chain: bytes, *, word: bytes, now: float) -> Home:
    """Have this machine be known by its new key, of `fresh_key`, and by no other from now on.

    Programs that run take the new key within a second; the old one's removal waits for
    `retire_key`, so that nobody takes them for removed meanwhile.

    Args:
      home: The namespace.
      chain: The grant of the new key, encoded.
      word: The removal of the old key, which nobody can sign afterwards.
      now: UTC, in seconds since 1970.

    Raises:
      ConfigurationError: if something cannot be written, or the key was changed meanwhile.

    """
    folder = home.folder
    with folder.locked():
        new = decode_chain(chain)[-1].grant.subject
        if (home_in(folder).machine, load_key(folder / NEXT_KEY).peer_id) != (home.machine, new):
            raise ConfigurationError("another command has changed the key meanwhile")
        folder.write(RETIRED, word)
        # From here on it has the new key, whenever it is switched off.
        folder.write(CHAIN, chain)
        (folder / NEXT_KEY).replace(folder / MACHINE_KEY)
        switched = home_in(folder)
        write_info(folder, home.namespace, machine=key_of(switched.machine), called=home.name)
    add_members(folder, [record_of(switched.chain(), called=home.name, now=now)])
    return switched


def retire_key(home: Home) -> None:
    """Remove the key that this machine had before `switch_key`; programs that run pass it on.

    Raises:
      ConfigurationError: if it cannot be written.

    """
    word = home.folder.read(RETIRED)
    if word is None:
        return
    with suppress(RemoteProtocolError):
        # Otherwise it was written, and the machine was switched off before it had another key.
        if read_revocation(word).revocation.key != home.machine:
            add_revocations(home, [word])
    home.folder.remove(RETIRED)


def leave_home(home: Home) -> None:
    """Take a namespace off this machine, its keys with it; the others hear of it elsewhere.

    Raises:
      ConfigurationError: if files cannot be removed.

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


def import_root(home: Home, path: Path, *, now: float | None = None) -> bool:
    """Bring the root's key back from the file *path*; True if that has made this machine an admin.

    It may be all that is left of the first machine, and no other admin there. A machine that was
    removed, or has left, stays out.

    Args:
      home: The namespace.
      path: The file.
      now: UTC, in seconds since 1970; by default what it is.

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
    return not home.is_admin and _signed_as_admin(home, key, time.time() if now is None else now)


def _signed_as_admin(home: Home, root: Key, now: float) -> bool:
    """Have the root sign this machine as an admin; False if it was removed."""
    lock, grant = Lock(home.namespace, verify, read_revocations(home)), home.grant
    found = lock.judge(home.machine, encode_chain(home.chain()), now)
    if isinstance(found, Refusal) and found.rule != "expired":
        return False
    chain = Issuer(key=root.peer_id, sign=root.sign, owner=grant.owner).issue(
        lock,
        home.machine,
        now=now,
        kind="admin",
        scopes=SCOPES,
        is_mine=True,
        name=grant.name,
    )
    home.folder.write(CHAIN, encode_chain(chain))
    add_members(home.folder, [record_of(chain, called=home.name, now=now)])
    return True


def _copy(source: Path, target: Path, expected: PeerId) -> None:
    folder = Folder(target.parent)
    folder.write(target.name, source.read_bytes())
    if load_key(target).peer_id != expected:
        raise ConfigurationError(f"{target} was not written as it should be: see to its disk")
