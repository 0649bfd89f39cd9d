"""The law of sliding sync: what a client was sent of a room adds up to what `/sync` sends.

Whatever ranges and subscriptions it moves through, which responses it loses, and when the server is
started again.
"""

import contextlib
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread, deferToThread

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.errors import MatrixError
from homeserver.protocol.sliding_sync.accepted_form import AcceptedBody
from homeserver.protocol.sliding_sync.request import (
    RequestBody,
    SlidingSyncRequest,
    UnknownPos,
)
from homeserver.protocol.sliding_sync.response import Form
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.storage.database.database import Connection
from tests.sync import test_sync_law, test_sync_law_with_forks
from tests.sync.client_model import ClientModel
from tests.sync.sliding.shared_answer_checks import compare_shared_answers
from tests.sync.sliding.sliding_model import LazyModel, SlidingModel
from tests.sync.sync_law import PEOPLE, Action, SyncLawTestCase, Users
from tests.sync.sync_server import SyncServer

EVERYTHING: dict[str, Any] = {"include": [{}]}
LAZILY: dict[str, Any] = {"include": [{}], "lazy_members": True}
NAMES: dict[str, Any] = {"include": [{"type": "m.room.name", "state_key": ""}]}
EXTENSIONS = {"account_data": {"enabled": True}}
TIMELINES = (0, 1, 3, 20)

CLIENT_ACTIONS = ("window", "limit", "state", "open", "close", "one")

people = st.sampled_from(PEOPLE)


def client_actions(rooms: int) -> st.SearchStrategy[Action]:
    """What clients do; most of it changes what one asks for, and is followed by a request.

    The last member of these says whether the response gets lost.
    """
    room_numbers, loses = st.integers(0, rooms - 1), st.sampled_from([False, False, True])
    return st.one_of(
        st.tuples(st.just("remark"), people, room_numbers),
        st.tuples(st.just("crash"), st.just(None)),
        st.tuples(st.just("window"), people, st.integers(-1, 2), loses),
        st.tuples(st.just("limit"), people, st.sampled_from(TIMELINES), loses),
        st.tuples(st.just("state"), people, st.booleans(), loses),
        st.tuples(st.just("open"), people, room_numbers, loses),
        st.tuples(st.just("close"), people, room_numbers, loses),
        st.tuples(st.just("one"), people, loses),
    )


class _Client:
    """A client with what it asks for."""

    def __init__(self, model: SlidingModel, required_state: dict[str, Any]) -> None:
        self.make = type(model)
        self.model = model
        self.required_state = required_state
        self.end = 0
        self.timeline_limit = 3
        self.wants_state = True
        self.opened: set[str] = set()
        self._values: dict[bytes, RequestBody] = {}

    def ask(self, what: str, rooms: list[str], *values: Any) -> None:
        """Ask for something else from now on."""
        if what == "window":
            (self.end,) = values
        elif what == "limit":
            (self.timeline_limit,) = values
        elif what == "state":
            (self.wants_state,) = values
        elif what == "open":
            self.opened.add(rooms[values[0]])
        elif what == "close":
            self.opened.discard(rooms[values[0]])

    def value(self) -> RequestBody:
        """What it asks for: the same object if it asks for the same, as behind the endpoint."""
        encoded = msgspec.json.encode(self._body())
        if encoded not in self._values:
            body = msgspec.json.decode(encoded, type=AcceptedBody)
            self._values[encoded] = body.value(len(encoded))
        return self._values[encoded]

    def _body(self) -> dict[str, Any]:
        room = {
            "timeline_limit": self.timeline_limit,
            "required_state": self.required_state if self.wants_state else NAMES,
        }
        lists = {} if self.end < 0 else {"all": room | {"range": [0, self.end]}}
        opened = {"timeline_limit": 5, "required_state": self.required_state}
        return {
            "lists": lists,
            "room_subscriptions": dict.fromkeys(sorted(self.opened), opened),
            "extensions": EXTENSIONS,
        }


async def _sync(server: SyncServer, user: Requester, client: _Client, *, lose: bool = False) -> Any:
    while True:
        request = SlidingSyncRequest(client.value(), "c", client.model.pos, 0)
        try:
            response = await server.sync.sliding.sliding_sync.sync(user, request, 0)
        except UnknownPos:
            assert client.model.pos is not None
            client.model = client.make()
            continue
        decoded = msgspec.json.decode(response.encode(Form.ACCEPTED))
        if not lose:
            client.model.apply(decoded)
        return decoded


class SlidingLawTestCase(SyncLawTestCase):
    """Plays plans in which clients ask for more, for less, and for something else."""

    starts = 0

    async def check_sliding_law(
        self,
        actions: st.SearchStrategy[Action],
        model: type[SlidingModel],
        required_state: dict[str, Any],
    ) -> None:
        @settings(
            max_examples=self.max_examples,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.lists(actions, max_size=self.max_actions))
        def law(plan: list[Action]) -> None:
            play = self._play_sliding
            blockingCallFromThread(
                reactor, lambda: Deferred.fromCoroutine(play(plan, model, required_state))
            )

        await deferToThread(law)

    async def _start(self) -> SyncServer:
        """A server, of which every other one compares what is shared with what would be made."""
        server = await SyncServer.start(self.db)
        self.starts += 1
        if self.starts % 2:
            compare_shared_answers(server)
        return server

    async def _play_sliding(
        self, plan: list[Action], model: type[SlidingModel], required_state: dict[str, Any]
    ) -> None:
        number = next(self.numbers)
        server = await self._start()
        users = {name: await server.user(f"{name}{number}") for name in PEOPLE}
        for user in users.values():
            await _add_device(server, user)
        rooms = await self.create_rooms(server, users)
        clients = {name: _Client(model(), required_state) for name in PEOPLE}
        for action in plan:
            if action[0] in ("restart", "crash"):
                await server.log.flush()
                await (server.stop() if action[0] == "restart" else _kill(server))
                server = await self._start()
            elif action[0] == "sync":
                for name, client in clients.items():
                    await _sync(server, users[name], client)
            else:
                await self._do(server, users, rooms, clients, action)
        for name, client in clients.items():
            client.end, client.wants_state = 20, True
            await _sync(server, users[name], client)
            again = await _sync(server, users[name], client)
            assert not again["rooms"], "a client that is up to date gets nothing"
            await _check_same(server, users[name], client)
        await server.stop()

    async def _do(
        self,
        server: SyncServer,
        users: Users,
        rooms: list[str],
        clients: dict[str, _Client],
        action: Action,
    ) -> None:
        what, name, *rest = (*action, None) if len(action) == 1 else action
        if what == "remark":
            await server.accounts.account_data.set(
                users[name].user_id, rooms[rest[0]], "remark", {"n": next(self.numbers)}
            )
        elif what in CLIENT_ACTIONS:
            client = clients[name]
            *values, is_lost = rest
            client.ask(what, rooms, *values)
            await _sync(server, users[name], client, lose=is_lost)
        else:
            # The authorisation rules refuse many actions of a random plan.
            with contextlib.suppress(MatrixError):
                await self.act(server, users, rooms, action)


class SlidingSyncLawTests(SlidingLawTestCase):
    timeout = 300
    max_examples = 60
    create_rooms = test_sync_law.SyncLawTests.create_rooms
    act = test_sync_law.SyncLawTests.act
    actions = st.one_of(test_sync_law.actions, client_actions(2))

    async def test_responses_add_up(self) -> None:
        """A client shows the same whichever way it came there."""
        await self.check_sliding_law(self.actions, SlidingModel, EVERYTHING)

    async def test_responses_add_up_with_lazy_loading(self) -> None:
        """The same holds for a client that loads members lazily."""
        await self.check_sliding_law(self.actions, LazyModel, LAZILY)


class SlidingSyncLawWithForksTests(SlidingLawTestCase):
    timeout = 300
    max_examples = 30
    max_actions = 25
    create_rooms = test_sync_law_with_forks.SyncLawWithForksTests.create_rooms
    act = test_sync_law_with_forks.SyncLawWithForksTests.act
    _act_as_remote_user = test_sync_law_with_forks.SyncLawWithForksTests._act_as_remote_user
    _power = test_sync_law_with_forks.SyncLawWithForksTests._power
    actions = st.one_of(
        test_sync_law_with_forks.local,
        test_sync_law_with_forks.remote_messages,
        test_sync_law_with_forks.remote_state,
        client_actions(1),
    )

    async def test_responses_add_up_whatever_the_branches_bring(self) -> None:
        """State that wins, loses or is removed by a resolution is shown as finally resolved."""
        await self.check_sliding_law(self.actions, SlidingModel, EVERYTHING)

    async def test_members_of_branches_add_up_with_lazy_loading(self) -> None:
        """The same holds for a client that loads members lazily."""
        await self.check_sliding_law(self.actions, LazyModel, LAZILY)

    async def test_a_member_whom_a_resolution_removes_is_not_shown_any_more(self) -> None:
        """Not even by a client that knows the member only from a timeline."""
        plan = [
            ("they let in", test_sync_law_with_forks.EVE, 0, "invite"),
            ("window", "alice", 0, False),
            ("they say", test_sync_law_with_forks.EVE, 4, 1),
        ]
        await self._play_sliding(plan, LazyModel, LAZILY)


async def _add_device(server: SyncServer, user: Requester) -> None:
    """Store the user's device: connections of others are not stored."""

    async def insert(db: Connection) -> None:
        await db.execute(
            "INSERT INTO devices (user_id, device_id, created_ms) VALUES (%s, %s, 0)",
            (user.user_id, user.device_id),
        )

    await server.db.run(insert)


async def _kill(server: SyncServer) -> None:
    """End a process without saving its connections; some of them were saved before."""
    await server.readers.stop()
    server.die()


async def _check_same(server: SyncServer, user: Requester, client: _Client) -> None:
    model, fresh = client.model, ClientModel()
    fresh.apply(await server.update(user, None, use_state_after=True))
    shown = {room for room, membership in model.memberships.items() if membership == "join"}
    invited = {room for room, membership in model.memberships.items() if membership == "invite"}
    assert shown == set(fresh.state)
    assert invited == fresh.invited
    for room_id in shown:
        _check_state(model, room_id, fresh.state[room_id])
        known, timeline = model.timelines[room_id], fresh.timelines[room_id]
        common = min(len(timeline), len(known))
        assert known[len(known) - common :] == timeline[len(timeline) - common :]
        room = await server.core.registry.get(room_id)
        assert model.counts[room_id] == (room.joined_count, room.invited_count)
        name = (await server.core.registry.current(room, [("m.room.name", "")])).values()
        assert model.names[room_id] == next((_name(each) for each in name), None)
    own = {key: value for key, value in fresh.account_data.items() if not key[0]}
    assert {key: value for key, value in model.account_data.items() if not key[0]} == own
    for key, value in fresh.account_data.items():
        assert model.account_data[key] == value


def _name(stored: StoredEvent) -> str | None:
    """The name that an event gives; none, if it is redacted."""
    return stored.shown.content.get("name")


def _check_state(model: SlidingModel, room_id: str, state: dict[tuple[str, str], str]) -> None:
    sent = model.state[room_id]
    if not isinstance(model, LazyModel):
        assert sent == state
        return
    assert sent.items() <= state.items(), "no member is out of date"
    others = {key: event_id for key, event_id in state.items() if key[0] != "m.room.member"}
    assert others.items() <= sent.items()
