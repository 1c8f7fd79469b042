"""What the command line and the settings file take is what a request may hold."""

from __future__ import annotations

from typing import Any

import pytest

from punch.settings import SETTINGS
from punch.wire import LIMITS, Limit

ASKED = [
    pytest.param(setting.rule.convert, LIMITS[setting.key], id=f"{setting.section}.{setting.key}")
    for setting in SETTINGS
    if setting.section in ("dialer", "gateway")
    and setting.key in LIMITS
    and LIMITS[setting.key].type in (int, float)
]


def test_every_number_that_can_be_set_is_compared() -> None:
    """The tests below have something to do."""
    names = {param.id for param in ASKED}
    assert names >= {"dialer.temperature", "dialer.max_tokens", "dialer.seed", "gateway.timeout"}


@pytest.mark.parametrize(("convert", "limit"), ASKED)
def test_a_setting_takes_both_ends_of_its_limit(convert: Any, limit: Limit) -> None:
    """None is narrower than the request is."""
    least = limit.least + 0.001 if limit.above else limit.least
    assert convert(str(least)) == least
    assert convert(str(limit.most)) == limit.most


@pytest.mark.parametrize(("convert", "limit"), ASKED)
def test_a_setting_takes_nothing_that_no_request_may_hold(convert: Any, limit: Limit) -> None:
    """It is refused where it is typed, not when the question is asked."""
    beyond = limit.most + 1
    for value in (beyond, limit.least if limit.above else limit.least - 1):
        with pytest.raises(ValueError, match="it must be"):
            convert(str(value))
