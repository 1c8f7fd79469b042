"""What tests of the dashboard have in common: their made-up callers are this user's programs."""

from __future__ import annotations

import pytest

from punch.dashboard import _rights


@pytest.fixture(autouse=True)
def callers_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """No table of the system knows a connection that there is not."""
    monkeypatch.setattr(_rights, "is_of_this_user", lambda client, server: True)
