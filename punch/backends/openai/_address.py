"""Reads the address and the key of a server that is not ours, and keeps both from others. No I/O.

User and password of the address become a header, as browsers send them (RFC 7617). What leaves
this machine has neither these nor the address itself, which only the log of its owner shows.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from urllib.parse import SplitResult, unquote, urlsplit

import attrs

from ...exceptions import ConfigurationError
from ...wire import Secrets, without_secrets

_PORTS = {"http": 80, "https": 443}


@attrs.frozen(kw_only=True)
class Server:
    """Where a server is, and what it wants to see."""

    url: str
    """Scheme, host, port and path, without ``/v1``, a slash at the end, user and password."""

    authorization: str | None = attrs.field(default=None, repr=False)
    """The header that says who asks; `None` for none."""

    secrets: Secrets = attrs.field(factory=lambda: Secrets(()))
    """Hides the key, the password and the address itself: for what others read."""


def read_server(url: str, api_key: str | None, *, url_setting: str, key_setting: str) -> Server:
    """The server at *url*, with or without ``/v1``, and with *api_key*.

    Raises:
      ConfigurationError: if the address or the key cannot be right; the text shows no secret.

    """
    parts = _split(url, setting=url_setting, key_setting=key_setting)
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2], path=_path(parts.path))
    key = _header_value(api_key, setting=key_setting) if api_key else None
    user, password = _user_of(parts, setting=url_setting)
    login = None if user is None else f"{user}:{password or ''}"
    if key is not None and login is not None:
        raise ConfigurationError(
            f"{url_setting} has a user and {key_setting} is set, and a request has room for one of "
            "the two: take one away"
        )
    authorization = None if key is None else f"Bearer {key}"
    if login is not None:
        authorization = f"Basic {base64.b64encode(login.encode()).decode()}"
    # A user without a password is a token.
    private = (key, login, password or user, *_places(url, bare))
    return Server(
        url=bare.geturl(), authorization=authorization, secrets=Secrets(private, addresses=True)
    )


def _places(url: str, bare: SplitResult) -> Iterator[str]:
    """The forms in which an error may name the address."""
    host = bare.hostname or ""
    yield from (url.strip(), bare.geturl(), bare.netloc, f"//{host}")
    yield f"{host}:{bare.port or _PORTS[bare.scheme]}"
    if set(host) & set(".:-"):
        # A host of one word, as containers have it, may be any word of a sentence.
        yield host


def _split(url: str, *, setting: str, key_setting: str) -> SplitResult:
    rule = "it must look like http://127.0.0.1:8080 or https://api.example.com/v1"
    wrong = f"{setting}={without_secrets(url)!r} is not the address of a server: {rule}"
    try:
        parts = urlsplit(url.strip())
        # The port is read, and refused, when it is first asked for.
        is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address or any(c.isspace() or not c.isprintable() for c in url.strip()):
        raise ConfigurationError(wrong)
    if parts.query or parts.fragment:
        raise ConfigurationError(f"{wrong}, without a query; a key goes into {key_setting}")
    return parts


def _path(path: str) -> str:
    return path.rstrip("/").removesuffix("/v1").rstrip("/")


def _user_of(parts: SplitResult, *, setting: str) -> tuple[str | None, str | None]:
    if "@" not in parts.netloc:
        return None, None
    user, password = unquote(parts.username or ""), parts.password
    if ":" in user:
        raise ConfigurationError(
            f"{setting} has a user with a colon in it, which no header can have (RFC 7617)"
        )
    return user, None if password is None else unquote(password)


def _header_value(key: str, *, setting: str) -> str:
    """*key*, if a header can have it: RFC 9110, section 5.5."""
    key = key.strip()
    if not key or not all("!" <= c <= "~" for c in key):
        raise ConfigurationError(
            f"{setting} has a character that no key has, such as a line break, a blank or a letter "
            "with an accent: copy the key again, alone and on one line"
        )
    return key
