"""The law of sync where two owners write, whose clocks differ, and are heard of in any order."""

import contextlib
from collections.abc import Coroutine
from itertools import count
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import blockingCallFromThread, deferToThread

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.errors import MatrixError
from homeserver.rooms.events.event_draft import Stickiness
from homeserver.streams.shards import SHARDS
from homeserver.streams.sync_tokens import parse_sync_token
from tests.support.postgres import DatabaseTestCase
from tests.sync.client_model import ClientModel
from tests.sync.sync_server import NoBackfill, SyncServer
from tests.sync.two_owners import OWNERS, TwoOwners, owner_of_room, owner_of_user, run_as

PEOPLE = ("alice", "bob")
ROOMS = 4
HOUR = 3600.0
WANTED = {"profile_fields": {"ids": ["status"]}}
HOUR_MS = 3_600_000
Action = tuple[Any, ...]

people = st.sampled_from(PEOPLE)
room_numbers = st.integers(0, ROOMS - 1)
owner_numbers = st.integers(0, OWNERS - 1)
actions = st.one_of(
    st.tuples(st.just("say"), people, room_numbers),
    st.tuples(st.just("say"), people, room_numbers),
    st.tuples(st.just("stick"), people, room_numbers),
    st.tuples(st.just("burst"), people, room_numbers, st.integers(8, 15)),
    st.tuples(st.just("join"), people, room_numbers),
    st.tuples(st.just("leave"), people, room_numbers),
    st.tuples(st.just("rename"), people, room_numbers, st.integers(0, 3)),
    st.tuples(st.just("read"), people, room_numbers),
    st.tuples(st.just("type"), people, room_numbers),
    st.tuples(st.just("note"), people, st.integers(0, 3)),
    st.tuples(st.just("status"), people, st.booleans()),
    st.tuples(st.just("hold"), owner_numbers),
    st.tuples(st.just("hold"), owner_numbers),
    st.tuples(st.just("release"), owner_numbers),
    st.tuples(st.just("beat"), owner_numbers),
    st.tuples(st.just("jump"), owner_numbers, st.sampled_from([HOUR, -HOUR, 0.7, -0.7])),
    st.tuples(st.just("sync"), people),
    st.tuples(st.just("sync"), people),
    st.tuples(st.just("reconnect")),
    st.tuples(st.just("restart")),
)


class World:
    """A server of two owners, with users, their clients, and what is still under way."""

    def __init__(self, test: "TwoOwnersLawTests", number: int) -> None:
        self.db = test.db
        self.number = number
        self.numbers = count()
        self.users: dict[str, Requester] = {}
        self.rooms: list[str] = []
        self.owners: dict[str, int] = {}  # by room
        self.clients = {name: ClientModel() for name in PEOPLE}
        self.under_way: list[Deferred[Any]] = []
        self.newest: dict[str, list[str]] = {}

    async def start(self) -> None:
        self.log = await TwoOwners.open(self.db)
        log: Any = self.log
        self.server = SyncServer(self.db, log, NoBackfill())
        await self.server.core.sticky_events.load()

    async def populate(self) -> None:
        for name in PEOPLE:
            self.users[name] = await self.server.user(f"{name}{self.number}")
        while {self.owners[each] for each in self.rooms[:ROOMS]} != set(range(OWNERS)):
            room_id = await self.server.create_room(self.users["alice"])
            room = await self.server.core.registry.get(room_id)
            self.owners[room_id] = owner_of_room(room.room_nid)
            self.rooms.insert(len(self.rooms) % 2 and ROOMS, room_id)
        while len(self.rooms) < ROOMS:
            self.rooms.append(self.rooms[0])
        self.log.take_over()

    async def do(self, action: Action) -> None:
        what, *rest = action
        if what == "sync":
            await self.sync(rest[0])
        elif what == "restart":
            await self.stop()
            await self.start()
        elif what == "reconnect":
            # Another worker serves the client from now on: it knows nothing of what was before.
            queues = self.server.sync.change_queues
            for user in self.users.values():
                if (queue := queues._queues.pop(user.user_id)) is not None:
                    queues._unfollow_all(queue)
        elif what in ("hold", "release", "beat"):
            getattr(self.log.owners[rest[0]], what)()
        elif what == "jump":
            self.log.owners[rest[0]].clock.ahead += rest[1]
        else:
            await self._begin(what, self.users[rest[0]], *rest[1:])

    async def _begin(self, what: str, user: Requester, where: int, *rest: Any) -> None:
        """Begin what a user does; wait until it is done, or its facts wait to be published."""
        if what in ("note", "status"):
            owner = owner_of_user(user.user_id)
            action = (self._note if what == "note" else self._set_status)(user, where)
        else:
            owner = self.owners[self.rooms[where]]
            action = self._act(what, user, self.rooms[where], *rest)
        running = Deferred.fromCoroutine(run_as(owner, _tried(action)))
        self.under_way.append(running)
        before = self.log.owners[owner].unpublished
        await _until(lambda: running.called or self.log.owners[owner].unpublished > before)

    async def _note(self, user: Requester, number: int) -> None:
        content = {"n": next(self.numbers)}
        await self.server.accounts.account_data.set(user.user_id, None, f"note{number}", content)

    async def _set_status(self, user: Requester, is_set: int) -> None:
        value = b"%d" % next(self.numbers) if is_set else None
        await self.server.accounts.local_profiles.write(user.user_id, "status", value)

    async def _act(self, what: str, user: Requester, room_id: str, *rest: Any) -> None:
        server, members = self.server, self.server.rooms.memberships
        if what == "say":
            await server.say(user, room_id, "hello")
        elif what == "burst":
            for body in range(rest[0]):
                await server.say(user, room_id, str(body))
        elif what == "stick":
            txn_id = f"sticky{next(self.numbers)}"
            sticky = Stickiness(HOUR_MS, "msc4354_sticky")
            await server.rooms.sending.send_message(user, room_id, "m.x", {}, txn_id, sticky)
        elif what == "rename":
            name = {"name": f"room {rest[0]}"}
            await server.rooms.sending.set_state(user, room_id, "m.room.name", "", name)
        elif what == "read":
            room = await server.core.registry.get(room_id)
            newest = room.timeline[-1].event.event_id
            await server.sync.markers.mark(user, room_id, "m.read", newest)
        elif what == "type":
            await server.sync.typing.set(user, room_id, user.user_id, True, 100_000)
        else:
            await getattr(members, what)(user, room_id)

    async def sync(self, name: str) -> None:
        client = self.clients[name]
        update = Deferred.fromCoroutine(self.server.update(self.users[name], client.since, WANTED))
        await _until(lambda: update.called)
        if not update.called:
            # It waits for memberships that are stored, and not published yet.
            self.release()
        before = client.since
        client.apply(await update)
        _check_goes_on(before, client.since)

    def release(self) -> None:
        for owner in self.log.owners:
            owner.release()

    async def settle(self) -> None:
        """Have all be published, and known to be."""
        self.release()
        for running in self.under_way:
            await running
        self.under_way = []
        for owner in self.log.owners:
            owner.clock.ahead = 0.0
        self.log.take_over()
        for owner in self.log.owners:
            owner.beat()
        await self.log.flush()

    async def stop(self) -> None:
        await self.settle()
        await self.server.stop()
        await self.log.close(self.db)

    async def check(self) -> None:
        await self.settle()
        for name in PEOPLE:
            client, fresh = self.clients[name], ClientModel()
            await self.sync(name)
            fresh.apply(await self.server.update(self.users[name], None, WANTED))
            assert client.state == fresh.state
            assert client.account_data == fresh.account_data
            assert client.profiles == fresh.profiles
            assert client.sticky == fresh.sticky
            for room_id, timeline in fresh.timelines.items():
                known = client.timelines[room_id]
                common = min(len(timeline), len(known))
                assert known[-common:] == timeline[-common:]
            again = await self.server.update(self.users[name], client.since)
            assert "rooms" not in again, "a client that is up to date gets nothing"


class TwoOwnersLawTests(DatabaseTestCase):
    timeout = 300

    async def test_increments_add_up_whatever_is_published_first(self) -> None:
        """A device that follows its tokens gets each event once, in the order of its room."""
        numbers = count()

        async def play(plan: list[Action]) -> None:
            world = World(self, next(numbers))
            await world.start()
            await world.populate()
            for action in plan:
                await world.do(action)
            await world.check()
            await world.stop()

        @settings(
            max_examples=40,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.lists(actions, max_size=40))
        def law(plan: list[Action]) -> None:
            blockingCallFromThread(reactor, lambda: Deferred.fromCoroutine(play(plan)))

        await deferToThread(law)

    async def test_a_room_left_before_an_initial_sync_is_no_news_after_it(self) -> None:
        """Not even if its owner is ahead of another: the token covers what was left out."""
        world = World(self, 0)
        await world.start()
        await world.populate()
        await world.do(("leave", "alice", 0))
        client, alice = world.clients["alice"], world.users["alice"]
        client.apply(await world.server.update(alice))
        self.assertNotIn("rooms", await world.server.update(alice, client.since))
        await world.stop()


async def _tried(action: Coroutine[Any, Any, None]) -> None:
    # The authorisation rules refuse many actions of a random plan.
    with contextlib.suppress(MatrixError):
        await action


async def _until(condition: Any) -> None:
    """Wait until something is true, or a tenth of a second: it may depend on what is held."""
    for _ in range(100):
        if condition():
            return
        await deferLater(reactor, 0.001)  # type: ignore[arg-type]


def _check_goes_on(before: str | None, after: str | None) -> None:
    """No token takes back what an earlier one of the same client had."""
    if before is None or after is None:
        return
    old, new = parse_sync_token(before), parse_sync_token(after)
    assert all(old.at(shard) <= new.at(shard) for shard in range(SHARDS))
