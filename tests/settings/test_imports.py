"""What is imported when: nobody pays for what is not used."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Libraries, and rooms of ours, that a program which only asks has no use for. libp2p comes when a
# node is opened, TOML when there is a settings file.
HEAVY = frozenset(
    {
        *("aioquic", "libp2p", "numpy", "llama_cpp", "xllamacpp", "pynvml"),
        *("httpcore", "httptools", "httpx", "starlette", "pydantic", "sqlite3"),
        *("prometheus_client", "opentelemetry", "tomlkit", "tomllib"),
        *("punch.dashboard", "punch.gateway", "punch.simulator", "punch.testing"),
    }
)

# And what a library has no use for: it takes keyword arguments.
ONLY_PROGRAMS = frozenset({"argparse", "platformdirs", "punch.cli", "punch.settings"})


def imported_by(*modules: str) -> set[str]:
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("modules", "unwanted"),
    [
        (("punch",), HEAVY | ONLY_PROGRAMS),
        (("punch.dialer",), HEAVY | ONLY_PROGRAMS),
        (("punch.dialer.__main__",), HEAVY),
        (("punch.settings", "punch.cli"), HEAVY),
    ],
)
def test_nothing_heavy_is_imported_for_nothing(
    modules: tuple[str, ...], unwanted: frozenset[str]
) -> None:
    """The names that must not be there are in the test's head, each for a reason."""
    assert sorted(unwanted & imported_by(*modules)) == []
