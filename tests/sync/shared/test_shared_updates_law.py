"""The law of shared updates: whatever happens, each is what its reader would get alone.

Spec: https://spec.matrix.org/v1.19/client-server-api/#syncing
"""

import contextlib
from itertools import product
from typing import Any

import msgspec
from hypothesis import strategies as st

from homeserver.accounts.sessions.requester import Requester
from homeserver.encryption.changes import (
    ClaimableKeysChanged,
    DeviceListChanged,
    ToDeviceMessagesSent,
)
from homeserver.presence.presence_changed import PresenceChanged
from homeserver.presence.user_presence import State
from homeserver.protocol.errors import MatrixError
from homeserver.storage.accounts.devices import insert_device
from homeserver.storage.database.batch import Batch
from homeserver.storage.encryption.one_time_keys import INSERT_ONE_TIME_KEY
from homeserver.streams.sync_tokens import SyncToken
from homeserver.sync.sync_request import STATE_AFTER, SyncRequest
from tests.sync.shared.test_shared_updates import NothingShared, ageless
from tests.sync.sync_law import PEOPLE, Action, SyncLawTestCase, Users
from tests.sync.sync_server import SyncServer

DEVICES = ("DEVICE", "OTHER")
FILTERS: tuple[dict[str, Any], ...] = (
    {},
    {"room": {"state": {"lazy_load_members": True}}},
    {"room": {"timeline": {"limit": 2, "unread_thread_notifications": True}}},
    {"room": {"state": {"types": ["m.room.name"]}, "timeline": {"limit": 0}}},
)
people = st.sampled_from(PEOPLE)
rooms = st.integers(0, 1)
devices = st.sampled_from(DEVICES)
of_rooms = ("rename", "join", "leave", "typing", "redact", "mention", "thread", "tag")
actions = st.one_of(
    st.tuples(st.just("say"), people, rooms, devices),
    st.tuples(st.just("say"), people, rooms, devices),
    st.tuples(st.just("read"), people),
    st.tuples(st.just("read"), people),
    st.tuples(st.sampled_from(of_rooms), people, rooms),
    st.tuples(
        st.just("receipt"), people, rooms, st.sampled_from(("m.read", "m.read.private")), rooms
    ),
    st.tuples(st.just("ignore"), people, st.lists(people, max_size=2)),
    st.tuples(st.just("presence"), people, st.sampled_from(("online", "unavailable"))),
    st.tuples(st.sampled_from(("message", "keys", "devices")), people, devices),
)
several = st.tuples(st.just("several"), st.lists(actions, min_size=4, max_size=8))


class SharedUpdatesLawTests(SyncLawTestCase):
    timeout = 300
    max_examples = 30
    max_actions = 12

    async def setUp(self) -> None:
        await super().setUp()
        self.shared = 0

    async def test_shared_updates_are_those_of_each_reader(self) -> None:
        """No reader gets what is another's, misses anything, or gets anything twice."""
        await self.check_law(several, {})
        assert self.shared > 100, "most changes of one kind are shared"

    async def create_rooms(self, server: SyncServer, users: Users) -> list[str]:
        alice = users["alice"]
        rooms = [await server.create_room(alice), await server.create_room(users["bob"])]
        for user in (users["bob"], users["carol"]):
            await server.rooms.memberships.join(user, rooms[0])
        self.events: list[list[str]] = [
            [await server.say(users[owner], room_id, "first")]
            for owner, room_id in zip(("alice", "bob"), rooms, strict=True)
        ]
        readers = product(PEOPLE, DEVICES, range(len(FILTERS)), (0, 1))
        self.tokens: dict[Any, SyncToken | None] = dict.fromkeys(readers)
        await self.upload_key(server, alice)
        for person in PEOPLE:
            await self.read(server, users, person)
        return rooms

    async def upload_key(self, server: SyncServer, user: Requester) -> None:
        """Store a one-time key of one of the devices, which has their number in each update."""
        await server.db.run(insert_device, user.user_id, DEVICES[1], None, 0)
        batch = Batch()
        batch.add(
            INSERT_ONE_TIME_KEY.row(user.user_id, DEVICES[1], "signed_curve25519", 1, "AAAA", b"{}")
        )
        await server.db.write_batch(batch)

    async def act(self, server: SyncServer, users: Users, rooms: list[str], action: Action) -> None:
        for each in action[1]:
            # The authorisation rules refuse many of random changes.
            with contextlib.suppress(MatrixError):
                await self.change(server, users, rooms, each)
            await server.idle()
            await self.compare(server, users)

    async def change(
        self, server: SyncServer, users: Users, rooms: list[str], action: Action
    ) -> None:
        """Do what an action says."""
        what, user = action[0], users[action[1]]
        if what == "read":
            await self.read(server, users, action[1])
        elif what == "presence":
            await self.publish(server, user, action[2])
        elif what == "ignore":
            ignored = {users[name].user_id: {} for name in action[2]}
            await self.set_data(
                server, user, None, "m.ignored_user_list", {"ignored_users": ignored}
            )
        elif what in ("message", "keys", "devices"):
            await self.change_devices(server, user, what, action[2])
        else:
            await self.change_room(server, users, rooms[action[2]], action)

    async def change_room(
        self, server: SyncServer, users: Users, room_id: str, action: Action
    ) -> None:
        """Do what an action says in a room."""
        what, user, events = action[0], users[action[1]], self.events[action[2]]
        sending, newest, number = server.rooms.sending, events[-1], next(self.numbers)
        content: dict[str, Any] = {"msgtype": "m.text", "body": f"{what} {number}"}
        if what == "mention":
            content["m.mentions"] = {"user_ids": [each.user_id for each in users.values()]}
        elif what == "thread":
            content["m.relates_to"] = {"rel_type": "m.thread", "event_id": events[0]}
        if what in ("say", "mention", "thread"):
            sender = Requester(user.user_id, action[3]) if what == "say" else user
            events.append(
                await sending.send_message(sender, room_id, "m.room.message", content, f"{number}")
            )
        elif what == "rename":
            await sending.set_state(user, room_id, "m.room.name", "", {"name": str(number)})
        elif what == "redact":
            await sending.redact(user, room_id, newest, {}, f"{number}")
        elif what == "receipt":
            thread = {"thread_id": "main"} if action[4] else {}
            await server.sync.markers.mark(user, room_id, action[3], newest, **thread)
        elif what == "typing":
            await server.sync.typing.set(user, room_id, user.user_id, True, 30_000)
        elif what == "tag":
            await self.set_data(server, user, room_id, "m.tag", {"tags": {str(number): {}}})
        else:
            await getattr(server.rooms.memberships, what)(user, room_id)

    async def set_data(
        self,
        server: SyncServer,
        user: Requester,
        room_id: str | None,
        type_: str,
        content: dict[str, Any],
    ) -> None:
        await server.accounts.account_data.set(user.user_id, room_id, type_, content)

    async def publish(self, server: SyncServer, user: Requester, state: State) -> None:
        """Publish the presence of a user, who may do so only once in a while."""
        rooms = tuple(await server.core.user_rooms.joined(user.user_id))
        position = server.log.next_position()
        await server.log.append(PresenceChanged(position, user.user_id, rooms, state, None, 0))

    async def change_devices(
        self, server: SyncServer, user: Requester, what: str, device: str
    ) -> None:
        """Publish a change of one device of a user."""
        position = server.log.next_position()
        if what == "message":
            sent = ((device, b'{"type":"m.test"}'),)
            await server.log.append(ToDeviceMessagesSent(position, user.user_id, sent))
        elif what == "keys":
            await server.log.append(ClaimableKeysChanged(position, user.user_id, (device,)))
        else:
            rooms = tuple(await server.core.user_rooms.joined(user.user_id))
            await server.log.append(
                DeviceListChanged(position, user.user_id, rooms, device, position, None)
            )

    async def request(self, server: SyncServer, users: Users, reader: Any) -> SyncRequest:
        person, device, number, use_state_after = reader
        return await server.engine.build_request(
            Requester(users[person].user_id, device),
            filter_text=msgspec.json.encode(FILTERS[number]).decode(),
            state_after=STATE_AFTER if use_state_after else None,
        )

    async def read(self, server: SyncServer, users: Users, person: str) -> None:
        """Have all clients of a person receive what is new."""
        for reader, since in self.tokens.items():
            if reader[0] == person:
                request = await self.request(server, users, reader)
                update = await server.engine.update(request, since)
                self.tokens[reader] = update.span.token

    async def compare(self, server: SyncServer, users: Users) -> None:
        """Compare each update that is shared with what its reader gets alone."""
        engine = server.engine
        shared, alone = engine._shared, NothingShared()
        for reader, since in self.tokens.items():
            assert since is not None
            request = await self.request(server, users, reader)
            found = shared.find(request, since)
            if found is not None:
                self.shared += 1
                engine._shared = alone  # type: ignore[assignment]
                update = await engine.update(request, since)
                engine._shared = shared
                assert ageless(found) == ageless(update), reader
                assert found.span.token == update.span.token
                assert found.is_empty == update.is_empty
