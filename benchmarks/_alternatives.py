"""What stands beside the gateway: LiteLLM's proxy, sglang-router, nginx.

What comes from PyPI is installed on its first use, each into a virtual environment of its own in
this user's cache, in a folder named for its version; nginx is the system's, or the Debian package
unpacked into the same place. Nothing goes into the project's environment, and nothing needs root.
What cannot be had is left out, and said.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs
import platformdirs
import psutil
from _http_client import Address, ask_once, question
from _results import UnavailableError

# The version the targets in RESULTS.md name.
LITELLM = "1.89.7"
SGLANG_ROUTER = "0.3.2"

CACHE = platformdirs.user_cache_path("punch", appauthor=False) / "benchmarks"

START_SECONDS = 120.0
STOP_SECONDS = 15.0
INSTALL_SECONDS = 900.0


@attrs.frozen(kw_only=True)
class Side:
    """Something that can be asked."""

    name: str
    """In the table."""

    address: Address
    """Where."""

    processes: tuple[psutil.Process, ...] = ()
    """What runs it, in whose memory and time it is counted."""

    def memory(self) -> int:
        """Resident bytes, children included."""
        return sum(process.memory_info().rss for process in self._family())

    def cpu(self) -> float:
        """CPU seconds used so far, children included."""
        return sum(map(_cpu, self._family()))

    def _family(self) -> list[psutil.Process]:
        return [each for top in self.processes for each in (top, *top.children(recursive=True))]


def _cpu(process: psutil.Process) -> float:
    """CPU seconds of one process, all its threads: `psutil` knows no less than a hundredth."""
    if sys.platform != "linux":
        return float(sum(process.cpu_times()[:2]))
    # The clock that clock_getcpuclockid(3) names: nanoseconds, threads that have ended included.
    return time.clock_gettime((~process.pid << 3) | 2)


# ---- having them ----


def _installed(name: str, version: str, requirement: str) -> Path:
    """The Python of an environment with this package in it; made now if there is none."""
    folder = CACHE / f"{name}-{version}"
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    complete = folder / "complete"
    if complete.exists():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    print(f"bench: installing {requirement} into {folder}", file=sys.stderr, flush=True)
    install = [str(python), "-m", "pip", "install", "--quiet", requirement]
    for command in ([sys.executable, "-m", "venv", str(folder)], install):
        _run(command, f"{name} {version} could not be installed")
    complete.touch()
    return python


def _run(command: Sequence[str], failure: str, cwd: Path | None = None) -> None:
    try:
        subprocess.run(
            command,
            check=True,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
            cwd=cwd,
        )
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or [f"exit status {error.returncode}"])[-1]
        raise UnavailableError(f"{failure}: {last}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"{failure}: {error}") from error


def _nginx() -> str:
    """The program: the system's, or unpacked from the Debian package."""
    search = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
    if found := shutil.which("nginx", path=search):
        return found
    program = CACHE / "nginx" / "usr" / "sbin" / "nginx"
    if not program.exists():
        failure = "there is no nginx, and its Debian package could not be had"
        program.parents[2].mkdir(parents=True, exist_ok=True)
        _run(["apt-get", "download", "nginx"], failure, cwd=CACHE)
        package = max(CACHE.glob("nginx_*.deb"))
        _run(["dpkg-deb", "-x", str(package), str(program.parents[2])], failure)
    return str(program)


# ---- running them ----


def free_port() -> int:
    """One that nobody has just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """See that *process* ends with the block."""
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def running(
    command: Sequence[str],
    log: Path,
    environment: Mapping[str, str] | None = None,
    *,
    cwd: Path | None = None,
) -> Iterator[psutil.Process]:
    """A process that ends with the block; what it says goes to *log*."""
    with log.open("ab") as into:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=into,
            stderr=into,
            env=None if environment is None else dict(environment),
            cwd=cwd,
        )
    with ended(process):
        yield psutil.Process(process.pid)


def wait_until_it_answers(
    address: Address, process: psutil.Process, log: Path, *, model: str = "mock"
) -> None:
    """Return once a question gets its answer."""
    deadline = time.monotonic() + START_SECONDS
    asked = question(address, "Are you there?", 1, model=model)
    while True:
        try:
            if ask_once(address, asked).fine:
                return
        except OSError:
            pass
        ended = not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
        if ended or time.monotonic() > deadline:
            said = log.read_text(encoding="utf-8", errors="replace")
            raise UnavailableError(f"{log.stem} did not start: {said[-2000:]}")
        time.sleep(0.2)


@contextmanager
def open_mock(delay: float = 0.0) -> Iterator[Side]:
    """The server behind all of them, which takes *delay* seconds for an answer."""
    command = [sys.executable, str(Path(__file__).with_name("_mock_openai.py"))]
    command.append(json.dumps({"delay": delay}))
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        address = Address(port=int(process.stdout.readline()))
        yield Side(
            name="the server itself", address=address, processes=(psutil.Process(process.pid),)
        )
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(STOP_SECONDS)


NGINX = """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx-errors.log error;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream server {{
    server 127.0.0.1:{upstream};
    keepalive 512;
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{
      proxy_pass http://server;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      # Streams must come through as they come.
      proxy_buffering off;
    }}
  }}
}}
"""


@contextmanager
def open_nginx(upstream: Address, folder: Path) -> Iterator[Side]:
    """Nginx with one worker, connections kept open on both sides, no access log."""
    program = _nginx()
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, upstream=upstream.port, port=port))
    log = folder / "nginx.log"
    command = [program, "-p", str(folder), "-e", str(folder / "nginx-errors.log")]
    command += ["-c", str(config)]
    with running(command, log) as process:
        address = Address(port=port)
        wait_until_it_answers(address, process, log)
        yield Side(name="nginx", address=address, processes=(process,))


@contextmanager
def open_sglang_router(upstream: Address, folder: Path) -> Iterator[Side]:
    """sglang-router with its usual settings, one worker behind it."""
    python = _installed("sglang-router", SGLANG_ROUTER, f"sglang-router=={SGLANG_ROUTER}")
    port = free_port()
    log = folder / "sglang-router.log"
    command = [str(python), "-m", "sglang_router.launch_router"]
    command += ["--worker-urls", f"http://127.0.0.1:{upstream.port}", "--log-level", "error"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(free_port())]
    with running(command, log) as process:
        address = Address(port=port)
        wait_until_it_answers(address, process, log)
        yield Side(name="sglang-router", address=address, processes=(process,))


# https://docs.litellm.ai/docs/proxy/prod, less what needs a database, a Redis or a Slack, and
# less the key: nobody else here looks at one.
LITELLM_CONFIG = """\
model_list:
  - model_name: mock
    litellm_params:
      model: openai/mock
      api_key: none
      api_base: http://127.0.0.1:{upstream}/v1
general_settings:
  disable_spend_logs: true
  disable_error_logs: true
litellm_settings:
  request_timeout: 600
  set_verbose: false
  json_logs: true
  telemetry: false
  turn_off_message_logging: true
"""
LITELLM_ENVIRONMENT = {
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOG": "ERROR",
    "LITELLM_TELEMETRY": "False",
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    # The prices of models, from its package and not from the network.
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
}
LITELLM_OPTIONS = ("--num_workers", "1", "--telemetry", "False")


@contextmanager
def open_litellm(upstream: Address, folder: Path) -> Iterator[Side]:
    """LiteLLM's proxy as its makers recommend it for production, with one worker."""
    python = _installed("litellm", LITELLM, f"litellm[proxy]=={LITELLM}")
    port = free_port()
    config = folder / "litellm.yaml"
    config.write_text(LITELLM_CONFIG.format(upstream=upstream.port), encoding="utf-8")
    log = folder / "litellm.log"
    command = [str(python), str(python.with_name("litellm")), "--config", str(config)]
    command += ["--host", "127.0.0.1", "--port", str(port), *LITELLM_OPTIONS]
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("LITELLM_", "OPENAI_"))}
    environment = {**inherited, **LITELLM_ENVIRONMENT, "PATH": _path_of(python)}
    with running(command, log, environment) as process:
        address = Address(port=port)
        wait_until_it_answers(address, process, log)
        yield Side(name="LiteLLM", address=address, processes=(process,))


def _path_of(python: Path) -> str:
    return os.pathsep.join((str(python.parent), os.environ.get("PATH", "")))
