"""Encrypted chat with matrix-nio, the Python client library that most bots are made of."""

import asyncio

import pytest

from tests.clients.encryption.conftest import Servers
from tests.clients.encryption.nio_devices import (
    Device,
    devices,
    encrypted_room,
    join,
    verify,
)
from tests.clients.nio_client import ok, password_of

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]
GROUP = 20


async def test_verified_users_talk_on_all_their_devices(servers: Servers) -> None:
    """Each message is read on the other user's devices, and on the sender's other one."""
    async with devices(servers) as made:
        phones = alice, bob = await made.register("alice"), await made.register("bob", 1)
        laptops = [await made.another(phone) for phone in phones]
        everyone = *phones, *laptops
        room = await encrypted_room(alice, bob, *laptops)
        await verify(alice, bob)
        for device in everyone:
            await device.knows(*(each for each in everyone if each is not device))

        said = []
        for sender in everyone:
            said.append(f"from {sender.name}")
            await sender.say(room, said[-1])
            for device in everyone:
                await device.hears(room, *said)


async def test_message_is_read_by_all_of_a_group(servers: Servers) -> None:
    """In an encrypted group anybody writes and all others can read it."""
    async with devices(servers) as made:
        members = [await made.register("member", number % 2) for number in range(GROUP)]
        room = await encrypted_room(*members)
        senders = members[:2]
        for sender in senders:
            await sender.knows(*(each for each in members if each is not sender))

        await asyncio.gather(*[sender.say(room, "to all of you") for sender in senders])

        for member in members:
            await member.hears(room, "to all of you", "to all of you")


async def test_member_who_joins_later_reads_from_then_on(servers: Servers) -> None:
    """A new member reads what is written after the join, and nothing of before."""
    async with devices(servers) as made:
        alice, bob = await made.register("alice"), await made.register("bob", 1)
        late = await made.register("late", 1)
        room = await encrypted_room(alice, bob)
        await alice.knows(bob)
        before = await alice.say(room, "before")
        await bob.hears(room, "before")

        await ok(alice.client.room_invite(room, late.client.user_id))
        await join(late, room)
        for member in (alice, bob):
            await member.sees_members(room, late)
            await member.knows(late)
        await alice.say(room, "after")
        await bob.hears(room, "before", "after")
        await late.until(lambda: late.heard[room] == ["after"], "the message after")

        assert late.unreadable(room) in ([], [before])


async def test_removed_device_is_given_no_more_keys(servers: Servers) -> None:
    """A stolen phone that was logged out remotely reads nothing that is written afterwards."""
    async with devices(servers) as made:
        alice, bob = await made.register("alice"), await made.register("bob", 1)
        stolen = await made.another(bob)
        room = await encrypted_room(alice, bob, stolen)
        await alice.knows(bob, stolen)
        await alice.say(room, "before")
        await stolen.hears(room, "before")
        assert stolen.name in alice.readers(room)

        await stolen.stop()
        await remove(bob, stolen.client.device_id)
        await alice.until(lambda: not alice.has(stolen), "the removal")
        await alice.say(room, "after")
        await bob.hears(room, "before", "after")

        assert alice.readers(room) == {bob.name}


async def test_device_that_was_offline_reads_what_it_missed(servers: Servers) -> None:
    """Keys wait at the server for a device, also those of senders whom it never met."""
    async with devices(servers) as made:
        alice, bob = await made.register("alice"), await made.register("bob", 1)
        laptop = await made.another(bob)
        room = await encrypted_room(alice, bob, laptop)
        await laptop.stop()
        carol = await made.register("carol")
        await ok(alice.client.room_invite(room, carol.client.user_id))
        await join(carol, room)
        for member in (alice, bob, carol):
            await member.sees_members(room, alice, bob, carol)
            others = (each for each in (alice, bob, laptop, carol) if each is not member)
            await member.knows(*others)

        said = []
        for number in range(3):
            for sender in (alice, bob, carol):
                sender.client.invalidate_outbound_session(room)
                said.append(f"{number} of {sender.name}")
                await sender.say(room, said[-1])
                await alice.hears(room, *said)
        laptop.start()

        # The other server may have seen concurrent messages in another order.
        await laptop.hears_all(room, said)


async def remove(device: Device, device_id: str) -> None:
    """Log another device of the same user out, with the password."""
    first = await device.client.delete_devices([device_id])
    user_id = device.client.user_id
    auth = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": user_id},
        "password": password_of(user_id),
        "session": first.session,
    }
    await ok(device.client.delete_devices([device_id], auth))
