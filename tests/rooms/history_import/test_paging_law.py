"""The law of paging where a bridge imports old messages, over random histories.

For any imports, before the first message, before any event or at the end, and at any moments: a
client that pages from any token, however old, gets every event on that side of it exactly once, in
the order that the bridge asked for, and what a sync shows joins what its client pages back to.

Spec: https://spec.matrix.org/v1.19/client-server-api/#pagination
"""

import contextlib
from itertools import count
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread, deferToThread

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.errors import MatrixError
from homeserver.rooms.events.imported_events import OldMessage
from homeserver.rooms.history.history import PageRequest
from homeserver.rooms.history_import.history_import import HistoryImport
from homeserver.rooms.history_import.import_request import ImportRequest
from homeserver.storage.accounts.users import User, insert_user
from tests.rooms.history_import.support import BRIDGE, GHOST, find_importer
from tests.support.postgres import DatabaseTestCase
from tests.sync.sync_server import SyncServer

Action = tuple[Any, ...]

sizes = st.sampled_from([1, 2, 3, 30])
picks = st.integers(0, 1_000)
actions = st.one_of(
    st.tuples(st.just("say"), sizes),
    st.tuples(st.just("topic"), st.none()),
    st.tuples(st.just("old"), sizes),
    st.tuples(st.just("old before"), sizes, picks),
    st.tuples(st.just("old at the end"), sizes),
    st.tuples(st.just("look around"), picks),
    st.tuples(st.just("page"), st.sampled_from([1, 4, 60]), st.booleans()),
    st.tuples(st.just("sync"), st.sampled_from([1, 5, 50])),
    st.tuples(st.just("begin"), st.sampled_from([1, 5, 50])),
    st.tuples(st.just("restart"), st.booleans()),
)


class PagingLawWithImportsTests(DatabaseTestCase):
    timeout = 120

    async def setUp(self) -> None:
        await super().setUp()
        self.numbers = count()
        await self.db.run(insert_user, User(BRIDGE.user_id, 0))

    async def test_every_token_leads_to_every_event_once(self) -> None:
        """No page of a client breaks, whatever a bridge imports meanwhile."""

        @settings(
            max_examples=10,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.lists(actions, max_size=14))
        @example([("say", 1), ("begin", 5), ("old", 3), ("sync", 5), ("begin", 50), ("old", 2)])
        # More than a room has in memory.
        @example([("say", 130), ("begin", 50), ("old before", 130, 40), ("sync", 50)])
        @example([("old at the end", 3), ("say", 1), ("sync", 5), ("old", 3), ("begin", 50)])
        def law(plan: list[Action]) -> None:
            blockingCallFromThread(reactor, lambda: Deferred.fromCoroutine(self._play(plan)))

        await deferToThread(law)

    async def _play(self, plan: list[Action]) -> None:
        history = _History(self.db, next(self.numbers))
        await history.begin()
        try:
            for action in plan:
                # Not every event is a place for old messages.
                with contextlib.suppress(MatrixError):
                    await history.act(*action)
            await history.check()
        finally:
            await history.server.stop()


class _History:
    """A room that goes through a plan, with a client of Alice's.

    `order` are the ids of all events in the order that is right, `messages` those that are no
    state, `inserted` those that were not appended. `before` and `after` are tokens,
    with the first event that is after, or before, all that a client pages to from there.
    """

    server: SyncServer
    alice: Requester
    room_id: str

    def __init__(self, db: Any, number: int) -> None:
        self._db = db
        self._name = f"alice{number}"
        self._texts = count()
        self.order: list[str] = []
        self.messages: set[str] = set()
        self.inserted: set[str] = set()
        self.since: str | None = None
        self.before: list[tuple[str, str | None]] = []
        self.after: list[tuple[str, str]] = []

    async def begin(self) -> None:
        await self._start(transcodes=False)
        self.alice = await self.server.user(self._name)
        self.room_id = await self.server.create_room(BRIDGE)
        await self.server.rooms.memberships.join(self.alice, self.room_id)
        self.order = await self.pages(backwards=False, limit=50)

    async def _start(self, *, transcodes: bool) -> None:
        self.server = await SyncServer.start(self._db, transcodes=transcodes)
        core, receipts = self.server.core, self.server.sync.receipts
        self.imports = HistoryImport(self._db, core.registry, receipts, find_importer)

    async def act(self, what: str, *arguments: Any) -> None:
        match what:
            case "say":
                for _ in range(arguments[0]):
                    self._add(await self._say(str(next(self._texts))))
            case "topic":
                content = {"topic": str(next(self._texts))}
                sending = self.server.rooms.sending
                self.order.append(
                    await sending.set_state(BRIDGE, self.room_id, "m.room.topic", "", content)
                )
            case "old":
                first = next((each for each in self.order if each in self.messages), None)
                ids = await self._put(arguments[0])
                assert first is not None
                self._insert(ids, first)
            case "old before":
                point = self.order[arguments[1] % len(self.order)]
                self._insert(await self._put(arguments[0], before=point), point)
            case "old at the end":
                for event_id in await self._put(arguments[0], forward=True):
                    self._add(event_id)
            case "look around":
                await self._look_around(self.order[arguments[0] % len(self.order)])
            case "page":
                await self._page(*arguments)
            case "sync" | "begin":
                await self._sync(arguments[0], None if what == "begin" else self.since)
            case "restart":
                await self.server.stop()
                await self._start(transcodes=arguments[0])

    async def _say(self, text: str) -> str:
        return await self.server.rooms.sending.send_message(
            self.alice, self.room_id, "m.room.message", {"body": text}, text
        )

    def _add(self, event_id: str) -> None:
        self.order.append(event_id)
        self.messages.add(event_id)

    def _insert(self, ids: list[str], point: str) -> None:
        at = self.order.index(point)
        # What was inserted before the same event earlier stays next to it.
        while self.order[at - 1] in self.inserted:
            at -= 1
        self.order[at:at] = ids
        self.messages.update(ids)
        self.inserted.update(ids)

    async def _put(self, size: int, **options: Any) -> list[str]:
        messages = [
            OldMessage("m.room.message", GHOST, {"body": str(next(self._texts))}, 1_000)
            for _ in range(size)
        ]
        request = ImportRequest(messages, **options)
        return await self.imports.insert(BRIDGE, self.room_id, request)

    async def _look_around(self, event_id: str) -> None:
        ask = PageRequest(backwards=True, limit=0)
        history = self.server.rooms.history
        context = await history.context(self.alice.user_id, self.room_id, event_id, ask)
        self.before.append((context.start, event_id))
        self.after.append((context.end, event_id))

    async def _page(self, size: int, backwards: bool) -> None:
        """Read one page, and keep the token at its end."""
        ask = PageRequest(backwards, limit=size)
        page = await self.server.rooms.history.page(self.alice.user_id, self.room_id, ask)
        assert page.end is not None
        last = page.chunk[-1].stored.event.event_id
        if backwards:
            self.before.append((page.end, last))
        else:
            self.after.append((page.end, last))

    async def _sync(self, limit: int, since: str | None) -> None:
        wanted = {"room": {"timeline": {"limit": limit}}}
        response = await self.server.update(self.alice, since, wanted)
        self.since = response["next_batch"]
        section = response.get("rooms", {}).get("join", {}).get(self.room_id)
        if section is not None:
            timeline = section["timeline"]
            ids = [event["event_id"] for event in timeline["events"]]
            assert ids == [each for each in self.order if each in ids], "as in the history"
            if since is None or timeline["limited"]:
                at = self.order.index(ids[0])
                assert self.order[at : at + len(ids)] == ids, "nothing is between them"
            if ids[0] != self.order[0]:  # there the token leads to the end: see `RoomSections`
                self.before.append((timeline["prev_batch"], ids[0]))
            self.after.append((self.since, ids[-1]))

    async def pages(self, *, backwards: bool, limit: int, since: str | None = None) -> list[str]:
        """The ids of all events that Alice pages to, oldest first."""
        found: list[str] = []
        while True:
            ask = PageRequest(backwards, since, limit=limit)
            page = await self.server.rooms.history.page(self.alice.user_id, self.room_id, ask)
            found += [seen.stored.event.event_id for seen in page.chunk]
            since = page.end
            if since is None:
                return found[::-1] if backwards else found

    async def check(self) -> None:
        await self.act("sync", 5)
        await self.act("begin", 5)
        for _ in range(2):
            for limit in (3, 100):
                assert await self.pages(backwards=True, limit=limit) == self.order
                assert await self.pages(backwards=False, limit=limit) == self.order
            for token, event_id in self.before:
                found = await self.pages(backwards=True, limit=40, since=token)
                assert found == self.order[: self.order.index(event_id)]
            for token, event_id in self.after:
                found = await self.pages(backwards=False, limit=40, since=token)
                assert found == self.order[self.order.index(event_id) + 1 :]
            await self.act("restart", True)
