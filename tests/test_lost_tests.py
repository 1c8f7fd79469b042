"""No test of the earlier commit is lost on the way without a reason."""

from __future__ import annotations

import ast

import lost_tests
import past
import pytest
from lost_tests import Test, lost


@pytest.mark.slow
def test_every_test_that_is_gone_has_its_reason() -> None:
    """`tests/lost_tests.py` prints those without; `tests/lost_tests.txt` has the reasons."""
    try:
        gone = lost_tests.lost_since()
    except past.PastIsMissing as error:
        pytest.skip(str(error))
    known = lost_tests.reasons()
    assert [f"{test.identity} ({why})" for test, why in gone if test.identity not in known] == []
    # A reason for what is not gone hides the day on which it goes.
    assert sorted(known.keys() - {test.identity for test, _ in gone}) == []


def made(path: str, name: str, code: str) -> Test:
    """A test with this body."""
    return Test(path, name, lost_tests._lines(ast.parse(code).body))


BODY = "a = 1\nb = 2\nc = f(a, b)\nassert c == 3\nassert not d\nassert e\ng()\n"


def test_what_moved_or_was_renamed_is_not_lost() -> None:
    """By its name in another file, by what it does under another name."""
    then = [made("old.py", "test_a", BODY), made("old.py", "test_b", BODY + "h()")]
    now = [made("new.py", "test_a", BODY), made("new.py", "test_c", BODY + "h()")]
    assert lost(then, now) == []


def test_what_was_emptied_is_lost() -> None:
    """The same name over something else claims what it no longer shows."""
    ((test, why),) = lost([made("old.py", "test_a", BODY)], [made("new.py", "test_a", "pass")])
    assert test.name == "test_a"
    assert "something else" in why


def test_one_test_does_not_stand_for_two() -> None:
    """Two of one name in two files are two claims."""
    then = [made("one.py", "test_a", BODY), made("two.py", "test_a", BODY)]
    ((test, _),) = lost(then, [made("new.py", "test_a", BODY)])
    assert test.path == "two.py"
