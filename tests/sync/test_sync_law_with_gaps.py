"""The law of sync where this server misses parts of a room, over random histories.

For any missed events, fetched later or not: no timeline crosses a gap, a client's state is the
room's after each response, and a client that pages back from the start of its timeline gets every
event of the room once, each before its prev events.

Spec: https://spec.matrix.org/v1.19/client-server-api/#syncing
"""

import contextlib
from collections.abc import Iterable
from itertools import count
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread, deferToThread

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.errors import MatrixError
from homeserver.protocol.event_kinds import is_plain_redaction
from homeserver.protocol.events import Event
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.history.history import PageRequest
from homeserver.rooms.room.room import Room
from tests.rooms.inbound.replica import ALICE, BOB
from tests.support.postgres import DatabaseTestCase
from tests.support.reactor import pause
from tests.sync.client_model import ClientModel
from tests.sync.remote_room import RemoteRoom
from tests.sync.sync_server import SyncServer

PEOPLE = ("carol", "dave")
MAX_PAGES = 400
Action = tuple[Any, ...]

people = st.sampled_from(PEOPLE)
arrives = st.booleans()
actions = st.one_of(
    st.tuples(st.just("say"), people),
    st.tuples(st.just("burst"), people, st.integers(8, 15)),
    st.tuples(st.just("they say"), arrives),
    st.tuples(st.just("they say much"), st.integers(5, 30)),
    st.tuples(st.just("they receive"), st.none()),
    st.tuples(st.just("they rename"), arrives),
    st.tuples(st.just("they ban"), arrives),
    st.tuples(st.just("they let back in"), arrives),
    st.tuples(st.just("they redact"), arrives, st.integers(1, 20)),
    st.tuples(st.just("it comes late"), st.none()),
    st.tuples(st.just("join"), people),
    st.tuples(st.just("leave"), people),
    st.tuples(st.just("page"), people),
    st.tuples(st.just("generosity"), st.sampled_from([None, 1, 2, 7])),
    st.tuples(st.just("sync"), st.none()),
    st.tuples(st.just("restart"), st.none()),
)


class SyncLawWithGapsTests(DatabaseTestCase):
    timeout = 240

    async def setUp(self) -> None:
        await super().setUp()
        self.numbers = count()

    async def test_no_event_is_lost_and_no_timeline_crosses_a_gap(self) -> None:
        """Clients that fold state and timeline end with the current state of the room."""
        await self._for_all({})

    async def test_no_event_is_lost_and_no_timeline_crosses_a_gap_with_state_after(self) -> None:
        """The same holds for clients that want the state at the end of each timeline."""
        await self._for_all({"use_state_after": True})

    async def _for_all(self, options: dict[str, Any]) -> None:
        @settings(
            max_examples=25,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.lists(actions, max_size=30))
        @example([("they redact", False, 2), ("generosity", 1)])
        @example([("burst", "carol", 15), ("burst", "carol", 15), ("restart", None)])
        @example([("join", "dave"), ("they say", False), ("leave", "carol")])
        def law(plan: list[Action]) -> None:
            blockingCallFromThread(
                reactor, lambda: Deferred.fromCoroutine(self._play(plan, options))
            )

        await deferToThread(law)

    async def _play(self, plan: list[Action], options: dict[str, Any]) -> None:
        history = _History(self.db, next(self.numbers), options)
        await history.begin()
        try:
            for action in plan:
                # The auth rules reject some actions of a random plan.
                with contextlib.suppress(MatrixError):
                    await history.act(action)
            await history.check()
        finally:
            await history.server.stop()


class _History:
    """A room that goes through a plan, with a client of each user of the server under test."""

    server: SyncServer

    def __init__(self, db: Any, number: int, options: dict[str, Any]) -> None:
        self._db = db
        self._number = number
        self._options = options
        self._names = count()
        self.remote = RemoteRoom(room_id=f"!room{number}:one.example")
        self.users: dict[str, Requester] = {}
        self.clients = {name: ClientModel() for name in PEOPLE}
        self.begins: dict[str, str] = {}  # the token to page back from, by user

    async def begin(self) -> None:
        self.server = await SyncServer.start(self._db, self.remote)
        self.remote.use(self.server)
        for name in PEOPLE:
            self.users[name] = await self.server.user(f"{name}{self._number}")
        for _ in range(3):
            self.remote.say("in the beginning")
        await self.remote.join(self.users["carol"])

    async def act(self, action: Action) -> None:
        what, argument, *more = action
        room_id, memberships = self.remote.room_id, self.server.rooms.memberships
        if what in ("say", "burst"):
            for body in range(more[0] if more else 1):
                await self.server.say(self.users[argument], room_id, f"{next(self._names)} {body}")
        elif what == "join":
            await self._join(self.users[argument])
        elif what == "leave":
            await memberships.leave(self.users[argument], room_id)
            # Of a leave and a join in one millisecond, state resolution may choose the leave.
            await pause(0.001)
        elif what == "page":
            if argument in self.begins:
                await self._page(self.users[argument], self.begins[argument], 4)
        elif what == "generosity":
            self.remote.max_backfilled = argument
        elif what == "sync":
            await self.sync()
        elif what == "restart":
            await self.server.stop()
            self.server = await SyncServer.start(self._db, self.remote)
            self.remote.use(self.server)
        elif what == "it comes late":
            room = await self._room()
            for event_id in list(room.backward_extremities)[:1]:
                await self.remote.deliver(self.remote.by_id[event_id])
        else:
            await self._act_remotely(what, argument, more)

    async def _act_remotely(self, what: str, argument: Any, more: list[Any]) -> None:
        remote = self.remote
        if what == "they receive":
            await remote.receive_all_sent()
            return
        if what == "they say much":
            for body in range(argument):
                remote.say(str(body), ALICE)
            return
        if what != "they say":
            # State on branches may lose, and the protocol cannot tell clients that it lost.
            await remote.receive_all_sent()
        if what == "they say":
            event = remote.say("hello", ALICE)
        elif what == "they rename":
            event = remote.rename(f"room {next(self._names)}")
        elif what == "they ban":
            event = remote.member(BOB, "ban", ALICE)
        elif what == "they let back in":
            remote.member(BOB, "leave", ALICE)
            event = remote.member(BOB, "join")
        else:
            target = remote.graph.events[-min(more[0], len(remote.graph.events))]
            if target.state_key is not None:
                return
            event = remote.make("m.room.redaction", ALICE, {"redacts": target.event_id})
        if argument and await self._is_joined():
            await remote.deliver(event)

    async def _join(self, user: Requester) -> None:
        if await self._is_joined():
            await self.server.rooms.memberships.join(user, self.remote.room_id)
        else:
            await self.remote.receive_all_sent()
            await self.remote.join(user)

    async def _is_joined(self) -> bool:
        return bool((await self._room()).joined_servers["example.org"])

    async def _room(self) -> Room:
        return await self.server.core.registry.get(self.remote.room_id)

    async def sync(self) -> None:
        room = await self._room()
        for name, client in self.clients.items():
            response = await self.server.update(self.users[name], client.since, **self._options)
            client.apply(response)
            section = response.get("rooms", {}).get("join", {}).get(room.room_id)
            if section is not None:
                batch = section.get("timeline", {})
                if batch.get("limited") or name not in self.begins:
                    self.begins[name] = batch["prev_batch"]
            if room.membership(self.users[name].user_id) == "join":
                assert client.state[room.room_id] == await self._state(room)
                await self._check_run(room, client.timelines[room.room_id])
            else:
                self.begins.pop(name, None)

    async def _state(self, room: Room) -> dict[tuple[str, str], str]:
        numbers = dict(room.state)
        numbers |= {("m.room.member", user): each for user, each in room.member_events.items()}
        events = await self.server.core.events.load(room.version, list(numbers.values()))
        return {key: events[number].event.event_id for key, number in numbers.items()}

    async def _check_run(self, room: Room, run: list[str]) -> None:
        """Check that the prev events of a timeline's events are in it, or before it."""
        await self.remote.receive_all_sent()
        shown = await self._shown(room)
        first = shown[run[0]].position or 0
        earlier = {key for key, stored in shown.items() if 0 < (stored.position or 0) <= first}
        known = {*earlier, *run, *self._ancestors(earlier)}
        for event_id in self._ancestors(run) - known:
            stored = await self._find(room, event_id)
            assert stored is not None, "a timeline crosses a gap"
            assert _is_hidden(stored), "an accepted event is shown"

    async def _shown(self, room: Room) -> dict[str, StoredEvent]:
        """The events that are in the timeline, of all events."""
        found = await self.server.core.events.find_many(
            room.version, room.room_nid, room.room_id, list(self.remote.by_id)
        )
        return {key: each for key, each in found.items() if (each.position or 0) > 0}

    async def _find(self, room: Room, event_id: str) -> StoredEvent | None:
        events = self.server.core.events
        return await events.find(room.version, room.room_nid, room.room_id, event_id)

    def _ancestors(self, event_ids: Iterable[str]) -> set[str]:
        found: set[str] = set()
        waiting = list(event_ids)
        while waiting:
            for event_id in self.remote.by_id[waiting.pop()].prev_event_ids:
                if event_id not in found:
                    found.add(event_id)
                    waiting.append(event_id)
        return found

    async def _page(
        self, user: Requester, since: str | None, pages: int = MAX_PAGES
    ) -> list[Event]:
        found: list[Event] = []
        for _ in range(pages):
            request = PageRequest(backwards=True, since=since, limit=5)
            page = await self.server.rooms.history.page(user.user_id, self.remote.room_id, request)
            found += [seen.stored.event for seen in page.chunk]
            since = page.end
            if since is None:
                break
        else:
            assert pages < MAX_PAGES, "the pages have no end"
        return found

    async def check(self) -> None:
        """Check that every event is reached from the start of the client's timeline."""
        if not await self._is_joined():
            return
        await self._join(self.users["carol"])
        await self.remote.receive_all_sent()
        await self.remote.deliver(self.remote.say("the end", ALICE))
        await self.sync()
        carol, room_id = self.users["carol"], self.remote.room_id
        paged = [event.event_id for event in await self._page(carol, self.begins["carol"])]
        # Redactions of missed events are shown once these are fetched.
        begin = self.begins["carol"]
        await self.sync()
        assert self.begins["carol"] == begin
        run = self.clients["carol"].timelines[room_id]
        assert len({*run, *paged}) == len(run) + len(paged), "no event comes twice"
        room = await self._room()
        stored = {event_id: await self._find(room, event_id) for event_id in self.remote.by_id}
        hidden = {key for key, each in stored.items() if each is not None and _is_hidden(each)}
        # A redaction that is fetched before its target is placed above it when that page has been
        # read; the target is shown redacted, and a client that pages again gets both.
        late = self.remote.by_id.keys() - hidden - {*run, *paged}
        assert all(_is_past_redaction(stored[event_id]) for event_id in late)
        again = {event.event_id for event in await self._page(carol, self.begins["carol"])}
        assert {*run, *again} == self.remote.by_id.keys() - hidden
        place = {event_id: index for index, event_id in enumerate(paged)}
        for event_id, index in place.items():
            for prev in self.remote.by_id[event_id].prev_event_ids:
                assert place.get(prev, len(paged)) > index, "prev events come later"
        for each in stored.values():
            assert each is not None
            truth = self.remote.graph.stored(each.event)
            assert _is_hidden(each) or (each.redaction is None) == (truth.redaction is None)


def _is_past_redaction(stored: StoredEvent | None) -> bool:
    """Whether an event was backfilled and redacts another."""
    return stored is not None and is_plain_redaction(stored.event) and (stored.position or 0) < 0


def _is_hidden(stored: StoredEvent) -> bool:
    """Whether clients are not shown an event: it is not accepted, or redacts an unknown event."""
    return stored.position is None and not stored.status.is_outlier
