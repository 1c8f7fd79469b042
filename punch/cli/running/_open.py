"""``punch open``: opens the dashboard of the running `punch up` in a browser."""

from __future__ import annotations

import os
import sys
import webbrowser
from collections.abc import Mapping, Sequence

from ...exceptions import NetworkError
from ...settings import Settings
from .._exits import ExitCode
from .._run import run_command
from ._asking import ask

ABOUT = """\
Open the dashboard of the running `punch up` in a browser. Where there is no screen, its address
is printed."""


def has_screen(environment: Mapping[str, str], platform: str) -> bool:
    """Whether a browser would have somewhere to be seen."""
    if platform in ("win32", "darwin") or environment.get("BROWSER"):
        return True
    return bool(environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY"))


def _open(settings: Settings) -> ExitCode:
    said = ask("status")
    addresses = said.get("addresses") or {}
    url = addresses.get("dashboard")
    if not url:
        raise NetworkError(
            f"the running punch is {said.get('state')}, and serves nothing yet: wait until "
            "`punch status` shows its addresses"
        )
    print(url, flush=True)
    if said.get("has_keys"):
        print(
            "punch: the page asks for an API key; `punch keys create NAME` makes one",
            file=sys.stderr,
        )
    if not has_screen(os.environ, sys.platform):
        print("punch: there is no screen here: open this address in a browser", file=sys.stderr)
    elif not webbrowser.open(url):
        print("punch: no browser was found: open this address in one", file=sys.stderr)
    return ExitCode.OK


def open_dashboard(arguments: Sequence[str]) -> int:
    """Run ``punch open``; its exit code."""
    return run_command("punch open", ABOUT, Settings, _open, arguments)
