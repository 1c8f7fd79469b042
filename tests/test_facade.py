"""`import punch`: what a program needs by one name each, and nothing heavy that it does not use."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

import punch


@pytest.mark.parametrize("name", punch.__all__)
def test_every_public_name_is_there(name: Any) -> None:
    """Also those that are imported only when they are used."""
    assert getattr(punch, name) is not None
    assert name in dir(punch)


def test_another_name_is_an_attribute_error() -> None:
    """As with every module."""
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = punch.nonsense


def test_asking_imports_neither_engines_nor_servers() -> None:
    """A program that only asks does not pay for the rooms that answer."""
    code = (
        "import sys, punch\n"
        "rooms = {name.split('.')[1] for name in sys.modules if name.startswith('punch.')}\n"
        "print(sorted(rooms & {'backends', 'listener', 'bootstrap', 'gateway', 'dashboard'}))\n"
        "print(sorted({'libp2p', 'starlette', 'pydantic', 'httpx'} & sys.modules.keys()))\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines() == ["[]", "[]"]
