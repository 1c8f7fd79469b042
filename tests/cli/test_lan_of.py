"""Whether a program looks for others on its LAN."""

from __future__ import annotations

import pytest

from punch.cli._shared import lan_of
from punch.settings import NetworkSettings

HERE = "/ip4/127.0.0.1/tcp/51820"
THERE = "/ip4/192.168.1.5/tcp/51820"


@pytest.mark.parametrize(
    ("said", "is_closed", "bootstrap", "looks"),
    [
        # Anybody who says an open namespace's name would be asked, so that has to be wanted.
        (None, False, THERE, False),
        (True, False, THERE, True),
        (False, False, THERE, False),
        # In a closed one a grant is shown first, wherever its bootstrap is.
        (None, True, THERE, True),
        (None, True, HERE, True),
        (True, True, HERE, True),
        (False, True, THERE, False),
        # An open namespace that meets on loopback is of this machine.
        (True, False, HERE, False),
        (True, False, f"{HERE},{THERE}", True),
    ],
)
def test_an_open_namespace_is_looked_for_only_if_that_is_said(
    said: bool | None, is_closed: bool, bootstrap: str, looks: bool
) -> None:
    """Whoever is believed on a LAN without a grant is shown prompts."""
    settings = NetworkSettings(lan=said, bootstrap=tuple(bootstrap.split(",")))
    assert (lan_of(settings, is_closed=is_closed) is not None) is looks
