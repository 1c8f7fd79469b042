"""Plants small faults into a copy of the code, one at a time; the tests must notice each.

    tests/planted_faults.py             all of them; exit status 1 if one is not noticed
    tests/planted_faults.py credit      those with this word in their name
    tests/planted_faults.py --list      what there is, and nothing is run

Each is what a hand slips over in a big move: a credit that is dropped, a cancel that is forgotten,
a comparison that always holds. A fault is found by its text, wherever that has moved to; a test of
its own (`tests/test_planted_faults.py`) sees that the text is still there exactly once.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import attrs

ROOT = Path(__file__).resolve().parents[1]

# Longer than any of the files below takes on a busy machine. A test that hangs has not noticed.
LIMIT_SECONDS = 180.0

COPIED = ("punch", "tests", "docs", "examples", "benchmarks", "bins")

# What pytest returns if tests were run and some failed; anything else is no verdict.
TESTS_FAILED = 1


@attrs.frozen(kw_only=True)
class Fault:
    """One change of the code that makes it wrong."""

    name: str
    """What goes wrong then."""

    old: str
    """A text that is in one file of the product, once."""

    new: str
    """What is put in its place."""

    tests: tuple[str, ...]
    """Files of tests, from the root, of which one at least must fail."""


FAULTS = (
    # ---- commands to a running program ----
    Fault(
        name="any token opens the door",
        old='if hmac.compare_digest(command.token.encode("utf-8", "replace"), self._token):',
        new="if command.token is not None:",
        tests=("tests/admin/test_admin.py",),
    ),
    Fault(
        name="a killed program is asked",
        old="return door if door is not None and door.mark.is_running else None",
        new="return door",
        tests=("tests/admin/test_door.py",),
    ),
    Fault(
        name="up has no engine and runs a mock",
        old='if settings.origin("name").layer != "default":',
        new="if settings.name:",
        tests=("tests/cli/test_up_choices.py",),
    ),
    Fault(
        name="a code goes into a log",
        old="return next((stream for stream in streams if stream.isatty()), None)",
        new="return streams[0]",
        tests=("tests/cli/test_up_words.py",),
    ),
    Fault(
        name="a namespace that a person has made is dropped",
        old="home.folder.exists(MADE)",
        new="True",
        tests=("tests/cli/test_up_choices.py", "tests/cli/test_up_namespaces.py"),
    ),
    # ---- the page ----
    Fault(
        name="a page of another origin invites",
        old="        if not _is_own_page(request):\n",
        new="        if False:\n",
        tests=("tests/dashboard/test_machines.py",),
    ),
    Fault(
        name="who comes through a proxy invites",
        old="if request.client is None or any(name in request.headers for name in _FORWARDED):",
        new="if request.client is None:",
        tests=("tests/dashboard/test_machines.py", "tests/dashboard/test_newcomers.py"),
    ),
    Fault(
        name="what cannot be started hides what runs",
        old="        added = (_can_start(starts), *added)\n",
        new="        pass\n",
        tests=("tests/routing/test_kinds.py",),
    ),
    # ---- the session ----
    Fault(
        name="a credit is dropped",
        old="if self._taken >= CREDIT_STEP and not self._over:",
        new="if False:",
        tests=("tests/session/test_sessions.py", "tests/recorded/test_recorded.py"),
    ),
    Fault(
        name="a chunk is doubled",
        old="        session.say(kind(request_id=request_id, text=text, tokens=tokens))\n",
        new="        session.say(kind(request_id=request_id, text=text, tokens=tokens))\n" * 2,
        tests=("tests/session/test_sessions.py", "tests/recorded/test_recorded.py"),
    ),
    Fault(
        name="a cancel is forgotten",
        old="            self._session.abandon(self)\n",
        new="            pass\n",
        tests=("tests/session/test_sessions.py", "tests/dialer/test_router.py"),
    ),
    Fault(
        name="a wait for the reader is skipped",
        old="while not session.fits(request_id, piece):",
        new="while False:",
        tests=("tests/session/test_sessions.py", "tests/recorded/test_recorded.py"),
    ),
    Fault(
        name="a credit beyond what was sent is taken",
        old="if message.amount > request.ahead:",
        new="if False:",
        tests=("tests/wire/test_session.py",),
    ),
    Fault(
        name="another namespace is let in",
        old="if theirs.namespace != self._ours.namespace:",
        new="if False:",
        tests=("tests/wire/test_session.py",),
    ),
    # ---- bytes from strangers ----
    Fault(
        name="a frame may be of any length",
        old="        if length > self.max_frame:\n",
        new="        if False:\n",
        tests=("tests/wire/test_session.py", "tests/discovery/test_meeting.py"),
    ),
    Fault(
        name="a frame may have any number of containers",
        old="if self.count > MAX_CONTAINERS:",
        new="if False:",
        tests=("tests/wire/test_codec.py",),
    ),
    Fault(
        name="a registration is believed without its signature",
        old="if not node.verify(registration.peer_id",
        new="if False and not node.verify(registration.peer_id",
        tests=("tests/discovery/test_meeting.py",),
    ),
    Fault(
        name="an older registration replaces a newer one",
        old="if stamp <= (before.incarnation, before.sequence) and not is_anew:",
        new="if False:",
        tests=("tests/wire/test_registrations.py",),
    ),
    # ---- tunnels ----
    Fault(
        name="a tunnel lets in whoever has another certificate",
        old="    context.verify_mode = ssl.CERT_REQUIRED\n",
        new="    context.verify_mode = ssl.CERT_NONE\n",
        tests=("tests/tunnels/test_certificates.py",),
    ),
    Fault(
        name="a port that is for one peer is for all",
        old="if (port.peers or membership is None) and peer_id not in port.peers:",
        new="if False:",
        tests=("tests/tunnels/test_named_ports.py",),
    ),
    Fault(
        name="a stranger learns which ports there are",
        old="if refused is not None and refused.refused != NOT_ALLOWED:",
        new="if False:",
        tests=("tests/tunnels/test_named_ports.py",),
    ),
    Fault(
        name="a far end is gone to wherever a peer says",
        old="if host in hosts and 0 < number < 1 << 16:",
        new="if 0 < number < 1 << 16:",
        tests=("tests/tunnels/test_named_ports.py",),
    ),
    Fault(
        name="a member that was removed keeps its tunnels",
        old="if refused is not None and ends(refused):",
        new="if False:",
        tests=("tests/tunnels/test_named_ports.py",),
    ),
    Fault(
        name="a frame of a tunnel may be of any length",
        old="        if self._left > limit:\n",
        new="        if False:\n",
        tests=("tests/tunnels/test_framing.py",),
    ),
    # ---- leases ----
    Fault(
        name="two borrow at a time",
        old='if self._state in ("opening", "leased"):',
        new='if self._state == "opening":',
        tests=("tests/cluster/test_desk.py",),
    ),
    Fault(
        name="a server serves two borrowers",
        old="if server <= self._last_server:",
        new="if False:",
        tests=("tests/cluster/test_desk.py",),
    ),
    Fault(
        name="whoever is a member borrows",
        old='roles=frozenset({"borrower"}),',
        new="roles=frozenset(),",
        tests=("tests/cluster/test_lending_closed.py",),
    ),
    Fault(
        name="whoever knows an open namespace borrows",
        old="if peer_id not in self._lend_to:",
        new="if False:",
        tests=("tests/cluster/test_lending.py",),
    ),
    Fault(
        name="a removed member keeps its lease",
        old='self._holding.finish(visit.tenure, "removed", refusal.reason)',
        new="pass",
        tests=("tests/cluster/test_lending_closed.py",),
    ),
    # ---- what is known of peers ----
    Fault(
        name="an older advert is accepted",
        old="if (incarnation, sequence) <= newest:",
        new="if False:",
        tests=("tests/peers/test_table.py",),
    ),
    Fault(
        name="a breaker never opens",
        old="return Breaker(failures=min(self.failures + 1, MAX_FAILURES), until=now + cooling)",
        new="return self",
        tests=("tests/peers/test_table.py",),
    ),
    # ---- asking ----
    Fault(
        name="strict is ignored where the answer comes in",
        old='if request.strict and provenance.kind != "real":',
        new="if False:",
        tests=("tests/dialer/test_hostile_peers.py", "tests/dialer/test_router.py"),
    ),
    Fault(
        name="an answer from another model file is taken",
        old="if offer.digest != provenance.model_digest:",
        new="if False:",
        tests=("tests/dialer/test_verdict.py",),
    ),
    Fault(
        name="an error is swallowed",
        old="        if text is None and run.error is not None:\n            raise run.error\n",
        new="",
        tests=("tests/dialer/test_router.py",),
    ),
    Fault(
        name="another request with a known id gets the answer of the first",
        old="if earlier is not None and earlier.fingerprint != _fingerprint(request, scope):",
        new="if False:",
        tests=("tests/dialer/test_exactly_once.py",),
    ),
    Fault(
        name="further tries are without limit",
        old="        if self.left(now) < 1.0 + leaving:\n            return False\n",
        new="",
        tests=("tests/routing/test_budget.py",),
    ),
    # ---- answering ----
    Fault(
        name="a member is answered outside of its hours",
        old="if caps.hours is not None:",
        new="if False:",
        tests=("tests/listener/test_member_limits.py",),
    ),
    Fault(
        name="a slot is not given back",
        old="slots.release(work.ticket, output_tokens=recording.tokens, finished=finished)",
        new="pass",
        tests=("tests/listener/test_executor.py",),
    ),
    Fault(
        name="the work goes on when the last reader has left",
        old="        else:\n            self.scope.cancel()\n",
        new="",
        tests=("tests/listener/test_recording.py", "tests/listener/test_executor.py"),
    ),
    Fault(
        name="the time of one reader is that of all",
        old="            for each in self._readers:\n                each.follow()\n",
        new="            pass\n",
        tests=("tests/listener/test_recording.py",),
    ),
    Fault(
        name="a cancel does not reach the answer",
        old="            call.left = reader.left\n",
        new="",
        tests=("tests/listener/test_recording.py",),
    ),
    Fault(
        name="no dialer that lost its session is waited for",
        old="        elif comes_back:\n",
        new="        elif False:\n",
        tests=("tests/listener/test_recording.py", "tests/listener/test_executor.py"),
    ),
    Fault(
        name="strict is ignored where the answer is made",
        old="if (request.strict or self.strict) and self.backend.simulated:",
        new="if False:",
        tests=("tests/dialer/test_router.py",),
    ),
    Fault(
        name="an upstream is asked again after it began to answer",
        old="if wire.is_new or wire.is_answered:",
        new="if wire.is_new:",
        tests=("tests/backends/test_cut_answers.py",),
    ),
    # ---- the gateway ----
    Fault(
        name="any secret opens a known key",
        old="right = hmac.compare_digest(_digest(secret), digest)",
        new="right = True",
        tests=("tests/gateway/test_keys.py",),
    ),
    # ---- a closed namespace ----
    Fault(
        name="a removed member stays that was forgotten",
        old="            here = {guest.peer_id for guest in self._visits} | {peer_id}",
        new="            here = {peer_id}",
        tests=("tests/access/test_hostile.py",),
    ),
    Fault(
        name="who has not renewed is told of others",
        old="if isinstance(member.namespace, tuple) and not self._registrations.has(",
        new="if False and not self._registrations.has(",
        tests=("tests/access/test_hostile.py",),
    ),
    Fault(
        name="a newcomer is not held to what it has committed to",
        old="        if len(theirs) != NONCE_BYTES or not is_same(",
        new="        if len(theirs) != NONCE_BYTES and not is_same(",
        tests=("tests/membership/test_nearby.py", "tests/membership/test_hostile.py"),
    ),
    Fault(
        name="a code is proved to whoever stands in between",
        old=(
            'idA=_CONTEXT + newcomer.encode("utf-8"),\n'
            '            idB=_CONTEXT + member.encode("utf-8"),'
        ),
        new="idA=_CONTEXT,\n            idB=_CONTEXT,",
        tests=("tests/membership/test_joining.py", "tests/membership/test_hostile.py"),
    ),
    Fault(
        name="a program tells who it is at a member's old address",
        old="                        if await is_member(membership, node, peer_id, address):",
        new="                        if True:",
        tests=("tests/membership/test_hostile.py",),
    ),
    # ---- llama.cpp's RPC ----
    Fault(
        name="a hello is abandoned, and kills a busy worker",
        old="if not self._is_due:",
        new="if True:",
        tests=("tests/integration/test_rpc_server.py",),
    ),
    Fault(
        name="a worker dies of a client that has left",
        old="ignores_sigpipe=True,",
        new="ignores_sigpipe=False,",
        tests=("tests/integration/test_rpc_server.py",),
    ),
    Fault(
        name="a borrower may use more than is lent",
        old="(pid, resource.RLIMIT_AS, (most, most))",
        new="(pid, resource.RLIMIT_AS)",
        tests=("tests/integration/test_rpc_server.py",),
    ),
    Fault(
        name="a reply of RPC 5.x counts as one that nobody asked for",
        old="0 if major < 7 else None",
        new="None",
        tests=("tests/llama_programs/test_rpc_frames.py",),
    ),
    # ---- splits ----
    Fault(
        name="a worker of another RPC version is taken into a split",
        old="if head.version is not None and version != head.version:",
        new="if head.version is not None and version.major != head.version.major:",
        tests=("tests/cluster/test_split_arguments.py",),
    ),
    Fault(
        name="a request is accused of the end of a split that has lost a worker",
        old="        with trio.move_on_after(WORD_SECONDS):\n            await lost.wait()\n",
        new="",
        tests=("tests/cluster/test_split_plans.py",),
    ),
    Fault(
        name="a head goes on without one of its workers",
        old="idle = [held for held in self._held.values() if held.sent <= 0]",
        new="idle: list[Held] = []",
        tests=("tests/cluster/test_split_plans.py",),
    ),
    Fault(
        name="a worker that computes slowly counts as lost",
        old="if used >= TICK_SECONDS:",
        new="if used >= 10 * TICK_SECONDS:",
        tests=("tests/cluster/test_split_loans.py",),
    ),
    Fault(
        name="a split that starts anew is not asked again",
        old="restarts[attempt.excludes] <= MAX_RESTARTS",
        new="restarts[attempt.excludes] < 1",
        tests=("tests/dialer/test_engine_deaths.py",),
    ),
)


def product() -> Iterator[Path]:
    """Every file that faults are planted in."""
    yield from sorted((ROOT / "punch").rglob("*.py"))


def places(fault: Fault) -> list[tuple[Path, int]]:
    """The files that have the fault's text, and how often."""
    found = ((path, path.read_text(encoding="utf-8").count(fault.old)) for path in product())
    return [(path, count) for path, count in found if count]


def notice(fault: Fault) -> str | None:
    """Plant one fault into a copy and run its tests; what is wrong if they do not notice."""
    ((path, _),) = places(fault)
    with tempfile.TemporaryDirectory(prefix="punch-fault-") as name:
        copy = Path(name)
        for folder in COPIED:
            ignored = shutil.ignore_patterns("__pycache__", "*.gif")
            shutil.copytree(ROOT / folder, copy / folder, ignore=ignored)
        for file in (*ROOT.glob("*.md"), ROOT / "pyproject.toml", ROOT / "constraints.txt"):
            shutil.copy(file, copy)
        planted = copy / path.relative_to(ROOT)
        text = planted.read_text(encoding="utf-8")
        planted.write_text(text.replace(fault.old, fault.new), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
        try:
            ended = subprocess.run(
                [*command, *fault.tests],
                cwd=copy,
                env={**os.environ, "PYTHONPATH": str(copy)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=LIMIT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"its tests hang for {LIMIT_SECONDS:.0f} s"
    if ended.returncode == TESTS_FAILED:
        return None
    if ended.returncode == 0:
        return "not noticed: all of its tests pass"
    return f"no verdict, pytest ended with {ended.returncode}:\n{ended.stdout[-2000:]}"


def main() -> int:
    """Plant those that are asked for; the exit code."""
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    chosen = [fault for fault in FAULTS if all(word in fault.name for word in words)]
    escaped = 0
    for fault in chosen:
        if "--list" in sys.argv:
            where = ", ".join(str(path.relative_to(ROOT)) for path, _ in places(fault))
            print(f"{fault.name}: {where}")
            continue
        began = time.monotonic()
        wrong = notice(fault)
        escaped += wrong is not None
        seconds = time.monotonic() - began
        print(f"{fault.name}: {wrong or f'noticed, {seconds:.0f} s'}", flush=True)
    return 1 if escaped else 0


if __name__ == "__main__":
    sys.exit(main())
