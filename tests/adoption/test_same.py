"""Which addresses are one engine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punch.adoption import engines_at

OWN = ("127.0.0.1", "::1", "192.168.1.5", "fe80::5")


def are_one(a: str, b: str) -> bool:
    return bool(engines_at(a, own=OWN) & engines_at(b, own=OWN))


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:11434",
        "http://localhost:11434/v1",
        "http://LOCALHOST:11434/v1/",
        "http://localhost.:11434",
        "http://[::1]:11434/",
        "http://127.0.0.5:11434",
        "http://0.0.0.0:11434",
        "http://192.168.1.5:11434",
        "http://[::ffff:192.168.1.5]:11434",
        "http://[fe80::5%25eth0]:11434",
    ],
)
def test_all_that_leads_to_this_machine_is_one_host(url: str) -> None:
    """Loopback, the names of it, and its own addresses; with and without ``/v1``."""
    assert are_one(url, "http://127.0.0.1:11434")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:11435",
        "http://192.168.1.6:11434",
        "http://nas:11434",
        "http://127.0.0.1:11434/engines",
        "http://localhost.example:11434",
    ],
)
def test_another_port_host_or_path_is_another_engine(url: str) -> None:
    """Two programs of one machine are two engines."""
    assert not are_one(url, "http://127.0.0.1:11434")


def test_a_name_is_the_engine_that_it_is_looked_up_to() -> None:
    """However it is written, and whether it was looked up or not."""
    by_name = engines_at("http://NAS.local:11434", own=OWN, addresses=("192.168.1.6",))
    assert by_name & engines_at("http://192.168.1.6:11434/v1", own=OWN)
    assert by_name & engines_at("http://nas.local.:11434", own=OWN)
    assert engines_at("http://me:1", own=OWN, addresses=("192.168.1.5",)) & engines_at(
        "http://localhost:1", own=OWN
    )


def test_the_port_of_the_scheme_counts_where_none_is_said() -> None:
    """As in RFC 9110, section 4.2."""
    assert are_one("http://nas", "http://nas:80/v1")
    assert are_one("https://nas", "https://nas:443")
    assert not are_one("http://nas", "https://nas")


@given(st.text(max_size=60))
def test_any_text_is_an_engine_or_none(text: str) -> None:
    """What cannot be read is like nothing else."""
    try:
        engines = engines_at(f"http://{text}", own=OWN)
    except ValueError:
        return
    assert engines == engines_at(f"http://{text}", own=OWN)
