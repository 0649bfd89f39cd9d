"""The law of device lists: a client that does what `/sync` says knows all devices that matter.

These are the devices of just those users with whom its user shares a room, as they are now.

A client looks up the devices of users in `changed`, and forgets users in `left`. At the end of a
plan it knows what a new client would look up: of nobody less, of nobody more, nothing outdated.

Spec: https://spec.matrix.org/v1.19/client-server-api/#tracking-the-device-list-for-a-user
"""

from typing import Any

from hypothesis import strategies as st

from homeserver.accounts.sessions.requester import Requester
from homeserver.streams.sync_tokens import parse_sync_token
from tests.sync.sync_law import PEOPLE, Action, SyncLawTestCase, Users
from tests.sync.sync_server import SyncServer

EVE, MALLORY = "@eve:other.example", "@mallory:third.example"

people = st.sampled_from(PEOPLE)
everybody = st.sampled_from([*PEOPLE, EVE, MALLORY])
room_numbers = st.integers(0, 1)
back = st.integers(0, 6)
actions = st.one_of(
    st.tuples(st.just("keys"), everybody),
    st.tuples(st.just("keys"), everybody),
    st.tuples(st.just("join"), people, room_numbers),
    st.tuples(st.just("join"), people, room_numbers),
    st.tuples(st.just("leave"), people, room_numbers),
    st.tuples(st.just("kick"), people, room_numbers, people),
    st.tuples(st.just("ban"), people, room_numbers, people),
    st.tuples(st.just("unban"), people, room_numbers, people),
    st.tuples(st.just("burst"), people, room_numbers),
    st.tuples(st.just("they go"), st.sampled_from([EVE, MALLORY]), room_numbers, back),
    st.tuples(st.just("they come"), st.sampled_from([EVE, MALLORY]), room_numbers, back),
    st.tuples(st.just("they ban"), people, room_numbers, back),
    st.tuples(st.just("sync one"), people),
    st.tuples(st.just("sync one"), people),
    st.tuples(st.just("sync")),
    st.tuples(st.just("restart")),
)


class DeviceListClient:
    """A client that follows device lists; a device list is just the number of its changes."""

    def __init__(self) -> None:
        self.since: str | None = None
        self.known: dict[str, int] = {}


class DeviceListLawTests(SyncLawTestCase):
    timeout = 240
    max_examples = 60
    max_actions = 30

    async def test_clients_know_the_devices_of_just_those_who_share_a_room(self) -> None:
        """They join, leave, are banned, or are brought back by a branch of the graph."""
        await self.check_law(actions, {})

    async def create_rooms(self, server: SyncServer, users: Users) -> list[str]:
        self.versions = {each.user_id: 0 for each in users.values()} | {EVE: 0, MALLORY: 0}
        self.clients = {name: DeviceListClient() for name in PEOPLE}
        rooms = []
        for name, version in (("alice", "11"), ("bob", "12")):
            room_id = await server.create_room(users[name], version=version)
            await server.remote.member(room_id, EVE, "join")
            rooms.append(room_id)
        levels = {"users": {users["alice"].user_id: 100, EVE: 50}}
        await server.rooms.sending.set_state(
            users["alice"], rooms[0], "m.room.power_levels", "", levels
        )
        return rooms

    async def act(self, server: SyncServer, users: Users, rooms: list[str], action: Action) -> None:
        what, who, *rest = action
        if what == "keys":
            await self._change_keys(server, users[who].user_id if who in users else who)
        elif what == "sync one":
            await self._sync(server, users[who], self.clients[who])
        elif what.startswith("they"):
            await self._act_as_remote_user(server, users, what, who, rooms[rest[0]], rest[1])
        elif what == "burst":
            for number in range(12):
                await server.say(users[who], rooms[rest[0]], str(number))
        elif what in ("join", "leave"):
            await getattr(server.rooms.memberships, what)(users[who], rooms[rest[0]])
        else:
            change = getattr(server.rooms.memberships, what)
            await change(users[who], rooms[rest[0]], users[rest[1]].user_id)

    async def _change_keys(self, server: SyncServer, user_id: str) -> None:
        lists = server.encryption.device_lists
        await lists.prepare(user_id)
        lists.record(user_id, "DEVICE")
        await server.log.flush()
        self.versions[user_id] += 1

    async def _act_as_remote_user(
        self, server: SyncServer, users: Users, what: str, who: str, room_id: str, back: int
    ) -> None:
        room = await server.core.registry.get(room_id)
        recent = [stored.event.event_id for stored in room.timeline]
        after = [recent[-back]] if 0 < back <= len(recent) else None
        sender, target = (EVE, users[who].user_id) if what == "they ban" else (who, who)
        membership = {"they go": "leave", "they come": "join", "they ban": "ban"}[what]
        await server.remote.send(
            room_id, "m.room.member", sender, {"membership": membership}, target, after=after
        )

    async def _sync(self, server: SyncServer, user: Requester, client: DeviceListClient) -> None:
        update = await server.update(user, client.since)
        if client.since is None:
            looked_up = await self._sharing(server, user)
            left: set[str] = set()
        else:
            lists = update.get("device_lists", {})
            looked_up, left = set(lists.get("changed", ())), set(lists.get("left", ()))
            token = parse_sync_token(client.since)
            queried = await server.engine.device_list_update(user.user_id, token)
            assert (set(queried.changed), set(queried.left)) == (looked_up, left)
        assert not looked_up & left
        assert looked_up <= await self._sharing(server, user)
        for user_id in left:
            client.known.pop(user_id, None)
        client.known |= {user_id: self.versions[user_id] for user_id in looked_up}
        client.since = update["next_batch"]

    async def _sharing(self, server: SyncServer, user: Requester) -> set[str]:
        """The user, and all with whom they share a room."""
        sharing = {user.user_id}
        for number in await server.core.user_rooms.joined(user.user_id):
            room = await server.core.registry.by_number(number)
            assert room is not None
            sharing.update(room.joined_members())
        return sharing

    async def finish(self, server: SyncServer, users: Users) -> None:
        for name, client in self.clients.items():
            user = users[name]
            await self._sync(server, user, client)
            expected = {
                user_id: self.versions[user_id] for user_id in await self._sharing(server, user)
            }
            assert client.known == expected
            again: dict[str, Any] = await server.update(user, client.since)
            assert "device_lists" not in again, "nothing has changed"
