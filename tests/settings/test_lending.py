"""What may be said of lending: sizes, peers and ports."""

from __future__ import annotations

import pytest

from punch.exceptions import ConfigurationError
from punch.settings import WorkerSettings, load

PEER = "12D3KooWBYjqFD5NxrcJqJSArCr3cMR1qH4D6wt6P6s9AWzdt5x2"


def test_what_is_lent_is_said_in_one_line() -> None:
    """By flags, or by variables."""
    found = load(
        WorkerSettings,
        {"--memory": ("4GiB",), "--device": ("CUDA0", "CPU"), "--lend-to": (PEER,)},
        {"PUNCH_TUNNEL_PORT": "4242"},
    ).lending
    assert (found.memory, found.device, found.lend_to) == (4 << 30, ("CUDA0", "CPU"), (PEER,))
    assert found.tunnel_port == 4242
    assert load(WorkerSettings, {}, {"PUNCH_LEND_TO": f"{PEER},{PEER}"}).lending.lend_to == (
        PEER,
        PEER,
    )


@pytest.mark.parametrize("said", ["xyz", PEER[:-1], "12D3KooW", "", "\ud800"])
def test_whoever_may_borrow_is_named_by_an_identity(said: str) -> None:
    """A name that nobody can have would lend to nobody, or to somebody else one day."""
    with pytest.raises(ConfigurationError, match="identity of a peer"):
        load(WorkerSettings, {"--lend-to": (said,)}, {})


def test_nobody_is_named_unless_it_is_said() -> None:
    """And nothing is bounded, and no port is chosen."""
    found = load(WorkerSettings, {}, {}).lending
    assert (found.lend_to, found.memory, found.device, found.tunnel_port) == ((), None, (), None)
