"""Updates that are shared by all who see a change are those that each would get alone.

Spec: https://spec.matrix.org/v1.19/client-server-api/#syncing
"""

import itertools
import re
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.encryption.changes import ToDeviceMessagesSent
from homeserver.protocol.proposals.unstable_names import UNSTABLE_STATE_AFTER
from homeserver.streams.sync_tokens import SyncToken, parse_sync_token
from homeserver.sync.sync_request import STATE_AFTER, SyncRequest
from homeserver.sync.update import Update
from tests.support.postgres import DatabaseTestCase
from tests.sync.sync_server import SyncServer

FILTERS: list[dict[str, Any]] = [
    {},
    {"room": {"state": {"lazy_load_members": True}}},
    {"room": {"timeline": {"limit": 1, "unread_thread_notifications": True}}},
    {"room": {"timeline": {"types": ["m.room.name"]}}},
    {"room": {"rooms": []}},
    {"room": {"ephemeral": {"types": []}}},
    {"presence": {"types": []}},
    {"event_fields": ["sender"]},
]


class NothingShared:
    """In place of the shared updates: every update is made section by section."""

    def find(self, request: SyncRequest, since: SyncToken) -> Update | None:
        return None


def ageless(update: Update) -> bytes:
    """An update as JSON without the ages of its events, which grow."""
    return re.sub(rb'"(age|last_active_ago)":\d+', b"", update.encode())


class SharedUpdateTests(DatabaseTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        server = self.server = await SyncServer.start(self.db)
        self.alice = await server.user("alice")
        self.readers = [await server.user(f"user{number}") for number in range(3)]
        self.room_id = await server.create_room(self.alice)
        for reader in self.readers:
            await server.rooms.memberships.join(reader, self.room_id)
        wishes = itertools.product(FILTERS, (None, STATE_AFTER, UNSTABLE_STATE_AFTER))
        self.requests = [
            await server.engine.build_request(
                Requester(reader.user_id, f"DEVICE{number}" if number else reader.device_id),
                filter_text=msgspec.json.encode(wanted).decode(),
                state_after=state_after,
            )
            for number, (wanted, state_after) in enumerate(wishes)
            for reader in (self.alice, *self.readers)
        ]

    async def clean_up(self) -> None:
        await self.server.stop()
        await super().clean_up()

    async def updates_after(
        self, change: Callable[[], Awaitable[Any]]
    ) -> list[tuple[SyncRequest, Update]]:
        """The updates that a change makes; each is compared with the one of its request alone."""
        engine = self.server.engine
        before = [(await engine.update(request, None)).span.token for request in self.requests]
        since = max(before)
        for request in self.requests:
            await engine.update(request, since)
        await change()
        await self.server.idle()
        updates = [await engine.update(request, since) for request in self.requests]
        shared, engine._shared = engine._shared, NothingShared()  # type: ignore[assignment]
        for request, update in zip(self.requests, updates, strict=True):
            alone = await engine.update(request, since)
            assert ageless(update) == ageless(alone)
            assert update.span.token == alone.span.token
            assert update.is_empty == alone.is_empty
        engine._shared = shared
        return list(zip(self.requests, updates, strict=True))

    async def shared_by(self, change: Callable[[], Awaitable[Any]]) -> int:
        """How many readers with the usual filter have the same object after a change."""
        updates = await self.updates_after(change)
        usual = [id(update) for _, update in updates[: 1 + len(self.readers)]]
        return max(usual.count(one) for one in usual)

    async def say(self, body: str = "hello") -> None:
        await self.server.say(self.alice, self.room_id, body)

    async def test_message(self) -> None:
        """All but its sender have one and the same update."""
        assert await self.shared_by(self.say) == len(self.readers)

    async def test_several_messages(self) -> None:
        """They are as one message where they fit into the timelines."""

        async def two() -> None:
            await self.say()
            await self.say()

        assert await self.shared_by(two) == len(self.readers)

    async def test_message_that_mentions_a_reader(self) -> None:
        """The count of the mentioned reader is another one."""
        mentions = {"user_ids": [self.readers[0].user_id]}
        content = {"msgtype": "m.text", "body": "hello", "m.mentions": mentions}

        async def mention() -> None:
            await self.server.rooms.sending.send_message(
                self.alice, self.room_id, "m.room.message", content, "mention"
            )

        assert await self.shared_by(mention) == len(self.readers) - 1

    async def test_state(self) -> None:
        """Who wants the state after the timeline has it there; its sender has the same."""
        rooms = self.server.rooms

        async def rename() -> None:
            await rooms.sending.set_state(
                self.alice, self.room_id, "m.room.name", "", {"name": "Tea"}
            )

        assert await self.shared_by(rename) == 1 + len(self.readers)

    async def test_change_of_a_member(self) -> None:
        """The summary is of each member alone."""
        newcomer = await self.server.user("newcomer")

        async def join() -> None:
            await self.server.rooms.memberships.join(newcomer, self.room_id)

        assert await self.shared_by(join) == 1

    async def test_message_and_receipt(self) -> None:
        """A room with other news is not shared here."""

        async def both() -> None:
            await self.say()
            event_id = await self.server.say(self.alice, self.room_id, "and")
            markers = self.server.sync.markers
            await markers.mark(self.readers[1], self.room_id, "m.read", event_id)

        assert await self.shared_by(both) == 1

    async def test_message_of_an_ignored_user(self) -> None:
        """Who ignores the sender has nothing of it."""
        ignoring = self.readers[0]

        async def ignored() -> None:
            content = {"ignored_users": {self.alice.user_id: {}}}
            data = self.server.accounts.account_data
            await data.set(ignoring.user_id, None, "m.ignored_user_list", content)

        await ignored()
        self.requests = [
            await self.server.engine.build_request(request.caller) for request in self.requests
        ]  # now with the ignored users
        updates = await self.updates_after(self.say)

        for request, update in updates:
            assert (b"hello" in update.encode()) == (request.user_id != ignoring.user_id)

    async def test_message_in_another_room_as_well(self) -> None:
        """Who has news of two rooms has both in one update."""
        other = await self.server.create_room(self.readers[0])

        async def both() -> None:
            await self.say()
            await self.server.say(self.readers[0], other, "note")

        assert await self.shared_by(both) == len(self.readers) - 1

    async def test_presence(self) -> None:
        """A change of presence is shared by all who share a room, and seen by nobody else."""
        stranger = await self.server.user("stranger")
        self.requests.append(await self.server.engine.build_request(stranger))

        async def go_online() -> None:
            tracker = self.server.sync.tracker
            await tracker.sync_began(self.alice.user_id, self.alice.device_id, None)

        updates = await self.updates_after(go_online)

        assert updates[-1][1].is_empty
        assert not updates[0][1].is_empty
        assert len({id(update) for _, update in updates[: 1 + len(self.readers)]}) == 1

    async def test_presence_of_two_users(self) -> None:
        """Two changes are in one update, as each reader sees them."""

        async def go_online() -> None:
            tracker = self.server.sync.tracker
            for user in (self.alice, self.readers[0]):
                await tracker.sync_began(user.user_id, user.device_id, None)

        updates = await self.updates_after(go_online)

        assert len(updates[0][1].presence) == 2

    async def test_message_to_the_device(self) -> None:
        """A device with a message has it together with the news of the room."""
        device = self.readers[0]

        async def both() -> None:
            await self.say()
            log = self.server.log
            sent = ("DEVICE", b'{"type":"m.test"}')
            await log.append(ToDeviceMessagesSent(log.next_position(), device.user_id, (sent,)))

        updates = await self.updates_after(both)

        assert {request.user_id for request, update in updates if update.to_device} == {
            device.user_id
        }


class SharedSectionTests(DatabaseTestCase):
    async def test_equal_requests_get_the_same_bytes(self) -> None:
        """They do for state at the start or at the end of a timeline, and under either name."""
        server = await SyncServer.start(self.db)
        alice = await server.user("alice")
        others = [await server.user(f"user{number}") for number in range(3)]
        room_id = await server.create_room(alice)
        for other in others:
            await server.rooms.memberships.join(other, room_id)
        since = parse_sync_token((await server.update(alice))["next_batch"])
        await server.say(alice, room_id, "hello")
        await server.rooms.sending.set_state(alice, room_id, "m.room.name", "", {"name": "Tea"})

        responses = []
        for state_after in (None, STATE_AFTER, UNSTABLE_STATE_AFTER):
            for other in others:
                request = await server.engine.build_request(other, state_after=state_after)
                responses.append((await server.engine.update(request, since)).encode())

        assert len(set(responses)) == 3
        assert [UNSTABLE_STATE_AFTER.encode() in response for response in responses[::3]] == [
            False,
            False,
            True,
        ]
        assert b'"state_after":{"events":[{' in responses[3]
        assert b"state_after" not in responses[0]
