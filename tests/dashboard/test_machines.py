"""The machines of a closed namespace on the page: who may change them, and what is done then."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from dashboard.test_newcomers import Reply, request_from
from http_feeds import Peers, wall
from membership.test_calls import member
from membership.test_telling import joined
from starlette.applications import Starlette
from starlette.requests import Request

import punch
from punch.dashboard import Machines, Rights, _rights, dashboard_routes, open_feed
from punch.events import Bus
from punch.exceptions import InvalidRequest
from punch.gateway.keys import Key
from punch.membership import Home, draw, parse_code, read_invites

MEMBERS = "/api/dashboard/members"
INVITES = "/api/dashboard/invites"

Ask = Callable[..., Awaitable[Reply]]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return punch.create_namespace("home", called="attic", folder=tmp_path / "attic")


def asker(app: Starlette) -> Ask:
    """Sends one request with a body to *app*, and collects the answer."""

    async def ask(
        method: str,
        path: str,
        body: bytes | dict[str, Any] = b"",
        *,
        client: str = "127.0.0.1",
        key: Key | None = None,
        named: str = "localhost:11435",
        **headers: str,
    ) -> Reply:
        reply = Reply()
        text = body if isinstance(body, bytes) else json.dumps(body).encode()

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": text, "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                reply.status = message["status"]
                kept = (b"cache-control", b"no-store") not in message["headers"]
                assert not kept or message["status"] in (404, 405)
            else:
                reply.body += message.get("body", b"")

        scope = request_from(client, key=key, path=path, **headers).scope
        scope["headers"].append((b"host", named.encode()))
        await app({**scope, "method": method}, receive, send)
        return reply

    return ask


@pytest.fixture
async def ask(home: Home) -> Ask:
    """What a page at this machine asks a gateway without keys."""
    return await asked_of(home)


async def asked_of(home: Home, **rights: Any) -> Ask:
    async with open_feed(Peers(), events=Bus(), wall=wall) as feed:
        await trio.testing.wait_all_tasks_blocked()
        machines = Machines(home, rights=Rights(**rights))
        return asker(Starlette(routes=dashboard_routes(feed, machines=machines)))


# ---- what is shown ----


async def test_members_are_shown_with_what_they_may_and_whether_they_are_there(
    home: Home, ask: Ask
) -> None:
    """The one that shows them is the first; who is out stays to be seen."""
    member(home, "desk")
    gone, _ = member(home, "cellar")
    punch.remove_member(home, gone.peer_id)
    data = (await ask("GET", MEMBERS)).json()
    assert (data["namespace"], data["may"], data["served"]) == (str(home.namespace), True, False)
    rows = data["members"]
    assert [(row["name"], row["state"], row["here"]) for row in rows] == [
        ("attic", "member", True),
        ("desk", "member", False),
        ("cellar", "removed", False),
    ]
    assert rows[1]["scopes"] == ["dial", "listen"]
    assert (rows[0]["admin"], rows[1]["admin"]) == (True, False)


async def test_names_of_others_are_cut_to_one_line(home: Home, ask: Ask) -> None:
    """They are others' words."""
    member(home, "x" * 60)
    (_, row) = (await ask("GET", MEMBERS)).json()["members"]
    assert row["name"] == "x" * 60
    assert all(len(scope) <= 64 for scope in row["scopes"])


async def test_an_open_namespace_has_nobody_to_show(home: Home) -> None:
    """And nothing to change."""
    async with open_feed(Peers(), events=Bus(), wall=wall) as feed:
        await trio.testing.wait_all_tasks_blocked()
        ask = asker(Starlette(routes=dashboard_routes(feed)))
        found = (await ask("GET", MEMBERS)).json()
        assert (found["namespace"], found["members"], found["may"]) == (None, [], False)


async def test_damaged_files_are_told_without_their_names(home: Home, ask: Ask) -> None:
    """The log has them."""
    home.folder.write("invites.json", b"{")
    reply = await ask("GET", MEMBERS)
    assert (reply.status, str(home.folder.path) in reply.body.decode()) == (503, False)


# ---- inviting ----


async def test_an_invite_of_the_page_is_one_of_the_command(home: Home, ask: Ask) -> None:
    """With a code that counts, which nothing shows again."""
    made = (await ask("POST", INVITES, {"uses": 3, "seconds": 600, "name": "cellar"})).json()
    (invite,) = read_invites(home).all
    assert parse_code(made["code"]).text() == made["code"]
    assert (invite.identifier, invite.uses, invite.name) == (made["id"], 3, "cellar")
    assert invite.ends == made["ends"]
    assert 590 <= made["ends"] - time.time() <= 600
    shown = await ask("GET", MEMBERS)
    assert made["code"] not in shown.body.decode()
    assert invite.secret.hex() not in shown.body.decode()
    (row,) = shown.json()["invites"]
    assert (row["state"], row["uses"], row["left"], row["name"]) == ("open", 3, 3, "cellar")
    said = await ask("POST", f"{INVITES}/{made['id']}/withdraw")
    assert "withdrawn" in said.json()["said"]
    assert (await ask("GET", MEMBERS)).json()["invites"][0]["state"] == "withdrawn"
    assert (await ask("POST", f"{INVITES}/{made['id']}/withdraw")).status == 409
    assert (await ask("POST", f"{INVITES}/nobody/withdraw")).status == 409


async def test_without_a_word_it_is_the_usual_invite(home: Home, ask: Ask) -> None:
    """For one machine, a day."""
    made = (await ask("POST", INVITES)).json()
    assert made["uses"] == 1
    assert 86_300 <= made["ends"] - time.time() <= 86_400
    short = (await ask("POST", INVITES, {"short": True, "mine": True})).json()
    assert len(short["code"].split("-")) == 3
    assert read_invites(home).all[-1].is_mine


@pytest.mark.parametrize(
    ("form", "said"),
    [
        (b"[]", "no JSON object"),
        (b"{", "no JSON object"),
        (b"[" * 3000, "no JSON object"),
        (b" " * 5000, "more than 4096 bytes"),
        ({"uses": 0}, "uses must be a whole number from 1 to 20"),
        ({"uses": True}, "uses must be"),
        ({"uses": "3"}, "uses must be"),
        ({"seconds": 10**9}, "seconds must be a whole number from 60 to 2678400"),
        ({"name": "a\nb"}, "name must be a text of one line"),
        ({"name": "x" * 65}, "name must be a text of one line"),
        ({"mine": "yes"}, "mine must be true or false"),
        ({"short": True, "uses": 2}, "uses must be 1 for a short code"),
        ({"scopes": ["admin"]}, "the form has 'scopes'"),
    ],
)
async def test_a_form_that_makes_no_sense_makes_no_invite(
    home: Home, ask: Ask, form: Any, said: str
) -> None:
    """It is told which field, and its rule."""
    reply = await ask("POST", INVITES, form)
    assert (reply.status, said in reply.json()["error"]) == (400, True), reply.body
    assert read_invites(home).all == ()


async def test_a_form_that_never_ends_is_waited_for_no_longer(
    home: Home, autojump_clock: trio.testing.MockClock
) -> None:
    """Its connection would be held for ever."""

    async def receive() -> dict[str, Any]:
        await trio.sleep(3)
        return {"type": "http.request", "body": b" ", "more_body": True}

    with trio.fail_after(60), pytest.raises(InvalidRequest, match="not complete within 10 s"):
        await Machines(home).invite(Request(request_from().scope, receive))
    assert read_invites(home).all == ()


def test_a_drawing_says_what_the_code_says() -> None:
    """Each black module of the drawing is one of the code's own, white around all of it."""
    segno = pytest.importorskip("segno")
    code = "punch-" + "abcdefgh234567" * 6
    drawing = draw(code)
    black = set()
    for part in drawing.path.removeprefix("M").split("zM"):
        begin, _, rest = part.partition("h")
        column, row = map(int, begin.split())
        black |= {(row, column + step) for step in range(int(rest.partition("v")[0]))}
    matrix = list(segno.make(code.upper(), error="l").matrix_iter(border=4))
    expected = {(y, x) for y, row in enumerate(matrix) for x, bit in enumerate(row) if bit}
    assert drawing.size == len(matrix)
    assert black == expected
    assert min(min(each) for each in black) == 4


# ---- removing ----


async def test_a_member_is_removed_by_its_whole_key(home: Home, ask: Ask) -> None:
    """Not by a name, which others may have by now, and never this machine."""
    desk, _ = member(home, "desk")
    assert (await ask("POST", f"{MEMBERS}/desk/remove")).status == 409
    here = await ask("POST", f"{MEMBERS}/{home.machine}/remove")
    assert (here.status, "punch leave" in here.json()["error"]) == (409, True)
    assert (await ask("GET", f"{MEMBERS}/{desk.peer_id}/remove")).status == 405
    said = await ask("POST", f"{MEMBERS}/{desk.peer_id}/remove")
    assert said.json() == {"said": f"desk was removed from {home.namespace}"}
    assert [each.state for each in punch.list_members(home)] == ["member", "removed"]
    assert (await ask("POST", f"{MEMBERS}/{desk.peer_id}/remove")).status == 409


# ---- who may ----


@pytest.mark.parametrize(
    ("given", "rights", "why"),
    [
        ({"client": "192.168.1.7"}, {}, "at http://localhost, or with `punch "),
        ({"x_forwarded_for": "10.0.0.1"}, {}, "at http://localhost"),
        ({}, {"is_open": True}, "open to all: use `punch "),
        ({}, {"has_keys": lambda: True}, "keys create NAME --admin"),
        (
            {"key": Key(key_id="phone", name="phone")},
            {"has_keys": lambda: True},
            "keys create NAME --admin",
        ),
        ({"origin": "https://example.org"}, {}, "own page may do that"),
        ({"origin": "null"}, {}, "own page may do that"),
        ({"origin": "http://["}, {}, "own page may do that"),
    ],
)
async def test_who_may_not_changes_nothing_and_is_told_where_it_is_done(
    home: Home, given: dict[str, Any], rights: dict[str, Any], why: str
) -> None:
    """Each of the three changes; what there is may be seen, but for the invites."""
    desk, _ = member(home, "desk")
    await (await asked_of(home))("POST", INVITES, {"name": "for the cellar"})
    (invite,) = read_invites(home).all
    ask = await asked_of(home, **rights)
    for path in (
        INVITES,
        f"{INVITES}/{invite.identifier}/withdraw",
        f"{MEMBERS}/{desk.peer_id}/remove",
    ):
        reply = await ask("POST", path, **given)
        assert (reply.status, why in reply.json()["error"]) == (403, True), reply.body
    shown = (await ask("GET", MEMBERS, **given)).json()
    assert (shown["may"], shown["invites"], len(shown["members"])) == (False, [], 2)
    assert why in shown["why_not"]
    assert read_invites(home).all == (invite,)


async def test_another_user_of_this_machine_changes_nothing(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loopback is everybody's, and the commands of this machine are not."""
    desk, _ = member(home, "desk")
    ask = await asked_of(home)
    asked: list[Any] = []

    def not_ours(client: Any, server: Any) -> bool:
        asked.append((client, server))
        return False

    monkeypatch.setattr(_rights, "is_of_this_user", not_ours)
    for path in (INVITES, f"{MEMBERS}/{desk.peer_id}/remove"):
        reply = await ask("POST", path)
        assert (reply.status, "Another user" in reply.json()["error"]) == (403, True), reply.body
    assert asked[0] == (("127.0.0.1", 1), ("127.0.0.1", 80))
    assert not (await ask("GET", MEMBERS)).json()["may"]
    assert read_invites(home).all == ()


async def test_an_admins_key_may_from_wherever_and_so_may_the_own_page(home: Home) -> None:
    """As what asks to be let in is decided."""
    ask = await asked_of(home, has_keys=lambda: True)
    boss = Key(key_id="boss", name="boss", is_admin=True)
    assert (await ask("POST", INVITES, client="192.168.1.7", key=boss)).status == 200
    here = await asked_of(home)
    own = await here("POST", INVITES, origin="http://LOCALHOST:11435")
    other = await here("POST", INVITES, origin="http://localhost:3000")
    assert (own.status, other.status) == (200, 403)


async def test_a_machine_that_is_no_admin_changes_nothing(home: Home, tmp_path: Path) -> None:
    """And says that another one does."""
    laptop = joined(home, "laptop", tmp_path)
    ask = await asked_of(laptop)
    reply = await ask("POST", INVITES)
    assert (reply.status, "no admin" in reply.json()["error"]) == (403, True)
    shown = (await ask("GET", MEMBERS)).json()
    assert (shown["may"], "no admin" in shown["why_not"]) == (False, True)
