"""Encrypted chat while servers are killed: no key is lost, and no message read twice."""

import asyncio

import pytest

from tests.clients.encryption.conftest import Servers
from tests.clients.encryption.nio_devices import devices, encrypted_room
from tests.support.sites import LOCAL

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]
MESSAGES = 30


async def test_every_message_is_read_though_servers_are_killed(servers: Servers) -> None:
    """A client repeats what was not answered; keys that a server has accepted arrive once."""
    async with devices(servers) as made:
        alice, bob = await made.register("alice"), await made.register("bob", 1)
        laptop = await made.another(bob)
        room = await encrypted_room(alice, bob, laptop)
        await alice.knows(bob, laptop)
        await bob.knows(alice, laptop)
        said: list[str] = []

        async def talk() -> None:
            for number in range(MESSAGES):
                # Each is under a key of its own.
                alice.client.invalidate_outbound_session(room)
                await alice.say(room, str(number))
                said.append(str(number))

        talking = asyncio.create_task(talk())
        for number, site in enumerate(dict.fromkeys((servers.first, servers.second)), start=1):
            await alice.until(lambda n=number: len(said) >= n * MESSAGES // 3, "messages")
            if site.kind == LOCAL:
                await asyncio.to_thread(site.program.kill)
                await asyncio.to_thread(site.program.start)
        await talking
        # Another server pauses before it tries again, but not after a word from there.
        said.append("here we are")
        await bob.say(room, said[-1])

        for device in (bob, laptop):
            await device.hears_all(room, said)
