"""What a gateway of several processes cannot have."""

from __future__ import annotations

import pytest

from punch.cli.serving._fronts import check_processes
from punch.exceptions import ConfigurationError
from punch.settings import GatewaySettings


def test_splits_on_demand_need_one_process() -> None:
    """A split is a lane of the listener of the process that starts it."""
    settings = GatewaySettings(processes=2, split=("tiny",))
    with pytest.raises(ConfigurationError, match=r"--processes.*--split"):
        check_processes(settings)
    check_processes(GatewaySettings(split=("tiny",)))


def test_windows_has_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """There no descriptor goes from one process to another so."""
    monkeypatch.setattr("sys.platform", "win32")
    with pytest.raises(ConfigurationError, match="Windows"):
        check_processes(GatewaySettings(processes=2))
    check_processes(GatewaySettings())
