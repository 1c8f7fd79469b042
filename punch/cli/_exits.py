"""Maps errors to exit codes, by which a script can tell what went wrong."""

from __future__ import annotations

import enum

from ..exceptions import (
    AnswerInterrupted,
    BackendError,
    ConfigurationError,
    DeadlineExceeded,
    ModelFileError,
    NetworkError,
    NoPeerAvailable,
    NoRealPeer,
    NotRunning,
    PeerError,
    PunchError,
    RequestError,
)


class ExitCode(enum.IntEnum):
    """The exit status of a program."""

    OK = 0
    """The program did what it was asked."""

    BUG = 1
    """A fault of punch. Please report it."""

    USAGE = 2
    """An option, a variable or a model file is wrong; the text says which and how to put it."""

    NO_PEER = 3
    """No peer could answer, or continue an answer; the text lists every peer with its reason. Of \
`punch models fit`: the model fits nowhere."""

    REQUEST = 4
    """The request itself can be answered by no peer."""

    DEADLINE = 5
    """The time ran out."""

    NO_REAL_PEER = 6
    """Strict mode, and no peer offers real inference."""

    NETWORK = 7
    """The bootstrap is out of reach or has another identity, an address is in use, or this \
machine is no member of the namespace, such as after `punch leave`."""

    BACKEND = 8
    """The backend on this machine does not work."""

    OUTPUT = 9
    """Standard output could not be written: the disk is full, or it was closed."""

    NOT_RUNNING = 10
    """No `punch up` of this user runs here, or the one that does answers no command."""

    UNWELL = 11
    """`punch doctor` has found something that is wrong."""

    HANGUP = 129
    """The terminal is gone (SIGHUP), before the program was done. One that serves is done once it \
has drained, and then ends with 0."""

    INTERRUPTED = 130
    """Ctrl-C (SIGINT), before the program was done; a second one ends it while it drains."""

    PIPE = 141
    """Whoever read the output has gone, as `head` does when it has enough. Nothing is printed."""

    TERMINATED = 143
    """SIGTERM, before the program was done."""


# The first class that fits counts.
EXITS: tuple[tuple[type[PunchError], ExitCode], ...] = (
    (NoRealPeer, ExitCode.NO_REAL_PEER),
    (NoPeerAvailable, ExitCode.NO_PEER),
    (PeerError, ExitCode.NO_PEER),
    (AnswerInterrupted, ExitCode.NO_PEER),
    (RequestError, ExitCode.REQUEST),
    (DeadlineExceeded, ExitCode.DEADLINE),
    (ConfigurationError, ExitCode.USAGE),
    (ModelFileError, ExitCode.USAGE),
    (NetworkError, ExitCode.NETWORK),
    (BackendError, ExitCode.BACKEND),
    (NotRunning, ExitCode.NOT_RUNNING),
    (PunchError, ExitCode.BUG),
)


def exit_code(error: PunchError) -> ExitCode:
    """The exit code for *error*."""
    return next(code for kind, code in EXITS if isinstance(error, kind))
