"""The gateway's file: keys and what they used, in SQLite. The only importer of `sqlite3`.

One file may be open in several processes at once: the gateways of a machine, and ``punch keys``.
It is in WAL mode, so that readers never wait for a writer (https://www.sqlite.org/wal.html). With
``synchronous=NORMAL`` a transaction survives the end of its process, however sudden; a power cut
may take the last ones with it.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ...exceptions import ConfigurationError

T = TypeVar("T")

# Held while a file is made: see `_make_private` for why no other thread may have it open then.
_making = threading.Lock()

# Written into the file, so that the database of another program is never taken for ours: "punc".
APPLICATION = 0x70756E63

# Grows with every change of the tables; a file of a later one is refused.
SCHEMA_VERSION = 1

# How long a transaction waits for another process's, in seconds. Ours take milliseconds.
BUSY_SECONDS = 5.0

# How soon to try again to change the journal's mode, for which SQLite itself does not wait.
JOURNAL_SECONDS = 0.02

_SCHEMA = """
CREATE TABLE keys (
    key_id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    digest BLOB NOT NULL,               -- SHA-256 of the whole secret
    models TEXT NOT NULL,               -- JSON, a list of names; empty for all
    requests_per_minute INTEGER,        -- NULL for no limit, here and below
    tokens_per_minute INTEGER,
    concurrency INTEGER,
    created_at REAL NOT NULL,           -- seconds since 1970, here and below
    expires_at REAL,
    revoked_at REAL,
    is_admin INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE usage (
    key_id TEXT NOT NULL,
    day TEXT NOT NULL,                  -- ISO 8601, UTC
    requests INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    PRIMARY KEY (key_id, day)
) WITHOUT ROWID;
CREATE TABLE revision (number INTEGER NOT NULL);
INSERT INTO revision VALUES (0);
"""

# Columns that files of the same schema may lack, since they were made before.
_ADDED = (("keys", "is_admin", "INTEGER NOT NULL DEFAULT 0"),)

Execute = Callable[..., sqlite3.Cursor]


class Database:
    """A connection to the file. Every method blocks: call it in a thread, or in a program.

    Args:
      path: The file, made with its folder if it is not there; only its owner may read it.

    Raises:
      ConfigurationError: here and from every method, naming the file, if it cannot be used.

    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._opened = 0
        self._connection = self._guarded(self._open)

    def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a query."""

        def query() -> list[tuple[Any, ...]]:
            return self._connection.execute(sql, parameters).fetchall()

        with self._lock:
            self._guarded(self._follow)
            return self._guarded(query)

    def write(self, change: Callable[[Execute], T]) -> T:
        """Do *change* in a transaction, which is undone if it raises."""

        def transaction() -> T:
            execute = self._connection.execute
            execute("BEGIN IMMEDIATE")
            try:
                outcome = change(execute)
                execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    execute("ROLLBACK")
                raise
            return outcome

        with self._lock:
            self._guarded(self._follow)
            return self._guarded(transaction)

    def version(self) -> tuple[int, int]:
        """A value that changes with every commit of another connection, and with a new file."""
        found = self.read("PRAGMA data_version")[0][0]
        return self._opened, int(found)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def _guarded(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except OSError as error:
            why = error.strerror or repr(error)
        except sqlite3.Error as error:
            why = str(error)
        raise ConfigurationError(
            f"the gateway's file {self.path} cannot be used: {why}; name another with --keys"
        )

    def _follow(self) -> None:
        """Reopen the path if its file was removed or replaced, such as by a restored backup."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            status = None
        if status is None or (status.st_dev, status.st_ino) != self._file:
            self._connection.close()
            self._connection = self._open()

    def _open(self) -> sqlite3.Connection:
        _make_private(self.path)
        # The callers hold the lock, so one connection may serve several threads.
        connection = sqlite3.connect(
            self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            self._use_wal(connection)
            connection.execute("PRAGMA synchronous = NORMAL")
            self._check_schema(connection)
        except BaseException:
            connection.close()
            raise
        status = self.path.stat()
        self._file = (status.st_dev, status.st_ino)
        self._opened += 1
        return connection

    def _use_wal(self, connection: sqlite3.Connection) -> None:
        patient_until = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL").fetchone()
            except sqlite3.OperationalError as error:
                locked = error.sqlite_errorcode == sqlite3.SQLITE_BUSY
                if not locked or time.monotonic() > patient_until:
                    raise
                time.sleep(JOURNAL_SECONDS)
            else:
                return

    def _check_schema(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if tables and application != APPLICATION:
                raise ConfigurationError(
                    f"{self.path} is the database of another program; name another with --keys"
                )
            if version > SCHEMA_VERSION:
                raise ConfigurationError(
                    f"{self.path} was made by a later version of punch: schema {version}, and "
                    f"this one knows {SCHEMA_VERSION}; upgrade punch, or name another with --keys"
                )
            if not tables:
                # One by one: `executescript` would end the transaction.
                for statement in _SCHEMA.split(";\n"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                connection.execute(f"PRAGMA application_id = {APPLICATION}")
            for table, column, kind in _ADDED:
                # An earlier version leaves such a column alone, so that the schema is the same.
                known = connection.execute(f"PRAGMA table_info({table})").fetchall()
                if column not in {row[1] for row in known}:
                    connection.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")
            connection.execute("COMMIT")
        except BaseException:
            # A full disk has undone it already.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _make_private(path: Path) -> None:
    """See that the file is there, and that nobody else can read it; its journals take its mode.

    One that is there is never opened: closing it would drop the POSIX locks that SQLite holds on
    it for this whole process, and the next program that ends would take the journal from under us
    (https://www.sqlite.org/howtocorrupt.html, section 2.2).
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
    with _making:
        try:
            os.close(os.open(path, flags, 0o600))
        except FileExistsError:
            mode = path.stat().st_mode
            if stat.S_ISDIR(mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)) from None
            if sys.platform != "win32" and mode & 0o077:
                path.chmod(0o600)
