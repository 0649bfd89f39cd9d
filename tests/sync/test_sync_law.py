"""The law of sync: an initial sync and any increments after it add up to a fresh initial sync."""

import contextlib
from itertools import count
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread, deferToThread

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.errors import MatrixError
from tests.support.postgres import DatabaseTestCase
from tests.sync.client_model import ClientModel
from tests.sync.sync_server import World

PEOPLE = ("alice", "bob", "carol")
Action = tuple[Any, ...]

people = st.sampled_from(PEOPLE)
room_numbers = st.integers(0, 1)
actions = st.one_of(
    st.tuples(st.just("say"), people, room_numbers),
    st.tuples(st.just("burst"), people, room_numbers, st.integers(8, 15)),
    st.tuples(st.just("join"), people, room_numbers),
    st.tuples(st.just("leave"), people, room_numbers),
    st.tuples(st.just("invite"), people, room_numbers, people),
    st.tuples(st.just("kick"), people, room_numbers, people),
    st.tuples(st.just("ban"), people, room_numbers, people),
    st.tuples(st.just("unban"), people, room_numbers, people),
    st.tuples(st.just("rename"), people, room_numbers, st.integers(0, 3)),
    st.tuples(st.just("note"), people, st.integers(0, 3)),
    st.tuples(st.just("sync"), st.just(None)),
    st.tuples(st.just("restart"), st.just(None)),
)


class SyncLawTests(DatabaseTestCase):
    timeout = 120

    async def setUp(self) -> None:
        await super().setUp()
        self.numbers = count()

    async def test_increments_add_up_to_an_initial_sync(self) -> None:
        """What a device shows never depends on when it happened to ask."""
        await self._for_all({})

    async def test_increments_add_up_with_state_after(self) -> None:
        """The same holds for clients that want the state at the end of each timeline."""
        await self._for_all({"use_state_after": True})

    async def _for_all(self, options: dict[str, Any]) -> None:
        @settings(
            max_examples=40,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.lists(actions, max_size=30))
        def law(plan: list[Action]) -> None:
            blockingCallFromThread(
                reactor, lambda: Deferred.fromCoroutine(self._play(plan, options))
            )

        await deferToThread(law)

    async def _play(self, plan: list[Action], options: dict[str, Any]) -> None:
        number = next(self.numbers)
        world = await World.start(self.db)
        users = {name: await world.user(f"{name}{number}") for name in PEOPLE}
        rooms = [
            await world.create_room(users["alice"], version="11", invite=[users["bob"].user_id]),
            await world.create_room(users["bob"], version="12", preset="private_chat"),
        ]
        clients = {name: ClientModel() for name in PEOPLE}
        for action in plan:
            if action[0] == "restart":
                await world.stop()
                world = await World.start(self.db)
            elif action[0] == "sync":
                await self._sync(world, users, clients, options)
            else:
                # The rules refuse much of what a random plan wants.
                with contextlib.suppress(MatrixError):
                    await self._act(world, users, rooms, action)
        await self._sync(world, users, clients, options)
        for name, client in clients.items():
            await self._check_same(world, users[name], client, options)
        await world.stop()

    async def _act(
        self, world: World, users: dict[str, Requester], rooms: list[str], action: Action
    ) -> None:
        what, user = action[0], users[action[1]]
        members = world.rooms.memberships
        if what == "note":
            await world.accounts.account_data.set(
                user.user_id, None, f"note{action[2]}", {"n": next(self.numbers)}
            )
            return
        room_id = rooms[action[2]]
        if what == "say":
            await world.say(user, room_id, "hello")
        elif what == "burst":
            for body in range(action[3]):
                await world.say(user, room_id, str(body))
        elif what == "join":
            await members.join(user, room_id)
        elif what == "leave":
            await members.leave(user, room_id)
        elif what == "rename":
            name = {"name": f"room {action[3]}"}
            await world.rooms.sending.set_state(user, room_id, "m.room.name", "", name)
        else:
            change = getattr(members, what)
            await change(user, room_id, users[action[3]].user_id)

    async def _sync(
        self,
        world: World,
        users: dict[str, Requester],
        clients: dict[str, ClientModel],
        options: dict[str, Any],
    ) -> None:
        for name, client in clients.items():
            client.apply(await world.update(users[name], client.since, **options))

    async def _check_same(
        self, world: World, user: Requester, client: ClientModel, options: dict[str, Any]
    ) -> None:
        fresh = ClientModel()
        fresh.apply(await world.update(user, None, **options))
        assert client.state == fresh.state
        assert client.invited == fresh.invited
        assert client.account_data == fresh.account_data
        for room_id, timeline in fresh.timelines.items():
            known = client.timelines[room_id]
            common = min(len(timeline), len(known))
            assert known[-common:] == timeline[-common:]
        again = await world.update(user, client.since, **options)
        assert "rooms" not in again, "who has seen everything is told nothing"
