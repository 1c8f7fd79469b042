"""The one commit of the past that today's punch is held against, and its files."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

COMMIT = "c554520d830b885825b18eeeb642c9e9ca69e7d7"
"""What peers of that commit say is understood for ever, and no test of it is lost unnoticed."""


class PastIsMissing(Exception):
    """The commit is not in this clone; the text says how to get it."""


def _git(*arguments: str) -> bytes:
    try:
        ended = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, timeout=120, check=False
        )
    except OSError as error:
        raise PastIsMissing(f"git does not start: {error}") from None
    if ended.returncode != 0:
        raise PastIsMissing(
            f"commit {COMMIT[:7]} is not in this clone (a shallow one?): "
            f"`git fetch --unshallow` brings it. git says: {ended.stderr.decode().strip()[:300]}"
        )
    return ended.stdout


def unpack(folder: Path, commit: str = COMMIT, *only: str) -> Path:
    """Put the files of *commit* into *folder*, all or those under *only*; returns the folder.

    Raises:
      PastIsMissing: if git or the commit is not there.

    """
    packed = _git("archive", "--format=tar", commit, *only)
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def unpack_or_skip(folder: Path, *only: str) -> Path:
    """The same, for a test that is of no use without."""
    try:
        return unpack(folder, COMMIT, *only)
    except PastIsMissing as error:
        pytest.skip(str(error))
