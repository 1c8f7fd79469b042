"""A guardian: runs one program, and ends all that it started when it or punch itself is gone.

    python -I -S _launch.py LIFELINE GRACE SIGPIPE GROUP PROGRAM ARGUMENT...

SIGPIPE is ``ignore`` or ``default``, which is how the program gets that signal. GROUP is the folder
of a control group that the program is put in before it runs, or empty. LIFELINE is one end of a
pair of sockets whose other end punch's process alone holds. It hears:

* ``t``: end the program: SIGTERM, and SIGKILL after GRACE seconds.
* ``k``: SIGKILL at once.
* the end: punch is gone, in whatever way. SIGTERM, and SIGKILL after half a second, since nobody
  waits for an answer any more.

It tells the program's process id in a line, and in another one, once all has ended, the program's
exit code (``-N`` for signal N). A guardian that ends without that was itself killed.

Every signal goes to all that the program has started, as systemd does it (``KillMode=
control-group``): a wrapper script without ``exec`` keeps a signal for itself. What is left when
the program ends by itself is ended too. The guardian then exits as the program did.

Whose process a process is:

* Its session is ours: a session's members have inherited it from the guardian, which leads it.
  This holds for orphans, too.
* It descends from the guardian. On Linux the guardian is the reaper of its descendants (prctl(2),
  ``PR_SET_CHILD_SUBREAPER``), so a daemon that has left the session and lost its parents becomes
  its child. macOS has nothing of the kind: there such a daemon is found by punch alone, by a mark
  in its environment (see `_child`).

Why not ``prctl(PR_SET_PDEATHSIG)`` in the program's process alone: it is Linux only, does not
reach grandchildren, and fires when the *thread* that forked ends. Trio forks in a worker thread
that ends when idle. The guardian has one thread, so it may set it: then not even its own death by
SIGKILL leaves the program behind.

Not for Windows, which has job objects (see `_job`). Imports nothing of punch.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType

assert sys.platform != "win32"

# After SIGKILL a process is gone within milliseconds, or hangs in the kernel until the kernel
# lets it die; neither needs another signal.
KILL_SECONDS = 2.0

# Between SIGTERM and SIGKILL where nobody waits for what the program may still say.
ORPHAN_SECONDS = 0.5

# How often to look whether what was told to end has ended.
LOOK_SECONDS = 0.02

_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def main(arguments: list[str]) -> None:
    """Run the program; tell its process id and, when all has ended, its exit code."""
    lifeline, grace = int(arguments[0]), float(arguments[1])
    sigpipe = signal.SIG_IGN if arguments[2] == "ignore" else signal.SIG_DFL
    group, command = arguments[3], arguments[4:]
    os.set_inheritable(lifeline, False)
    prctl = _find_prctl()
    adopts = prctl(36, 1) == 0  # PR_SET_CHILD_SUBREAPER
    signals = _open_signals()
    program = _start(command, prctl, sigpipe, group)
    _tell(lifeline, program)
    _tell(lifeline, _watch(program, lifeline, signals, grace, adopts=adopts))


def _tell(lifeline: int, number: int) -> None:
    with contextlib.suppress(OSError):  # Punch is gone.
        os.write(lifeline, b"%d\n" % number)


def _watch(program: int, lifeline: int, signals: int, grace: float, *, adopts: bool) -> int:
    """Wait for the end of everything, and bring it about; the program's exit code."""
    code: int | None = None
    kill_at = math.inf
    listening = {lifeline, signals}
    while True:
        ended, has_children = _reap(program)
        code = code if ended is None else ended
        if code is not None and ((adopts and not has_children) or not _ours()):
            return code
        now = time.monotonic()
        if code is not None and kill_at == math.inf:
            # The program has ended by itself, and not all that it has started.
            kill_at = now + min(grace, ORPHAN_SECONDS)
            _send(_ours(), signal.SIGTERM)
        if now >= kill_at + KILL_SECONDS:
            # The rest hangs in the kernel, or belongs to another user, as with sudo.
            return -signal.SIGKILL if code is None else code
        if now >= kill_at:
            if code is None and adopts:
                # Before the rest is looked for: a cancelled answer has 100 ms. Not waited for yet,
                # so the number is its own.
                os.kill(program, signal.SIGKILL)
            _send(_ours(), signal.SIGKILL)
        is_ending = kill_at < math.inf
        if is_ending and not adopts:
            # `ps` is a child, too: its end would wake us, to start the next one at once.
            listening.discard(signals)
        ready, _, _ = select.select(listening, [], [], LOOK_SECONDS if is_ending else None)
        if signals in ready:
            for number in os.read(signals, 64):
                if number != signal.SIGCHLD:
                    _send(_ours(), number)
        if lifeline in ready:
            word = _hear(lifeline)
            if not word:
                listening.discard(lifeline)
            seconds = {b"t": grace, b"k": 0.0}.get(word, min(grace, ORPHAN_SECONDS))
            if seconds > 0 and not is_ending:
                _send(_ours(), signal.SIGTERM)
            kill_at = min(kill_at, time.monotonic() + seconds)


def _hear(lifeline: int) -> bytes:
    with contextlib.suppress(OSError):  # A reset: punch ended before it read what we told.
        return os.read(lifeline, 1)
    return b""


def _start(
    command: list[str], prctl: Callable[[int, int], int], sigpipe: signal.Handlers, group: str
) -> int:
    """Start the program with our standard streams; its process id."""
    guardian = os.getpid()
    program = os.fork()
    if program:
        # The program alone reads what it is sent: when it closes that, its sender learns it.
        with contextlib.suppress(OSError):
            nothing = os.open(os.devnull, os.O_RDONLY)
            os.dup2(nothing, 0)
            os.close(nothing)
        return program
    try:
        # Python ignores these, and what is ignored stays so in the program.
        signal.signal(signal.SIGPIPE, sigpipe)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if group:
            _enter(group)
        if os.getppid() == guardian:  # Or it died before the call.
            os.execvp(command[0], command)  # noqa: S606 - running this very program is the task
    except OSError as error:
        os.write(2, f"cannot run {command[0]}: {error.strerror}\n".encode("utf-8", "replace"))
    os._exit(127)


def _enter(group: str) -> None:
    """Put this process into a control group, whose limits then hold for all that it starts."""
    writing = os.open(os.path.join(group, "cgroup.procs"), os.O_WRONLY)  # noqa: PTH118 - as above
    os.write(writing, b"0")  # The one that writes.
    os.close(writing)


def _open_signals() -> int:
    """A descriptor that gives the number of each signal that comes."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, *_FORWARDED):
        signal.signal(number, _ignore)
    return reading


def _ignore(number: int, frame: FrameType | None) -> None:
    """Do nothing: the signal's number is read from the descriptor."""


def _reap(program: int) -> tuple[int | None, bool]:
    """The program's exit code if it has ended just now, and whether a child of ours is left."""
    code = None
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return code, True
            if pid == program:
                code = os.waitstatus_to_exitcode(status)
    return code, False


# ---- whose process a process is ----

# Process id to parent, session and start, of all processes that run; zombies do not.
Table = dict[int, tuple[int, int, str]]


def _ours() -> dict[int, str]:
    """The processes that the program has started, and it itself, with what tells them apart."""
    table = _processes()
    me = os.getpid()
    found = {pid for pid, (_, session, _) in table.items() if session == me} - {me}
    parents = found | {me}
    while (
        more := {pid for pid, (parent, _, _) in table.items() if parent in parents} - found - {me}
    ):
        found |= more
        parents = more
    return {pid: table[pid][2] for pid in found}


def _processes() -> Table:
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            return _from_proc()
    return _from_ps()


def _from_proc() -> Table:
    table: Table = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - pathlib takes 3 MB and 10 ms
        if name.isdigit() and (facts := _of(int(name))) is not None:
            table[int(name)] = facts
    return table


def _of(pid: int) -> tuple[int, int, str] | None:
    """Parent, session and start of one process on Linux; see proc_pid_stat(5)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            # The name of the program, in brackets, may have spaces and brackets.
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in b"ZX" else (int(fields[1]), int(fields[3]), fields[19].decode())


def _from_ps() -> Table:
    """The same on other systems, where `ps` alone knows all processes."""
    reading, writing = os.pipe()
    actions = [(os.POSIX_SPAWN_DUP2, writing, 1)]
    words = ["ps", "-Axo", "pid=,ppid=,stat=,lstart="]
    try:
        ps = os.posix_spawnp("ps", words, os.environ, file_actions=actions)
    except OSError:
        os.close(reading)
        return {}
    finally:
        os.close(writing)
    with open(reading, encoding="utf-8", errors="replace") as file:  # noqa: PTH123
        lines = file.read().splitlines()
    os.waitpid(ps, 0)
    table: Table = {}
    for line in lines:
        pid, parent, state, start = line.split(None, 3)
        if not state.startswith("Z") and int(pid) != ps:
            with contextlib.suppress(OSError):
                table[int(pid)] = int(parent), os.getsid(int(pid)), start
    return table


def _send(ours: dict[int, str], number: int) -> None:
    """Send a signal to each of *ours*, unless its number is another process's by now."""
    for pid, start in ours.items():
        with contextlib.suppress(OSError):
            _send_to(pid, start, number)
            if number == signal.SIGTERM:
                # One that was stopped would not hear of it.
                _send_to(pid, start, signal.SIGCONT)


if sys.platform == "linux":

    def _send_to(pid: int, start: str, number: int) -> None:
        # A handle of the process, not its number: that may be another's after the check.
        handle = None
        with contextlib.suppress(OSError, AttributeError):  # Linux before 5.3 has none.
            handle = os.pidfd_open(pid)
        try:
            facts = _of(pid)
            if facts is None or facts[2] != start:
                return
            if handle is None:
                os.kill(pid, number)
            else:
                signal.pidfd_send_signal(handle, number)
        finally:
            if handle is not None:
                os.close(handle)

else:

    def _send_to(pid: int, start: str, number: int) -> None:
        os.kill(pid, number)


# ---- the operating system ----


def _find_prctl() -> Callable[[int, int], int]:
    """``prctl(2)``, or a function that fails where there is none."""
    if sys.platform == "linux":
        with contextlib.suppress(ImportError, OSError, AttributeError):
            import ctypes

            return ctypes.CDLL(None).prctl
    return lambda option, value: -1


if __name__ == "__main__":
    main(sys.argv[1:])
    # Nothing is to be tidied up, and the interpreter would take a while for it.
    os._exit(0)
