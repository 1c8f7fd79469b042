"""Asks the `punch up` of this user, for the commands that do."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import trio

from ...admin import call
from ...exceptions import NotRunning
from ...membership import Home
from ...settings import data_folder


def admin_folder() -> Path:
    """Where `punch up` is found."""
    return data_folder() / "admin"


def log_path() -> Path:
    """The log of a `punch up` without a terminal."""
    return data_folder() / "up.log"


async def move_running(home: Home) -> Any:
    """Move the `punch up` that runs into *home*; what it says, or `None` if none runs.

    Raises:
      PunchError: why it could not.

    """
    try:
        return await call(admin_folder(), "join", namespace=str(home.namespace))
    except NotRunning:
        return None


def ask(command: str, **arguments: Any) -> Any:
    """Have the running `punch up` carry out *command*; what that came to.

    Raises:
      NotRunning: if none runs, or it does not answer.
      PunchError: what it said is wrong.

    """
    return trio.run(partial(call, admin_folder(), command, **arguments))
