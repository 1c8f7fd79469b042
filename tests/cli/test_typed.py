"""What a person types first: help, version, and names that are not quite right."""

from __future__ import annotations

import sys

import pytest

from punch.__main__ import main


@pytest.mark.parametrize(
    ("typed", "code", "words"),
    [
        ("", 0, "usage: punch COMMAND ..."),
        ("help", 0, "usage: punch COMMAND ..."),
        ("help serve", 0, "usage: punch serve [-h]"),
        ("help keys", 0, "usage: punch keys COMMAND ..."),
        ("help keys create", 0, "usage: punch keys create [-h]"),
        ("version", 0, "punch "),
        ("-V", 0, "punch "),
        ("serve --help", 0, "usage: punch serve [-h]"),
        ("bootstrap --help", 0, "usage: punch bootstrap [-h]"),
        ("keys", 2, "usage: punch keys COMMAND ..."),
        ("servee", 2, "punch: there is no command 'servee'; did you mean `punch serve`?"),
        ("help lisener", 2, "punch: there is no command 'lisener'; did you mean"),
    ],
)
def test_what_a_person_types_first(
    typed: str,
    code: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Help and version under every name that programs have for them."""
    monkeypatch.setattr(sys, "argv", ["punch", *typed.split()])
    try:
        ended = main()
    except SystemExit as left:
        # As argparse prints its help.
        ended = int(left.code or 0)
    said = capsys.readouterr()
    assert ended == code
    assert (said.out if code == 0 else said.err).startswith(words)
