"""Changes of messages and rooms, with matrix-nio: edits, knocks, upgrades, restarts."""

import json
from typing import Any

import pytest
from nio import (
    AsyncClient,
    ErrorResponse,
    MessageDirection,
    ReactionEvent,
    RedactedEvent,
    RedactionEvent,
    RoomCreateEvent,
    RoomMemberEvent,
    RoomMessageText,
    RoomPreset,
    RoomUpgradeEvent,
    TagEvent,
)
from nio.api import RelationshipType

from tests.clients.nio_client import (
    account,
    another_device,
    collect,
    direct_room,
    hear,
    ok,
    say,
    until,
)
from tests.support.process import ServerProcess, running_server

pytestmark = pytest.mark.interop


async def test_message_is_corrected_and_reacted_to(server: ServerProcess) -> None:
    """A bot learns of edits of its message and of reactions to it."""
    async with account(server, "alice") as alice, account(server, "bob") as bob:
        room = await direct_room(alice, bob)
        await hear(alice)
        received, reactions = collect(alice, RoomMessageText), collect(alice, ReactionEvent)
        event_id = await say(bob, room, "helo")
        await ok(bob.room_send(room, "m.room.message", edit(event_id, "hello")))
        like = relation("m.annotation", event_id, key="👍")
        await ok(alice.room_send(room, "m.reaction", like))
        await until(alice, lambda: len(received) == 2 and bool(reactions))

        relations = alice.room_get_event_relations(room, event_id)
        children = {type(child) async for child in relations}
        edits = [
            child.source["content"]["m.new_content"]["body"]
            async for child in alice.room_get_event_relations(
                room, event_id, RelationshipType.replacement
            )
        ]
        shown = (await ok(alice.room_get_event(room, event_id))).event
        twice = await alice.room_send(room, "m.reaction", like)

        assert (reactions[0][1].key, reactions[0][1].reacts_to) == ("👍", event_id)
        assert children == {RoomMessageText, ReactionEvent}
        assert edits == ["hello"]
        latest = shown.source["unsigned"]["m.relations"]["m.replace"]
        assert latest["content"]["m.new_content"]["body"] == "hello"
        assert isinstance(twice, ErrorResponse)
        assert twice.status_code == "M_DUPLICATE_ANNOTATION"


async def test_reply_names_its_message(server: ServerProcess) -> None:
    """A user can follow questions and their answers."""
    async with account(server, "alice") as alice, account(server, "bob") as bob:
        room = await direct_room(alice, bob)
        await hear(alice)
        received = collect(alice, RoomMessageText)
        question = await say(alice, room, "tea?")
        content = {
            "msgtype": "m.text",
            "body": "yes",
            "m.relates_to": {"m.in_reply_to": {"event_id": question}},
        }

        await ok(bob.room_send(room, "m.room.message", content))
        await until(alice, lambda: len(received) == 2)

        answered = received[1][1].source["content"]["m.relates_to"]["m.in_reply_to"]
        assert answered == {"event_id": question}


async def test_message_is_redacted(server: ServerProcess) -> None:
    """Users who join later do not get a redacted message."""
    async with account(server, "alice") as alice, account(server, "bob") as bob:
        room = await direct_room(alice, bob)
        await hear(bob)
        redactions = collect(bob, RedactionEvent)
        event_id = await say(alice, room, "regret")

        await ok(alice.room_redact(room, event_id, reason="typo"))
        await until(bob, lambda: bool(redactions))
        shown = (await ok(bob.room_get_event(room, event_id))).event

        assert redactions[0][1].redacts == event_id
        assert isinstance(shown, RedactedEvent)
        assert (shown.redacter, shown.reason) == (alice.user_id, "typo")


async def test_knock_is_answered_by_an_invite(server: ServerProcess) -> None:
    """A user who knocks is invited and can join."""
    async with account(server, "alice") as alice, account(server, "bob") as bob:
        rules = {"type": "m.room.join_rules", "content": {"join_rule": "knock"}}
        room = (await ok(alice.room_create(initial_state=[rules]))).room_id
        await hear(alice)
        members = collect(alice, RoomMemberEvent)
        assert isinstance(await bob.join(room), ErrorResponse)

        await ok(bob.room_knock(room, "It is me"))
        await until(alice, lambda: any(e.membership == "knock" for _, e in members))
        assert members[-1][1].content["reason"] == "It is me"
        await ok(alice.room_invite(room, bob.user_id))
        await until(bob, lambda: room in bob.invited_rooms)
        await ok(bob.join(room))

        await until(alice, lambda: members[-1][1].membership == "join")
        assert bob.user_id in alice.rooms[room].users


async def test_new_name_is_shown_in_every_room(server: ServerProcess) -> None:
    """A user changes their name once, not in each room."""
    async with account(server, "alice") as alice, account(server, "bob") as bob:
        rooms = [await direct_room(alice, bob) for _ in range(2)]
        await hear(alice)

        await ok(bob.set_displayname("Bobby"))
        await ok(bob.set_avatar("mxc://example.org/bobby"))

        def shown() -> list[Any]:
            members = [alice.rooms[room].users[bob.user_id] for room in rooms]
            return [(member.display_name, member.avatar_url) for member in members]

        await until(alice, lambda: shown() == [("Bobby", "mxc://example.org/bobby")] * 2)
        profile = await ok(alice.get_profile(bob.user_id))
        assert (profile.displayname, profile.avatar_url) == shown()[0]


async def test_room_is_replaced_by_another(server: ServerProcess) -> None:
    """A client can upgrade a room by itself, and the other members follow."""
    async with account(server, "alice") as alice, account(server, "bob") as bob:
        created = alice.room_create(name="Tea", preset=RoomPreset.public_chat, room_version="10")
        old = (await ok(created)).room_id
        await ok(bob.join(old))
        await hear(alice)
        await hear(bob)
        tombstones = collect(bob, RoomUpgradeEvent)

        new = (await ok(alice.room_upgrade(old, "11"))).room_id
        await until(bob, lambda: bool(tombstones))
        await ok(bob.join(tombstones[0][1].replacement_room))
        await until(bob, lambda: new in bob.rooms)

        assert tombstones[0][1].replacement_room == new
        assert (bob.rooms[new].name, bob.rooms[new].room_version) == ("Tea", "11")


async def test_tags_and_ignored_users_are_those_of_all_devices(server: ServerProcess) -> None:
    """A setting made on the phone applies on the laptop."""
    async with (
        account(server, "alice") as alice,
        account(server, "bob") as phone,
        another_device(server, phone) as laptop,
    ):
        room = await direct_room(alice, phone)
        await hear(laptop)
        received, tags = collect(laptop, RoomMessageText), []

        async def note(_: object, event: TagEvent) -> None:
            tags.append(event.tags)

        laptop.add_room_account_data_callback(note, TagEvent)
        user = f"/_matrix/client/v3/user/{phone.user_id}"
        await put(phone, f"{user}/rooms/{room}/tags/m.favourite", '{"order": 0.5}')
        ignored = json.dumps({"ignored_users": {alice.user_id: {}}})
        await put(phone, f"{user}/account_data/m.ignored_user_list", ignored)
        await say(alice, room, "unheard")
        await say(phone, room, "received")
        await until(laptop, lambda: bool(received) and bool(tags))

        assert tags == [{"m.favourite": {"order": 0.5}}]
        assert [event.body for _, event in received] == ["received"]


async def test_history_is_read_to_its_beginning(server: ServerProcess) -> None:
    """An archive bot gets each event once, and knows when it has all."""
    async with account(server, "alice") as alice:
        room = (await ok(alice.room_create())).room_id
        for number in range(30):
            await say(alice, room, str(number))
        found: list[Any] = []
        token: str | None = ""

        while token is not None:
            page = await ok(
                alice.room_messages(room, token, direction=MessageDirection.back, limit=7)
                if token
                else alice.room_messages(room, direction=MessageDirection.back, limit=7)
            )
            found += page.chunk
            token = page.end

        said = [event.body for event in found if isinstance(event, RoomMessageText)]
        assert said == [str(number) for number in reversed(range(30))]
        assert isinstance(found[-1], RoomCreateEvent)
        assert len({event.event_id for event in found}) == len(found)


async def test_members_are_loaded_as_they_are_needed(server: ServerProcess) -> None:
    """A bot in large rooms need not load all members to start."""
    async with (
        account(server, "alice") as alice,
        account(server, "bob") as bob,
        account(server, "quiet") as quiet,
    ):
        created = alice.room_create(name="Tea", preset=RoomPreset.public_chat)
        room = (await ok(created)).room_id
        for member in (quiet, bob):
            await ok(member.join(room))
        for number in range(12):
            await say(alice, room, str(number))
        lazy = {"room": {"state": {"lazy_load_members": True}}}

        await ok(bob.sync(timeout=0, sync_filter=lazy))
        before = set(bob.rooms[room].users)
        await ok(bob.joined_members(room))

        assert before == {alice.user_id, bob.user_id}
        assert set(bob.rooms[room].users) == {alice.user_id, bob.user_id, quiet.user_id}


async def test_bot_continues_after_a_restart() -> None:
    """Tokens, rooms and messages outlive the server process."""
    with running_server() as server:
        async with account(server, "alice") as alice, account(server, "bob") as bob:
            room = await direct_room(alice, bob)
            await hear(bob)
            received = collect(bob, RoomMessageText)
            await say(alice, room, "before")

            server.stop()
            server.start()
            await say(alice, room, "after")
            await until(bob, lambda: len(received) == 2)

            assert [event.body for _, event in received] == ["before", "after"]


def edit(event_id: str, text: str) -> dict[str, Any]:
    """The content of an event that corrects another one."""
    new = {"msgtype": "m.text", "body": text}
    return {
        **new,
        "body": f"* {text}",
        "m.new_content": new,
        **relation("m.replace", event_id),
    }


def relation(kind: str, event_id: str, **more: str) -> dict[str, Any]:
    """The content that relates an event to another one."""
    return {"m.relates_to": {"rel_type": kind, "event_id": event_id, **more}}


async def put(client: AsyncClient, path: str, body: str) -> None:
    """A request for which the library has no method."""
    headers = {
        "Authorization": f"Bearer {client.access_token}",
        "Content-Type": "application/json",
    }
    response = await client.send("PUT", path, body, headers)
    assert response.status == 200, await response.text()
