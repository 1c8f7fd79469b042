"""A namespace that nobody enters uninvited: made, joined by a second machine, and left by it.

python examples/closed_namespace.py
Prints who was invited, who answered, who is a member, and what a removed machine is told. Both
machines are this one, with a folder each; without ``folder=`` it is that of the commands of punch.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import trio

import punch
from punch.backends import MockBackend, MockScript


async def main() -> None:
    with TemporaryDirectory() as folder:
        home = punch.create_namespace("home", called="desk", folder=Path(folder) / "desk")
        async with (
            punch.open_membership(home) as member,
            punch.open_listener(
                MockBackend(MockScript()),
                membership=member,
                bootstrap=None,
                listen=["/ip4/127.0.0.1/tcp/0"],
            ) as listener,
        ):
            await listener.wait_until_joined()
            # Whoever has the code may join: it goes to the other machine, and nowhere else.
            invite = punch.create_invite(home, name="laptop")
            await use(invite.code, home, Path(folder) / "laptop")


async def use(code: str, home: punch.Home, folder: Path) -> None:
    """What the second machine does; *home* is the first one's, which removes it."""
    joined = await punch.join_namespace(code, folder=folder)
    print(f"joined {joined.namespace.name} as {joined.name}")
    async with (
        punch.open_membership(joined) as member,
        punch.open_router(membership=member, bootstrap=None) as router,
    ):
        response = await router.ask("Are you there?")
        print("asked a member, and it is", response.status)
        print("members:", ", ".join(each.name for each in punch.list_members(home)))
        punch.remove_member(home, "laptop")
        await router.wait_for_peers(lambda peers: not peers)
        print("removed, and nobody is asked any more:", len(router.peers), "peers")


if __name__ == "__main__":
    trio.run(main)
