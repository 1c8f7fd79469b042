"""One model over two workers, each a program of its own, one of which is killed in mid-answer.

    bins/demo split [MODEL]

MODEL is a file, the name of a model that was pulled, or of a file in ~/.models; SmolLM2 if there is
none. Everything but the model and the engine lives in a folder that goes with the demo.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = "/ip4/127.0.0.1/tcp/0"
PUNCH = [sys.executable, "-m", "punch"]
QUESTION = "Tell me a long story about a river that wanted to be a cloud."

# Of each worker, beside half of the model: the cache, buffers, and a big tensor while it arrives.
SPARE_BYTES = 160 << 20

START_SECONDS = 300.0
ANSWER_SECONDS = 300.0
# The worker is killed once so much of the answer is there.
DELIVERED_CHARACTERS = 60


def say(text: str) -> None:
    print(f"demo: {text}", flush=True)


def fail(text: str) -> None:
    sys.exit(f"demo: {text}")


def find_model(name: str | None) -> Path:
    """The file that *name* means."""
    if name is None:
        return pulled("smollm2")
    home = Path.home() / ".models"
    for path in (Path(name).expanduser(), home / name, home / f"{name}.gguf"):
        if path.is_file():
            return path.resolve()
    return pulled(name)


def pulled(name: str) -> Path:
    done = subprocess.run(
        [*PUNCH, "models", "pull", name], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode != 0:
        lying = sorted(path.name for path in (Path.home() / ".models").glob("*.gguf"))
        fail(f"{name!r} is no file, no known model and not in ~/.models, which has {lying}")
    return Path(done.stdout.strip())


def engine() -> str:
    """A llama-server that works over several machines; built if none is here."""
    say("looking for a llama.cpp that works, or building one, once (minutes, and a C++ compiler)")
    began = time.monotonic()
    done = subprocess.run(
        [*PUNCH, "engine", "install"], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode != 0:
        fail("there is no engine: see above")
    path = done.stdout.strip()
    say(f"the engine is {path}, after {time.monotonic() - began:.0f} s")
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Program:
    """A program of the demo, and what it says."""

    def __init__(self, name: str, arguments: list[str], environment: dict[str, str]) -> None:
        self.name = name
        self.out, self.err = "", ""
        # A group of its own: Ctrl-C reaches this script, which ends all of them in order.
        self.process = subprocess.Popen(
            [*PUNCH, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        self._threads = [
            threading.Thread(target=self._read, args=(which,), daemon=True)
            for which in ("out", "err")
        ]
        for thread in self._threads:
            thread.start()

    def _read(self, which: str) -> None:
        pipe = self.process.stdout if which == "out" else self.process.stderr
        assert pipe is not None
        while data := os.read(pipe.fileno(), 1 << 16):
            setattr(self, which, getattr(self, which) + data.decode("utf-8", "replace"))

    def events(self, name: str) -> list[dict[str, object]]:
        """What it has logged under *name*."""
        found = []
        for line in self.err.split("\n")[:-1]:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and entry.get("event") == name:
                found.append(entry)
        return found

    def wait_for(self, name: str, seconds: float = START_SECONDS) -> dict[str, object]:
        """Its first event *name*."""
        deadline = time.monotonic() + seconds
        while not (found := self.events(name)):
            if self.process.poll() is not None:
                for thread in self._threads:
                    thread.join(5)
                fail(f"{self.name} did not start:\n{self.err}")
            if time.monotonic() > deadline:
                fail(f"{self.name} did not say {name!r} in {seconds:.0f} s:\n{self.err}")
            time.sleep(0.05)
        return found[0]

    def end(self) -> None:
        """Have it drain, and wait."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for thread in self._threads:
            thread.join(5)


@contextmanager
def programs(environment: dict[str, str]) -> Iterator[list[Program]]:
    """The programs of the demo, which end with it, and nothing else does."""
    running: list[Program] = []
    try:
        yield running
    finally:
        for program in reversed(running):
            program.end()


def main(arguments: list[str]) -> int:
    if len(arguments) > 1 or arguments[:1] in (["-h"], ["--help"]):
        print(__doc__)
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    model = find_model(arguments[0] if arguments else None)
    program = engine()
    with tempfile.TemporaryDirectory(prefix="punch-demo-") as folder:
        return demo(model, program, Path(folder))


def demo(model: Path, program: str, folder: Path) -> int:
    environment = {
        **os.environ,
        "XDG_DATA_HOME": str(folder / "data"),
        "PUNCH_SETTINGS": "none",
        "PUNCH_LAN": "0",
        "PUNCH_BOOTSTRAP": f"127.0.0.1:{free_port()}",
        "PUNCH_KNOWN_PEERS": str(folder / "known_peers"),
        "PUNCH_DECISION_LOG": str(folder / "decisions.jsonl"),
        "LLAMA_CPP_EXE": program,
    }
    environment.pop("PUNCH_NAMESPACE", None)
    subprocess.run(
        [*PUNCH, "namespace", "create", "demo"], env=environment, check=True, capture_output=True
    )
    say("made the closed namespace `demo`: nobody but this machine can borrow, or ask")
    memory = model.stat().st_size // 2 + SPARE_BYTES
    with programs(environment) as running:

        def start(name: str, *words: str) -> Program:
            program = Program(name, list(words), environment)
            running.append(program)
            return program

        bootstrap = start("bootstrap", "bootstrap")
        bootstrap.wait_for("bootstrap")
        workers = [
            start(f"worker {name}", "worker", "--memory", f"{memory >> 20}MiB", "--listen", HERE)
            for name in "ab"
        ]
        for worker in workers:
            identity = str(worker.wait_for("lending")["peer"])
            say(
                f"{worker.name} (..{identity[-8:]}) lends {memory >> 20} MiB, and has no copy of "
                "the model"
            )
        coordinator = start(
            "coordinator", "coordinator", "--model", str(model), "--min-workers", "2",
            # The head could hold layers too, and would be faster here.
            "--exclude", "CPU", "--force", "--context", "1024", "--slots", "1", "--listen", HERE,
        )  # fmt: skip
        coordinator.wait_for("listening")
        print(f"\n{coordinator.out.rstrip()}\n")
        say(f"asking: {QUESTION}\n")
        answer = start(
            "dialer", "dialer", "--strict", "--temperature", "0", "--max-tokens", "160",
            "--ask", QUESTION,
        )  # fmt: skip
        return finish(answer, workers[1], coordinator)


def finish(answer: Program, victim: Program, coordinator: Program) -> int:
    """Show the answer while it is made; kill *victim* in the middle."""
    shown, plans, pause = 0, len(coordinator.out), 0.0
    is_killed, moved = False, time.monotonic()
    deadline = time.monotonic() + ANSWER_SECONDS
    while answer.process.poll() is None and time.monotonic() < deadline:
        text = answer.out
        if len(text) > shown:
            now = time.monotonic()
            print(text[shown:], end="", flush=True)
            shown, moved, pause = len(text), now, max(pause, now - moved if is_killed else 0.0)
        if not is_killed and shown >= DELIVERED_CHARACTERS:
            victim.process.kill()
            is_killed = True
            print(f" [{victim.name} was killed here] ", end="", flush=True)
        time.sleep(0.02)
    answer.end()
    print(answer.out[shown:])
    if answer.process.returncode != 0:
        say(f"the answer did not come to its end:\n{answer.err}")
        return 1
    if not is_killed:
        say("the answer was too short to kill a worker in the middle of it")
        return 0
    say(f"{pause:.1f} s without a word after that, and what was delivered stayed; the plan since:")
    print(f"\n{coordinator.out[plans:].rstrip()}\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
