"""The page's network and models in a real browser: a machine is added, seen, and removed."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from integration.programs import Program, Programs, limit
from integration.test_closed import Machine
from integration.test_dashboard import (
    LENGTHEN,
    TOO_WIDE,
    Gateway,
    browser,
    look_at,
    sign_in,
)
from playwright.sync_api import Browser, Page, expect

__all__ = ["browser"]  # A fixture.

# What a person may call a machine: markup, a bidirectional override, and no end.
NASTY = "<b>x</b>‮" + "-attic" * 8


def photographed(page: Page, name: str) -> None:
    """Keep pictures, where they are kept; wide and light from here on."""
    if given := os.environ.get("PUNCH_SCREENSHOTS"):
        page.screenshot(path=Path(given) / f"{name}-narrow.png", full_page=True)
    page.set_viewport_size({"width": 1280, "height": 900})
    page.emulate_media(color_scheme="light")
    if given := os.environ.get("PUNCH_SCREENSHOTS"):
        page.screenshot(path=Path(given) / f"{name}.png", full_page=True)


def press_to(page: Page, name: str, *, key: str = "Enter") -> None:
    """Walk with the tab key to the button of that name, and press it."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if (
            page.evaluate(
                "document.activeElement.getAttribute('aria-label') ?? "
                "document.activeElement.textContent.trim()"
            )
            == name
        ):
            page.keyboard.press(key)
            return
    raise AssertionError(f"the tab key does not lead to {name!r}")


def admin(programs: Programs) -> tuple[Machine, Program]:
    """A gateway with a listener, on the first machine of a closed namespace."""
    attic = Machine(programs, "attic")
    attic.punch("namespace", "create", "home", "--called", "attic")
    program = programs.start("gateway", "--port", "0", "--listen-too", variables=attic.variables)
    return attic, program


@limit(120)
def test_a_machine_is_added_seen_and_removed_with_the_keyboard_alone(
    programs: Programs, browser: Browser, tmp_path: Path
) -> None:
    """Its code is shown once; it is in the picture, in the table and in the list, and then out."""
    attic, program = admin(programs)
    gateway = Gateway(programs, program, program.wait_for("serving")["url"], browser)
    program.wait_for("listening")
    laptop = Machine(programs, "laptop")
    with gateway.page() as page:
        expect(page.locator(".peer-card")).to_have_count(1)
        press_to(page, "Network")
        expect(page.locator("h1", has_text="Network")).to_be_focused()
        invite = page.get_by_role("region", name="Add a machine")
        expect(invite).to_contain_text("A code lets machines into home@")
        press_to(page, "Make an invite")
        expect(invite.get_by_role("heading", name="The code, shown this once")).to_be_focused()
        expect(page.locator("#announcer")).to_contain_text("An invite was made")
        expect(invite.get_by_role("img", name="The same code, to be scanned")).to_be_visible()
        code = invite.get_by_role("region", name="The code", exact=True).text_content() or ""
        assert code not in (page.locator("#announcer").text_content() or "")
        look_at(page)
        photographed(page, "network-invite")
        press_to(page, "Hide the code")
        expect(invite).not_to_contain_text(code)
        assert code not in page.content()
        assert code not in attic.punch("invite", "list")
        file = tmp_path / "code"
        file.write_text(code)
        laptop.punch("join", "--file", str(file), "--called", NASTY)
        members = page.get_by_role("region", name="Members")
        row = members.get_by_role("listitem").filter(has_text="<b>x</b>")
        expect(row).to_be_visible()
        expect(invite.get_by_role("listitem").first).to_contain_text("used up")
        listener = laptop.listener()
        picture = page.locator(".topology svg")
        expect(picture.locator(".spot[data-kind='peer']")).to_have_count(1)
        expect(picture).to_have_attribute("aria-label", re.compile("listens, on this machine"))
        expect(row).to_contain_text("connected")
        press_to(page, "As a table")
        table = page.get_by_role("region", name="Connections, as a table")
        lines = table.get_by_role("row")
        expect(lines.filter(has_text="on this machine")).to_contain_text("1 model")
        expect(lines.filter(has_text="this machine").first).to_contain_text("listens, 1 model")
        look_at(page)
        photographed(page, "network")

        # Where a model would run: here, though it is another process that has the second.
        press_to(page, "Models")
        sizes = page.get_by_role("region", name="Where a model would run")
        here = sizes.get_by_role("row").filter(has_text="model-attic")
        expect(here.locator("td[data-taken]")).to_contain_text("this machine, whole")
        there = sizes.get_by_role("row").filter(has_text="model-laptop")
        expect(there.locator("td[data-taken]")).to_contain_text("this machine, whole")
        expect(there).to_contain_text("nothing is set up to start it")
        lanes = page.get_by_role("region", name="Lanes", exact=True)
        expect(lanes.get_by_role("row")).to_have_count(3)
        expect(lanes).to_contain_text("model-laptop (loaded)")
        photographed(page, "models")

        press_to(page, "Network")
        remove = row.get_by_role("button", name="Remove")
        remove.focus()
        page.keyboard.press("Enter")
        question = page.get_by_role("dialog")
        expect(question).to_contain_text("It comes back by a new invite only.")
        expect(question.get_by_role("button", name="Cancel")).to_be_focused()
        look_at(page)
        page.keyboard.press("Escape")
        expect(question).to_have_count(0)
        expect(row).to_contain_text("connected")
        remove.focus()
        page.keyboard.press("Enter")
        press_to(page, "Remove it")
        expect(row).to_contain_text("removed")
        expect(page.locator("#announcer")).to_contain_text("was removed from home@")
        expect(picture.locator(".spot[data-kind='peer']")).to_have_count(0)
    listener.stop()


HOSTILE = """
import os
import trio
from punch.adoption import AdoptedServer
from punch.dashboard import dashboard_routes, live_routes, open_feed
from punch.dialer import open_router
from punch.discovery import SourceState
from punch.events import Bus, HeldLayers, PlanChanged
from punch.exceptions import PeerUnreachable
from punch.gateway import GatewayParts, GatewaySettings, open_gateway
from punch.routing import Startable, StartableOffer
from punch.capability import ModelOffer, PeerId

NASTY = "<script>alert(1)</script>\\u202e" + "/p2p/" * 60

class Around:
    # A router with everything around it that others have words for.
    def __init__(self, router):
        self._router = router
        offer = ModelOffer(name=NASTY[:60], size_bytes=40 << 30, split=True)
        start = StartableOffer(id="s", peer_id=router.peer_id, offer=offer, seconds=0.0,
                               why_not="all devices have 12 GB, and it takes 40 GB; " + NASTY)
        self.startable = (Startable(offer=start, seconds=0.0, why_not=start.why_not),)
        self.unreachable = {PeerId("away"): NASTY}
        self.workers = {PeerId("ann"): (), PeerId("bob"): ()}
        self.sources = (
            SourceState(name="bootstrap 10.0.0.1", listeners=2, is_working=True, trouble=None),
            SourceState(name=NASTY, listeners=0, is_working=False, trouble=PeerUnreachable(NASTY)),
        )
    def __getattr__(self, name):
        return getattr(self._router, name)

def adopted():
    for number, state in enumerate(("ready", "starting", "resting", "left alone", "looking")):
        yield AdoptedServer(url=f"http://localhost:{11434 + number}", program="ollama",
            how="found", state=state, reason=NASTY if number else None, models=(NASTY,) * 20,
            lane="ollama" if number < 3 else None, seconds=61.0)

async def main():
    events = Bus()
    async with (
        open_router(bootstrap=os.environ["PUNCH_BOOTSTRAP"], events=events) as router,
        open_feed(router, events=events) as feed,
        open_gateway(router, GatewayParts(
            settings=GatewaySettings(port=0), events=events,
            routes=(
                *dashboard_routes(feed, router=Around(router), adopted=lambda: tuple(adopted())),
                *live_routes(feed, events),
            ),
        )) as gateway,
    ):
        held = (HeldLayers(worker="ann", device="CPU", first=0, layers=4, bytes=1 << 20),)
        await trio.sleep(0.2)
        events.publish(PlanChanged(at=0.0, split="s", model="big", layers=held,
            output_on_head=False, decode_rate=9.0, first_token=0.4, left_out=()))
        print(gateway.url, flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


@limit(90)
def test_hostile_words_of_others_are_text_and_fit_every_screen(
    programs: Programs, browser: Browser
) -> None:
    """In the picture, in tables, in reasons; and each thing is told apart without its colour."""
    programs.bootstrap()
    script = programs.start_script(HOSTILE)
    url = script.wait_until(lambda: script.out.strip(), "address")
    gateway = Gateway(programs, script, url, browser)
    with gateway.page() as page:
        page.get_by_role("link", name="Network", exact=True).click()
        picture = page.locator(".topology svg")
        for kind, count in (("lender", 2), ("away", 1), ("meeting", 2)):
            expect(picture.locator(f".spot[data-kind='{kind}']")).to_have_count(count)
        expect(picture.locator(".link-line[data-holds]")).to_have_count(1)
        expect(picture).to_contain_text("lends memory · holds a part of big")
        dashes = picture.locator(".link-line").evaluate_all(
            "all => new Set(all.map(each => getComputedStyle(each).strokeDasharray)).size"
        )
        assert dashes == 3
        expect(page.get_by_role("region", name="Add a machine")).to_contain_text("is open")
        expect(page.get_by_role("region", name="Members")).to_be_hidden()
        page.locator("#view-network summary").click()
        expect(page.get_by_role("region", name="Connections, as a table")).to_contain_text(
            "<script>"
        )
        look_at(page)
        photographed(page, "topology")
        page.get_by_role("link", name="Models", exact=True).click()
        sizes = page.get_by_role("region", name="Where a model would run")
        expect(sizes).to_contain_text("all devices have 12 GB, and it takes 40 GB")
        expect(sizes).to_contain_text("nobody could be asked")
        servers = page.get_by_role("region", name="Adopted servers of this machine")
        expect(servers.get_by_role("listitem")).to_have_count(5)
        expect(servers.get_by_role("listitem").nth(3)).to_contain_text("left alone")
        expect(servers).to_contain_text("so for 1 min 1 s")
        look_at(page)
        photographed(page, "models-hostile")
        assert page.locator("main script, #view-network b, #view-models b").count() == 0
        page.set_viewport_size({"width": 360, "height": 740})
        for view in ("Models", "Network"):
            page.get_by_role("link", name=view, exact=True).click()
            page.evaluate(LENGTHEN)
            assert page.evaluate(TOO_WIDE) == 0, view


@limit(60)
def test_a_key_that_is_no_admins_sees_and_changes_nothing(
    programs: Programs, browser: Browser
) -> None:
    """It is told what would: there is no form and no button."""
    attic, secret = Machine(programs, "attic"), ""
    attic.punch("namespace", "create", "home", "--called", "attic")
    (secret,) = (
        value
        for value in json.loads(attic.punch("keys", "create", "phone", "--json")).values()
        if isinstance(value, str) and len(value) > 30
    )
    program = programs.start("gateway", "--port", "0", "--listen-too", variables=attic.variables)
    gateway = Gateway(programs, program, program.wait_for("serving")["url"], browser)
    with gateway.page() as page:
        sign_in(page, secret)
        page.get_by_role("link", name="Network", exact=True).click()
        invite = page.get_by_role("region", name="Add a machine")
        expect(invite).to_contain_text("This takes an API key made with")
        expect(invite.get_by_role("button")).to_have_count(0)
        members = page.get_by_role("region", name="Members")
        expect(members.get_by_role("listitem")).to_contain_text("attic")
        expect(members.get_by_role("button")).to_have_count(0)
        expect(page.locator(".topology svg")).to_be_visible()
        look_at(page)
