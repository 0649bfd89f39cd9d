"""Everyday flows with matrix-nio, the Python client library that most bots are made of."""

import asyncio
from contextlib import AsyncExitStack
from functools import partial

import pytest
from nio import (
    ErrorResponse,
    InviteMemberEvent,
    PresenceEvent,
    ReceiptEvent,
    RoomMessageText,
    RoomPreset,
    TypingNoticeEvent,
)

from tests.clients.nio_client import (
    account,
    another_device,
    collect,
    direct_room,
    hear,
    ok,
    password_of,
    say,
    until,
)
from tests.support.process import ServerProcess

pytestmark = pytest.mark.interop
GROUP = 100


async def test_registered_account_logs_in_again(server: ServerProcess) -> None:
    """A user who registered in a client can log in again later."""
    async with account(server, "alice") as alice:
        name = alice.user_id
        assert (await alice.whoami()).user_id == name
        await ok(alice.logout())
        assert isinstance(await alice.whoami(), ErrorResponse)

        await ok(alice.login(password_of(name), device_name="the next day"))

        assert (await alice.whoami()).user_id == name


async def test_one_to_one_chat(server: ServerProcess) -> None:
    """Two users talk, and each receives the messages of the other in order."""
    async with account(server, "alice") as alice, account(server, "bob") as bob:
        room = await direct_room(alice, bob)
        await hear(bob)
        received = collect(bob, RoomMessageText)

        for text in ("hi", "how are you?", "🙂"):
            await say(alice, room, text)
        await until(bob, lambda: len(received) == 3)

        assert [event.body for _, event in received] == ["hi", "how are you?", "🙂"]
        assert {event.sender for _, event in received} == {alice.user_id}


async def test_invite_is_seen_and_may_be_declined(server: ServerProcess) -> None:
    """An invited user sees the inviter, and can decline."""
    async with account(server, "alice") as alice, account(server, "bob") as bob:
        await hear(bob)
        invites = collect(bob, InviteMemberEvent)

        room = (await ok(alice.room_create(name="Tea", invite=[bob.user_id]))).room_id
        await until(bob, lambda: room in bob.invited_rooms)

        assert bob.invited_rooms[room].inviter == alice.user_id
        assert any(event.membership == "invite" for _, event in invites)
        await ok(bob.room_leave(room))
        members = (await ok(alice.joined_members(room))).members
        assert [member.user_id for member in members] == [alice.user_id]


async def test_message_reaches_all_of_a_hundred(server: ServerProcess) -> None:
    """In a group of everyday size one member writes, and all others receive it."""
    async with AsyncExitStack() as stack:
        members = [await stack.enter_async_context(account(server, "member")) for _ in range(GROUP)]
        room = (await ok(members[0].room_create(preset=RoomPreset.public_chat))).room_id
        for member in members[1:]:
            await ok(member.join(room))
        await asyncio.gather(*[hear(member) for member in members])
        received = [collect(member, RoomMessageText) for member in members]

        await say(members[0], room, "to all of you")
        everyone = zip(members, received, strict=True)
        await asyncio.gather(*[until(member, partial(bool, inbox)) for member, inbox in everyone])

        assert all(inbox[0][1].body == "to all of you" for inbox in received)
        assert len(members[-1].rooms[room].users) == GROUP


async def test_typing_is_shown_and_ends(server: ServerProcess) -> None:
    """The other user sees when typing begins, and when it ends."""
    async with account(server, "alice") as alice, account(server, "bob") as bob:
        room = await direct_room(alice, bob)
        await hear(bob)
        seen = collect(bob, TypingNoticeEvent)

        await ok(alice.room_typing(room, typing_state=True, timeout=20_000))
        await until(bob, lambda: bool(seen) and seen[-1][1].users == [alice.user_id])
        await ok(alice.room_typing(room, typing_state=False))
        await until(bob, lambda: seen[-1][1].users == [])

        assert len(seen) == 2


async def test_receipt_shows_what_was_read(server: ServerProcess) -> None:
    """The sender learns that the message was read."""
    async with account(server, "alice") as alice, account(server, "bob") as bob:
        room = await direct_room(alice, bob)
        event_id = await say(alice, room, "read me")
        await hear(alice)
        receipts = collect(alice, ReceiptEvent)

        await ok(bob.room_read_markers(room, event_id, event_id))
        await until(alice, lambda: bool(receipts))

        receipt = receipts[-1][1].receipts[0]
        assert (receipt.event_id, receipt.user_id) == (event_id, bob.user_id)


async def test_presence_reaches_users_in_shared_rooms(server: ServerProcess) -> None:
    """Users in a shared room see the status message of a user."""
    async with account(server, "alice") as alice, account(server, "bob") as bob:
        await direct_room(alice, bob)
        await hear(bob)
        seen: list[PresenceEvent] = []

        async def note(event: PresenceEvent) -> None:
            if event.user_id == alice.user_id:
                seen.append(event)

        bob.add_presence_callback(note, PresenceEvent)
        await ok(alice.set_presence("unavailable", "at lunch"))
        await until(bob, lambda: any(event.status_msg == "at lunch" for event in seen))

        assert seen[-1].presence == "unavailable"
        assert (await ok(bob.get_presence(alice.user_id))).status_msg == "at lunch"


async def test_second_device_gets_the_same_messages(server: ServerProcess) -> None:
    """Phone and laptop of one user show the same conversation, with the user's own messages."""
    async with (
        account(server, "alice") as alice,
        account(server, "bob") as phone,
        another_device(server, phone) as laptop,
    ):
        room = await direct_room(alice, phone)
        await hear(phone)
        await hear(laptop)
        inboxes = [collect(device, RoomMessageText) for device in (phone, laptop)]

        await say(alice, room, "from alice")
        await say(phone, room, "from the phone")
        await asyncio.gather(
            until(phone, lambda: len(inboxes[0]) == 2),
            until(laptop, lambda: len(inboxes[1]) == 2),
        )

        assert phone.device_id != laptop.device_id
        for inbox in inboxes:
            assert [event.body for _, event in inbox] == ["from alice", "from the phone"]
        assert {device.id for device in (await ok(phone.devices())).devices} == {
            phone.device_id,
            laptop.device_id,
        }
