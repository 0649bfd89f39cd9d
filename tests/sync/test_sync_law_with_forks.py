"""The law of sync where events of other servers arrive on branches of the graph.

An initial sync and any increments after it add up to a fresh initial sync. For clients that want
the state at the end of each timeline that holds whatever happens. Other clients take every state
event of a timeline for the state of the room from then on, and the protocol has no word for "this
one lost": for them the law holds as long as all state that comes on branches wins, which is why
their plans have messages on branches, and state only at the head.

Spec: https://spec.matrix.org/v1.19/client-server-api/#syncing
"""

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
from homeserver.protocol.events import Event
from tests.support.postgres import DatabaseTestCase
from tests.sync.client_model import ClientModel
from tests.sync.sync_server import World

PEOPLE = ("alice", "bob", "carol")
EVE, MALLORY = "@eve:other.example", "@mallory:third.example"
Action = tuple[Any, ...]

people = st.sampled_from(PEOPLE)
strangers = st.sampled_from([EVE, MALLORY])
back = st.integers(0, 8)
local = st.one_of(
    st.tuples(st.just("say"), people),
    st.tuples(st.just("burst"), people, st.integers(8, 15)),
    st.tuples(st.just("join"), people),
    st.tuples(st.just("leave"), people),
    st.tuples(st.just("kick"), people, people),
    st.tuples(st.just("ban"), people, people),
    st.tuples(st.just("unban"), people, people),
    st.tuples(st.just("rename"), people, st.integers(0, 3)),
    st.tuples(st.just("power"), st.integers(0, 100)),
    st.tuples(st.just("sync")),
    st.tuples(st.just("restart")),
)
# How many events back the branch begins; 0 for one that follows all there is.
foreign_messages = st.one_of(
    st.tuples(st.just("they say"), strangers, back, st.integers(1, 3)),
    st.tuples(st.just("they redact"), strangers, back),
    # Something that comes only later, if at all.
    st.tuples(st.just("they redact early"), strangers, back),
    st.tuples(st.just("they catch up"), strangers, back),
)
foreign_state = st.one_of(
    st.tuples(st.just("they rename"), strangers, back, st.integers(0, 3)),
    st.tuples(st.just("they go"), strangers, back, st.sampled_from(["join", "leave"])),
    st.tuples(
        st.just("they move"), strangers, back, people, st.sampled_from(["ban", "leave", "invite"])
    ),
    st.tuples(st.just("they let in"), strangers, back, st.sampled_from(["public", "invite"])),
)
at_the_head = foreign_state.map(lambda action: (*action[:2], 0, *action[3:]))


class SyncLawOfForksTests(DatabaseTestCase):
    timeout = 240

    async def setUp(self) -> None:
        await super().setUp()
        self.numbers = count()
        self.late: list[Event] = []

    async def test_increments_add_up_with_state_after_whatever_the_branches_bring(self) -> None:
        """Members and settings that win or lose a resolution are shown as they are in the end."""
        actions = st.one_of(local, foreign_messages, foreign_state)
        await self._for_all(actions, {"use_state_after": True})

    async def test_increments_add_up_where_branches_bring_messages(self) -> None:
        """Clients that know nothing of `state_after` miss nothing and see nothing twice."""
        await self._for_all(st.one_of(local, foreign_messages, at_the_head), {})

    async def _for_all(self, actions: st.SearchStrategy[Action], options: dict[str, Any]) -> None:
        @settings(
            max_examples=30,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.lists(actions, max_size=25))
        def law(plan: list[Action]) -> None:
            blockingCallFromThread(
                reactor, lambda: Deferred.fromCoroutine(self._play(plan, options))
            )

        await deferToThread(law)

    async def _play(self, plan: list[Action], options: dict[str, Any]) -> None:
        number = next(self.numbers)
        self.late.clear()
        world = await World.start(self.db)
        users = {name: await world.user(f"{name}{number}") for name in PEOPLE}
        room_id = await self._forked_room(world, users)
        clients = {name: ClientModel() for name in PEOPLE}
        for action in plan:
            if action[0] == "restart":
                await world.stop()
                world = await World.start(self.db)
            elif action[0] == "sync":
                await _sync(world, users, clients, options)
            else:
                # The rules refuse much of what a random plan wants.
                with contextlib.suppress(MatrixError):
                    await self._act(world, users, room_id, action)
        await _sync(world, users, clients, options)
        for name, client in clients.items():
            await _check_same(world, users[name], client, options)
        await world.stop()

    async def _forked_room(self, world: World, users: dict[str, Requester]) -> str:
        room_id = await world.create_room(users["alice"])
        await world.rooms.memberships.join(users["bob"], room_id)
        for stranger in (EVE, MALLORY):
            await world.outside.member(room_id, stranger, "join")
        await self._power(world, users["alice"], room_id, 50)
        return room_id

    async def _power(self, world: World, alice: Requester, room_id: str, level: int) -> None:
        levels = {"users": {alice.user_id: 100, EVE: level, MALLORY: 50}}
        await world.rooms.sending.set_state(alice, room_id, "m.room.power_levels", "", levels)

    async def _act(
        self, world: World, users: dict[str, Requester], room_id: str, action: Action
    ) -> None:
        what = action[0]
        if what.startswith("they"):
            await self._act_from_outside(world, users, room_id, action)
            return
        if what == "power":
            await self._power(world, users["alice"], room_id, action[1])
            return
        user = users[action[1]]
        if what == "say":
            await world.say(user, room_id, "hello")
        elif what == "burst":
            for body in range(action[2]):
                await world.say(user, room_id, str(body))
        elif what == "rename":
            name = {"name": f"room {action[2]}"}
            await world.rooms.sending.set_state(user, room_id, "m.room.name", "", name)
        elif what in ("join", "leave"):
            await getattr(world.rooms.memberships, what)(user, room_id)
        else:
            change = getattr(world.rooms.memberships, what)
            await change(user, room_id, users[action[2]].user_id)

    async def _act_from_outside(
        self, world: World, users: dict[str, Requester], room_id: str, action: Action
    ) -> None:
        what, sender, back, *more = action
        outside = world.outside
        after: list[str] | None = None
        room = await world.rooms.registry.get(room_id)
        recent = [stored.event.event_id for stored in room.timeline]
        if back:
            after = [recent[-back]] if back <= len(recent) else recent[:1]
        if what == "they say":
            for body in range(more[0]):
                stored = await outside.say(room_id, sender, str(body), after=after)
                after = [stored.event.event_id]
        elif what == "they redact":
            content = {"redacts": recent[-1]}
            await outside.send(room_id, "m.room.redaction", sender, content, after=after)
        elif what == "they redact early":
            said = await outside.make(room_id, "m.room.message", sender, {"body": "-"}, after=after)
            content = {"redacts": said.event_id}
            await outside.send(room_id, "m.room.redaction", sender, content, after=after)
            self.late.append(said)
        elif what == "they catch up":
            while self.late:
                await outside.receive(self.late.pop())
        elif what == "they rename":
            name = {"name": f"their room {more[0]}"}
            await outside.send(room_id, "m.room.name", sender, name, "", after=after)
        elif what == "they go":
            await outside.member(room_id, sender, more[0], after=after)
        elif what == "they move":
            target = users[more[0]].user_id
            await outside.member(room_id, target, more[1], sender, after=after)
        else:
            rule = {"join_rule": more[0]}
            await outside.send(room_id, "m.room.join_rules", sender, rule, "", after=after)


async def _sync(
    world: World,
    users: dict[str, Requester],
    clients: dict[str, ClientModel],
    options: dict[str, Any],
) -> None:
    for name, client in clients.items():
        client.apply(await world.update(users[name], client.since, **options))


async def _check_same(
    world: World, user: Requester, client: ClientModel, options: dict[str, Any]
) -> None:
    fresh = ClientModel()
    fresh.apply(await world.update(user, None, **options))
    assert client.state == fresh.state
    assert client.invited == fresh.invited
    for room_id, timeline in fresh.timelines.items():
        known = client.timelines[room_id]
        common = min(len(timeline), len(known))
        assert known[-common:] == timeline[-common:]
    again = await world.update(user, client.since, **options)
    assert "rooms" not in again, "who has seen everything is told nothing"
