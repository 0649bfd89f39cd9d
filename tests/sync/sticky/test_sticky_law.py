"""The law of sticky events: syncs at any moments bring all that sticks, each event once."""

import contextlib
from typing import Any

from hypothesis import strategies as st

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.errors import MatrixError
from homeserver.rooms.events.event_draft import Stickiness
from homeserver.sync.sections import sticky_sections
from tests.sync.sync_law import PEOPLE, Action, SyncLawTestCase, Users
from tests.sync.sync_server import SyncServer

HOUR_MS = 3_600_000
SHORT = {"room": {"timeline": {"limit": 1}}}
FILTERS: tuple[Any, ...] = (
    None,
    SHORT,
    {"room": {"timeline": {"types": ["m.room.message"]}}},
    {"room": {"timeline": {"limit": 0}}},
)
# Somebody who is not in the room yet has a token from before all that sticks there.
BEGIN: tuple[Action, ...] = (
    ("sync", "carol", None),
    ("stick", "alice", 0, 3),
    ("burst", "alice", 0, 12),
    ("sync", "carol", None),
    ("sync", "alice", SHORT),
)
people = st.sampled_from(PEOPLE)
room_numbers = st.integers(0, 1)
actions = st.one_of(
    st.tuples(st.just("stick"), people, room_numbers, st.integers(1, 5)),
    st.tuples(st.just("burst"), people, room_numbers, st.integers(1, 12)),
    st.tuples(st.just("redact"), people, room_numbers, st.integers(0, 9)),
    st.tuples(st.just("join"), people, room_numbers),
    st.tuples(st.just("leave"), people, room_numbers),
    st.tuples(st.just("rename"), people, room_numbers),
    st.tuples(st.just("sync"), people, st.sampled_from(FILTERS)),
    st.tuples(st.just("restart"), st.just(None)),
)


class StickyClient:
    """What one client has of sticky events, by room."""

    def __init__(self, *, may_repeat: bool) -> None:
        self.since: str | None = None
        self.seen: dict[str, set[str]] = {}
        self._may_repeat = may_repeat

    def apply(self, response: dict[str, Any]) -> None:
        self.since = response["next_batch"]
        rooms = response.get("rooms", {})
        for room_id in rooms.get("leave", {}):
            self.seen.pop(room_id, None)
        for room_id, section in rooms.get("join", {}).items():
            timeline = section.get("timeline", {}).get("events", [])
            events = section.get("msc4354_sticky", {}).get("events", [])
            shown = [each["event_id"] for each in timeline if "msc4354_sticky" in each]
            beside = [each["event_id"] for each in events]
            assert not {*shown} & {*beside}, "no response has an event twice"
            assert all("msc4354_sticky_duration_ttl_ms" in each["unsigned"] for each in events)
            seen = self.seen.setdefault(room_id, set())
            # Who has left and joined again between two syncs gets all again.
            has_joined = any(each.get("type") == "m.room.member" for each in timeline)
            has_joined |= "state" in section
            if not (self._may_repeat or has_joined):
                assert not seen & {*shown, *beside}, "no event comes twice"
            seen.update(shown, beside)


class StickyLawTests(SyncLawTestCase):
    timeout = 300
    max_examples = 25
    may_repeat = False

    async def test_every_client_gets_all_that_stick(self) -> None:
        """The moments of the syncs, their filters and restarts have no effect."""
        await self.check_law(actions, {})

    async def test_so_do_clients_that_get_a_few_at_a_time(self) -> None:
        """What does not fit into a response is in the next ones."""
        self.may_repeat = True  # what was in a timeline that is ahead of the rest
        self.patch(sticky_sections, "MAX_EVENTS", 2)
        await self.check_law(actions, {})

    async def _play(self, plan: list[Action], options: dict[str, Any]) -> None:
        number = next(self.numbers)
        server = await SyncServer.start(self.db, transcodes=self.transcodes)
        users = {name: await server.user(f"{name}{number}") for name in PEOPLE}
        rooms = [await server.create_room(users[name], version="12") for name in PEOPLE[:2]]
        self.sent: dict[str, list[tuple[str, str]]] = {room: [] for room in rooms}
        self.redacted: set[str] = set()
        clients = {name: StickyClient(may_repeat=self.may_repeat) for name in PEOPLE}
        for action in (*BEGIN, *plan):
            if action[0] == "restart":
                await server.stop()
                server = await SyncServer.start(self.db, transcodes=self.transcodes)
            elif action[0] == "sync":
                client = clients[action[1]]
                client.apply(await server.update(users[action[1]], client.since, action[2]))
            else:
                with contextlib.suppress(MatrixError):
                    await self.act(server, users, rooms, action)
        for name, user in users.items():
            await self._check(server, user, clients[name], rooms)
        await server.stop()

    async def _check(
        self, server: SyncServer, user: Requester, client: StickyClient, rooms: list[str]
    ) -> None:
        """A client that goes on, and one that begins, have the same in the end."""
        fresh = StickyClient(may_repeat=self.may_repeat)
        for each in (client, fresh):
            each.apply(await server.update(user, each.since, SHORT))
            while each.since is not None and "__" in each.since:
                each.apply(await server.update(user, each.since, SHORT))
        for room_id in rooms:
            room = await server.core.registry.get(room_id)
            if room.membership(user.user_id) != "join":
                continue
            sticking = {event_id for event_id, _ in self.sent[room_id]} - self.redacted
            assert sticking <= fresh.seen.get(room_id, set())
            assert sticking <= client.seen.get(room_id, set())
            assert client.seen.get(room_id, set()) <= sticking | self.redacted
            assert fresh.seen.get(room_id, set()) == sticking

    async def act(self, server: SyncServer, users: Users, rooms: list[str], action: Action) -> None:
        what, user, room_id = action[0], users[action[1]], rooms[action[2]]
        sending, members = server.rooms.sending, server.rooms.memberships
        if what == "stick":
            for _ in range(action[3]):
                txn_id = f"s{next(self.numbers)}"
                event_id = await sending.send_message(
                    user, room_id, "m.x", {}, txn_id, Stickiness(HOUR_MS, "msc4354_sticky")
                )
                self.sent[room_id].append((event_id, user.user_id))
        elif what == "burst":
            for body in range(action[3]):
                await server.say(user, room_id, f"{body} {next(self.numbers)}")
        elif what == "redact" and len(self.sent[room_id]) > action[3]:
            event_id = self.sent[room_id][action[3]][0]
            await sending.redact(user, room_id, event_id, {}, f"r{next(self.numbers)}")
            self.redacted.add(event_id)
        elif what == "join":
            await members.join(user, room_id)
        elif what == "leave":
            await members.leave(user, room_id)
        elif what == "rename":
            content = {"membership": "join", "displayname": f"{next(self.numbers)}"}
            await sending.set_state(user, room_id, "m.room.member", user.user_id, content)


class DecodedStickyLawTests(StickyLawTests):
    """The same in a process that has only the entries of the log."""

    transcodes = True
    max_examples = 8
