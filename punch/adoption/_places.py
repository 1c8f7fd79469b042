"""Where programs that serve models usually are on this machine, by port and by variable. No I/O.

A place is looked at, never trusted: what answers there may be anything. Ports and variables are
those of the programs' own documents.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

import attrs

# A program listens on one of the two, and IPv4's comes first with nearly all of them.
LOOPBACK = ("127.0.0.1", "::1")

# Further places of one environment; no machine has as many programs that serve models.
MAX_PLACES = 64


@attrs.frozen(kw_only=True)
class Place:
    """A port of this machine where a program that serves models may be."""

    port: int
    """The TCP port."""

    program: str
    """The programs that are usually there, for people."""

    hosts: tuple[str, ...] = LOOPBACK
    """Addresses to look at, the first that accepts counts."""

    path: str = ""
    """What comes before ``/v1`` there."""

    variable: str | None = None
    """The variable that says so; `None` for the programs' own default."""

    def url(self, host: str) -> str:
        """The address of the server, if it is at *host*."""
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{self.port}{self.path}"


# The order says which is asked first. Where several programs have one port, their answers tell
# which of them it is.
USUAL: tuple[Place, ...] = (
    Place(port=11434, program="Ollama"),
    Place(port=8080, program="llama-server, LocalAI, llamafile, MLX or llama-swap"),
    Place(port=1234, program="LM Studio"),
    Place(port=8000, program="vLLM, Lemonade or llama-cpp-python"),
    Place(port=30000, program="SGLang"),
    Place(port=1337, program="Jan"),
    Place(port=5001, program="KoboldCpp"),
    Place(port=5000, program="text-generation-webui or TabbyAPI"),
    Place(port=4891, program="GPT4All"),
    Place(port=12434, program="Docker Model Runner", path="/engines"),
    Place(port=23333, program="LMDeploy"),
    Place(port=9997, program="Xinference"),
)

# Variables that the programs themselves read, each with what it holds: an address, or a port.
# VLLM_PORT is none of them: vLLM's documents say that it is for vLLM's inner use, and not the port
# of its server.
ADDRESS_VARIABLES: Mapping[str, tuple[str, int]] = {
    "OLLAMA_HOST": ("Ollama", 11434),
    "LOCALAI_ADDRESS": ("LocalAI", 8080),
}
PORT_VARIABLES: Mapping[str, tuple[str, str | None]] = {
    # The port, and the variable that has the host.
    "LLAMA_ARG_PORT": ("llama-server", "LLAMA_ARG_HOST"),
    "OPENEDAI_PORT": ("text-generation-webui", None),
}


def places_of(environment: Mapping[str, str], own: frozenset[str] = frozenset()) -> list[Place]:
    """The places to look at: what variables say first, then the usual ones; each port once.

    What a variable says of another machine is left out: it is no place of this one.

    Args:
      environment: The variables.
      own: The IP addresses of this machine.

    """
    found: dict[tuple[tuple[str, ...], int], Place] = {}
    for place in (*_told(environment, own), *USUAL):
        found.setdefault((place.hosts, place.port), place)
    return list(found.values())[:MAX_PLACES]


def _told(environment: Mapping[str, str], own: frozenset[str]) -> Iterator[Place]:
    for variable, (program, port) in ADDRESS_VARIABLES.items():
        host, port, path = _address(environment.get(variable, ""), port)
        hosts = _hosts(host, own)
        if hosts and port:
            yield Place(port=port, program=program, hosts=hosts, path=path, variable=variable)
    for variable, (program, host_variable) in PORT_VARIABLES.items():
        _, port, _ = _address(f":{environment.get(variable, '').strip()}", 0)
        hosts = _hosts(environment.get(host_variable or "", "").strip(), own)
        if hosts and port:
            yield Place(port=port, program=program, hosts=hosts, variable=variable)


def _address(text: str, port: int) -> tuple[str, int, str]:
    """Host, port and path of *text*, as Ollama reads it: any part may be missing."""
    text = text.strip().strip("\"'")
    if not text:
        return "", 0, ""
    scheme, sign, _ = text.partition("://")
    if not sign:
        scheme, text = "", f"//{text}"
    try:
        parts = urlsplit(text)
        # With a scheme, the port is the scheme's own.
        port = parts.port or {"http": 80, "https": 443}.get(scheme, port)
    except ValueError:
        return "", 0, ""
    # What is served with TLS has a name in its certificate, which is for a person to say.
    return parts.hostname or "", 0 if scheme == "https" else port, parts.path.rstrip("/")


def _hosts(host: str, own: frozenset[str]) -> tuple[str, ...]:
    """Where a program is that listens on *host*; nothing if that is not on this machine."""
    if host.lower() in ("", "localhost", "*"):
        return LOOPBACK
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return ()
    if address.is_unspecified or str(address) in LOOPBACK:
        return LOOPBACK
    return (str(address),) if address.is_loopback or str(address) in own else ()
