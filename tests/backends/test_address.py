"""The address and the key of a server that is not ours: used, and never shown."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_servers import Asked, ModelServer, Reply, error

from punch.backends.openai._address import Server, read_server
from punch.backends.openai._client import open_http_client
from punch.exceptions import ConfigurationError, PunchError
from punch.wire import ChatMessage, CommandRequest

SECRET = "hunter2-hunter2"
REQUEST = CommandRequest(request_id="r", messages=(ChatMessage(role="user", content="Hi"),))


def read(url: str, key: str | None = None) -> Server:
    return read_server(url, key, url_setting="PUNCH_OPENAI_URL", key_setting="PUNCH_OPENAI_KEY")


def test_user_and_password_become_a_header() -> None:
    """As browsers send them; quoted characters are what they stand for."""
    server = read("http://ann:p%40ss%C3%A9@inner.example:8080/v1")
    assert server.url == "http://inner.example:8080"
    assert server.authorization is not None
    kind, _, value = server.authorization.partition(" ")
    assert (kind, base64.b64decode(value).decode()) == ("Basic", "ann:p@ssé")


def test_a_key_is_a_bearer_token() -> None:
    """Without the line break that a shell leaves at its end."""
    assert read("http://h", f"{SECRET}\n").authorization == f"Bearer {SECRET}"
    assert read("http://h", "").authorization is None


@pytest.mark.parametrize(
    "url",
    [
        f"http://h/v1?api_key={SECRET}",
        f"http://h/v1#{SECRET}",
        f"http://u:{SECRET}@h:port",
        f"http://u:{SECRET}@",
        f"http://u:{SECRET}/x@h",
        f"u:{SECRET}@h:80",
        f"ftp://u:{SECRET}@h",
        f"http://u%3Au:{SECRET}@h",
        f"http://u:{SECRET}@h\n/v1",
        f"http://u:{SECRET}@[::1",
        f"http://u:{SECRET}@h:99999",
    ],
)
def test_a_wrong_address_is_refused_without_showing_what_may_be_a_secret(url: str) -> None:
    """The error names the setting, and the remedy."""
    with pytest.raises(ConfigurationError, match="PUNCH_OPENAI_URL") as caught:
        read(url)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None or SECRET not in str(caught.value.__cause__)


@pytest.mark.parametrize("key", [f"{SECRET}\nX-Admin: 1", f"{SECRET} two", f"{SECRET}é", "\x00ab"])
def test_a_key_that_no_header_can_have_is_refused_unseen(key: str) -> None:
    """A line break in it would be a header of its own."""
    with pytest.raises(ConfigurationError, match="PUNCH_OPENAI_KEY") as caught:
        read("http://h", key)
    assert SECRET not in str(caught.value)


def test_a_user_and_a_key_are_one_too_many() -> None:
    """Both would be the same header."""
    with pytest.raises(ConfigurationError, match="take one away") as caught:
        read(f"http://u:{SECRET}@h", "other-key")
    assert SECRET not in str(caught.value)


@given(st.text(max_size=30), st.text(max_size=30))
def test_whatever_is_typed_is_an_address_or_refused(url: str, key: str) -> None:
    """With a sentence, never with a library's error."""
    for text in (url, f"http://{url}", f"http://{url}@h", f"http://h/{url}"):
        try:
            server = read(text, key)
        except ConfigurationError:
            continue
        assert server.url.startswith(("http://", "https://"))
        assert "@" not in server.url.partition("://")[2].partition("/")[0]


# ---- what an error says of it ----


class Telling(ModelServer):
    """A server that gives all that it was sent back in its error."""

    def respond(self, asked: Asked) -> Reply:
        """Tell all."""
        self.asked.append(asked)
        assert self.status is not None
        text = f"{asked.headers} {asked.headers['host']}"
        return error(self.status, text)


@pytest.mark.parametrize("status", [400, 401, 404, 413, 500, 503, None])
@pytest.mark.parametrize("how", ["user", "key"])
async def test_no_error_repeats_the_address_or_a_secret(status: int | None, how: str) -> None:
    """It goes to dialers, who may be anybody; `None` stands for no connection."""
    url = "http://inner.example:8080/v1"
    server = read(url, SECRET) if how == "key" else read(f"http://ann:{SECRET}@{url[7:]}")
    played = Telling()
    played.status, played.is_up = status, status is not None

    async def emit(text: str, tokens: int) -> None:
        pass

    async with open_http_client(
        url=server.url,
        slots=1,
        authorization=server.authorization,
        secrets=server.secrets,
        transport=played.transport(),
    ) as client:
        with pytest.raises(PunchError) as caught:
            await client.generate(REQUEST, emit, model="m", dialect="other")
    if status is not None:
        assert played.asked[0].headers["authorization"] == server.authorization
    said = f"{caught.value} {caught.value.message} {caught.value!r} {caught.value.args}"
    assert server.authorization is not None
    for secret in (SECRET, "inner.example", server.authorization.partition(" ")[2]):
        assert secret not in said
