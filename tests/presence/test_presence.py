"""Presence on a real database: who is told what, and what outlives a restart."""

from types import SimpleNamespace
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from homeserver.accounts.sessions.requester import Requester
from homeserver.config.settings import PresenceSettings
from homeserver.presence.presence_changed import PresenceChanged
from homeserver.presence.presence_events import PresenceEvents
from homeserver.presence.remote_presence import RemotePresence
from homeserver.presence.tracker import PresenceTracker
from homeserver.protocol.errors import Forbidden, InvalidParam, MatrixError, Unavailable
from homeserver.rooms.ephemeral.receipts import Receipts
from homeserver.rooms.room.changes import StateChanged
from tests.support.postgres import DatabaseTestCase
from tests.sync.sync_server import SyncServer

REMOTE = "@zoe:elsewhere.example"


class PresenceTestCase(DatabaseTestCase):
    """A server with presence, three users, and a room that two of them share."""

    settings = PresenceSettings(idle_after=300.0, offline_after=30.0)

    async def setUp(self) -> None:
        await super().setUp()
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        await self.start()
        self.alice = await self.server.user("alice")
        self.bob = await self.server.user("bob")
        self.stranger = await self.server.user("stranger")
        self.room_id = await self.server.create_room(self.alice)
        await self.server.rooms.memberships.join(self.bob, self.room_id)
        await self.server.log.flush()
        self.entries.clear()  # newcomers are shown, whether they are there or not

    async def clean_up(self) -> None:
        await self.stop()
        await super().clean_up()

    async def start(self) -> None:
        """Start a server on the database, or another one after the first."""
        self.server = await SyncServer.start(self.db)
        rooms = self.server.rooms
        self.tracker = PresenceTracker(
            self.settings, self.db, self.server.log, rooms.names, rooms.user_rooms, self.clock
        )
        self.remote = RemotePresence(self.server.log, rooms.user_rooms, self.clock)
        self.presence = PresenceEvents(
            self.tracker, self.remote, self.db, rooms.registry, rooms.user_rooms
        )
        self.entries: list[PresenceChanged] = []
        self.server.log.subscribe(self.tracker.apply)
        self.server.log.subscribe(self.presence.apply)
        self.server.log.subscribe(
            lambda entries: self.entries.extend(
                entry for entry in entries if isinstance(entry, PresenceChanged)
            )
        )
        await self.tracker.start()

    async def stop(self) -> None:
        self.tracker.stop()
        await self.server.stop()

    async def come(self, caller: Requester, asked: Any = None) -> None:
        await self.tracker.touch(caller.user_id, caller.device_id, asked)

    def go(self, caller: Requester, asked: Any = None) -> None:
        self.tracker.sync_ended(caller.user_id, caller.device_id, asked)

    async def put(self, caller: Requester, state: Any, status_msg: str | None = None) -> None:
        await self.tracker.set(caller, caller.user_id, state, status_msg)

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await self.server.log.flush()

    async def seen_by(self, caller: Requester, since: int | None = None) -> dict[str, Any]:
        """Who is how, as far as a user is told."""
        events = await self.presence.events_since(caller.user_id, since)
        decoded = [msgspec.json.decode(event) for event in events]
        assert all(event["type"] == "m.presence" for event in decoded)
        return {event["sender"].partition(":")[0][1:]: event["content"] for event in decoded}

    async def states_seen_by(self, caller: Requester, since: int | None = None) -> dict[str, str]:
        seen = await self.seen_by(caller, since)
        return {name: content["presence"] for name, content in seen.items()}

    async def refusal(self, kind: type[MatrixError], done: Any) -> None:
        await self.assertFailure(Deferred.fromCoroutine(done), kind)


class PresenceTests(PresenceTestCase):
    async def test_who_shares_a_room_sees_who_comes_online(self) -> None:
        """A friend's dot turns green, and the own one too; strangers see nothing."""
        before = self.server.log.position

        await self.come(self.bob)

        self.assertEqual(await self.states_seen_by(self.alice, before), {"bob": "online"})
        self.assertEqual(await self.states_seen_by(self.bob, before), {"bob": "online"})
        self.assertEqual(await self.states_seen_by(self.stranger, before), {})
        self.assertEqual(self.entries[-1].user_id, self.bob.user_id)
        self.assertEqual(len(self.entries[-1].rooms), 1)

    async def test_event_says_how_somebody_is(self) -> None:
        """Clients show the status message, and how long somebody is away."""
        await self.put(self.bob, "online", "in a meeting")
        await self.pass_time(12)

        self.assertEqual(
            (await self.seen_by(self.alice))["bob"],
            {
                "presence": "online",
                "last_active_ago": 12_000,
                "currently_active": True,
                "status_msg": "in a meeting",
            },
        )

    async def test_polls_of_somebody_who_is_there_are_no_news(self) -> None:
        """Presence costs by its changes, not by the requests of those who are online."""
        await self.come(self.bob)
        count = len(self.entries)

        for _ in range(3):
            self.go(self.bob)
            await self.pass_time(1)
            await self.come(self.bob)
        await self.server.say(self.bob, self.room_id, "hello")
        await self.server.log.flush()

        self.assertEqual(len(self.entries), count)

    async def test_sync_that_asks_for_offline_leaves_no_trace(self) -> None:
        """A bot that reads along need not be shown."""
        await self.come(self.bob, "offline")
        self.go(self.bob, "offline")

        self.assertEqual((len(self.tracker), self.entries), (0, []))

    async def test_newcomer_sees_members_and_is_seen_although_nobody_is_there(self) -> None:
        """A client that shows presence knows of everybody in a room that was just joined."""
        room_id = await self.server.create_room(self.alice)
        await self.server.log.flush()
        before = self.server.log.position

        await self.server.rooms.memberships.join(self.stranger, room_id)
        await self.server.log.flush()

        self.assertEqual(
            await self.states_seen_by(self.stranger, before),
            {"alice": "offline", "stranger": "offline"},
        )
        self.assertEqual(await self.states_seen_by(self.alice, before), {"stranger": "offline"})

    async def test_who_goes_is_offline_after_a_while(self) -> None:
        """A closed laptop does not stay online, and costs no memory."""
        await self.come(self.bob)
        before = self.server.log.position

        self.go(self.bob)
        await self.pass_time(29)
        self.assertEqual(await self.states_seen_by(self.alice, before), {})
        await self.pass_time(2)

        self.assertEqual(await self.states_seen_by(self.alice, before), {"bob": "offline"})
        self.assertEqual(await self.states_seen_by(self.alice), {})
        self.assertEqual(len(self.tracker), 0)

    async def test_idle_user_is_away_until_they_write(self) -> None:
        """Five minutes without a word show, and so does the next word."""
        await self.come(self.bob)
        await self.pass_time(301)
        self.assertEqual(await self.states_seen_by(self.alice), {"bob": "unavailable"})
        before = self.server.log.position

        await self.server.say(self.bob, self.room_id, "back again")
        await self.server.log.flush()

        self.assertEqual(await self.states_seen_by(self.alice, before), {"bob": "online"})

    async def test_reading_is_something_that_a_user_does(self) -> None:
        """Who looks at messages is there, even without answering."""
        receipts = Receipts(self.db, self.server.rooms.registry)
        event_id = await self.server.say(self.alice, self.room_id, "hello?")
        await self.come(self.bob)
        await self.pass_time(301)

        room = await self.server.rooms.registry.get(self.room_id)
        await receipts.move(room, self.bob.user_id, "m.read", event_id, None)
        await self.server.log.flush()

        self.assertEqual(await self.states_seen_by(self.alice), {"bob": "online"})

    async def test_newcomer_and_members_see_each_other(self) -> None:
        """Presence does not begin with the next change after a join."""
        other_room = await self.server.create_room(self.stranger)
        await self.come(self.stranger)
        await self.come(self.bob)
        before = self.server.log.position

        await self.server.rooms.memberships.join(self.bob, other_room)
        await self.server.log.flush()

        self.assertIn("bob", await self.states_seen_by(self.stranger, before))
        self.assertIn("stranger", await self.states_seen_by(self.bob, before))
        self.assertNotIn("stranger", await self.states_seen_by(self.alice, before))

    async def test_who_left_is_seen_no_more(self) -> None:
        """To leave a room is to be left alone by its members."""
        await self.come(self.bob)
        await self.server.rooms.memberships.leave(self.bob, self.room_id)
        before = self.server.log.position

        await self.put(self.bob, "unavailable", "somewhere else")

        self.assertEqual(await self.states_seen_by(self.alice, before), {})
        self.assertEqual(await self.states_seen_by(self.alice), {})

    async def test_presence_can_be_asked_for_by_those_who_share_a_room(self) -> None:
        """An answer to the question, and none for those whom it does not concern."""
        await self.put(self.bob, "online", "here")

        answer = await self.presence.get(self.alice, self.bob.user_id)
        self.assertEqual((answer["presence"], answer["status_msg"]), ("online", "here"))
        self.assertEqual(
            await self.presence.get(self.alice, self.alice.user_id), {"presence": "offline"}
        )
        await self.refusal(Forbidden, self.presence.get(self.stranger, self.bob.user_id))
        await self.refusal(Forbidden, self.presence.get(self.alice, "@nobody:example.org"))

    async def test_last_presence_of_who_is_gone_can_be_asked_for(self) -> None:
        """Since when somebody is away is known even if the server forgot all else of them."""
        await self.put(self.bob, "online", "here")
        await self.pass_time(40)

        answer = await self.presence.get(self.alice, self.bob.user_id)

        self.assertEqual(
            answer, {"presence": "offline", "last_active_ago": 40_000, "status_msg": "here"}
        )

    async def test_presence_is_set_for_oneself_and_in_few_words(self) -> None:
        """Nobody speaks for others, or at length."""
        await self.refusal(
            Forbidden, self.tracker.set(self.alice, self.bob.user_id, "offline", None)
        )
        await self.refusal(InvalidParam, self.put(self.alice, "online", "x" * 2000))
        await self.refusal(InvalidParam, self.put(self.alice, "online", "\0"))

    async def test_restart_changes_nobody_who_comes_back(self) -> None:
        """An update of the server is not seen as everybody's leaving and coming."""
        await self.come(self.bob)
        await self.stop()

        await self.start()
        before = self.server.log.position
        self.assertEqual(await self.states_seen_by(self.alice), {"bob": "online"})
        await self.come(self.bob)
        await self.pass_time(100)

        self.assertEqual((await self.states_seen_by(self.alice, before), self.entries), ({}, []))

    async def test_who_does_not_come_back_after_a_restart_goes_offline(self) -> None:
        """Nobody stays online for ever because the server forgot to watch them."""
        await self.come(self.bob)
        before = self.server.log.position
        await self.stop()

        await self.start()
        await self.pass_time(31)

        self.assertEqual(await self.states_seen_by(self.alice, before), {"bob": "offline"})

    async def test_reader_who_was_away_for_long_learns_who_went(self) -> None:
        """A token from before a restart is as good as any other."""
        await self.come(self.bob)
        before = self.server.log.position
        self.go(self.bob)
        await self.pass_time(31)
        await self.stop()

        await self.start()

        self.assertEqual(await self.states_seen_by(self.alice, before), {"bob": "offline"})
        self.assertEqual(await self.states_seen_by(self.stranger, before), {})

    async def test_sync_goes_on_while_nothing_can_be_written(self) -> None:
        """Presence is late when the database is away, but nobody is locked out by it."""

        def refuse() -> None:
            raise Unavailable("away")

        self.patch(self.server.log, "check_open", refuse)
        await self.come(self.bob)
        self.assertEqual(self.entries, [])

        self.patch(self.server.log, "check_open", lambda: None)
        await self.pass_time(6)

        self.assertEqual(await self.states_seen_by(self.alice), {"bob": "online"})


class DisabledPresenceTests(PresenceTestCase):
    settings = PresenceSettings(enabled=False)

    async def test_nobody_is_shown_where_presence_is_off(self) -> None:
        """An administrator can save the cost, and clients notice nothing but the silence."""
        await self.come(self.bob)
        await self.put(self.bob, "online", "here")
        self.go(self.bob)

        self.assertEqual((await self.seen_by(self.alice), self.entries), ({}, []))
        self.assertEqual(
            await self.presence.get(self.alice, self.bob.user_id), {"presence": "offline"}
        )


class RemotePresenceTests(DatabaseTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.server = await SyncServer.start(self.db)
        self.rooms = OneRoom()
        self.remote = RemotePresence(self.server.log, self.rooms, self.clock)  # type: ignore[arg-type]
        self.entries: list[PresenceChanged] = []
        self.server.log.subscribe(
            lambda entries: self.entries.extend(
                entry for entry in entries if isinstance(entry, PresenceChanged)
            )
        )

    async def clean_up(self) -> None:
        self.remote.stop()
        await self.server.stop()
        await super().clean_up()

    async def test_same_news_is_told_once(self) -> None:
        """Servers repeat themselves; devices are not woken for that."""
        for _ in range(3):
            await self.remote.receive(REMOTE, "online", "at sea", 1_000)

        assert [(entry.state, entry.status_msg) for entry in self.entries] == [("online", "at sea")]
        assert self.entries[0].last_active_ms == 1_700_000_000_000 - 1_000

    async def test_who_is_not_heard_of_goes_offline(self) -> None:
        """A server that has gone away leaves nobody online for ever."""
        await self.remote.receive(REMOTE, "online", None, None)
        self.clock.advance(20 * 60)
        await self.remote.receive(REMOTE, "online", None, None)

        self.clock.advance(20 * 60)
        await self.server.log.flush()
        assert [entry.state for entry in self.entries] == ["online"]

        self.clock.advance(11 * 60)
        await self.server.log.flush()
        assert [entry.state for entry in self.entries] == ["online", "offline"]
        assert self.remote.find(REMOTE) is None

    async def test_strangers_are_none_of_our_business(self) -> None:
        """Nobody fills our memory with users whom no user of ours can see."""
        self.rooms.numbers = []

        await self.remote.receive(REMOTE, "online", None, None)

        assert not self.entries
        assert list(self.remote.present()) == []

    async def test_who_is_told_of_before_they_are_met_is_not_missed(self) -> None:
        """Whoever comes into a room sees at once who is there, though the other server was quicker
        to tell of it than to answer.
        """
        self.rooms.numbers = []
        await self.remote.receive(REMOTE, "online", "at sea", None)

        self.rooms.numbers = [1]
        self.remote.apply([joined(REMOTE)])
        await self.server.log.flush()

        assert [(entry.state, entry.status_msg) for entry in self.entries] == [("online", "at sea")]

    async def test_what_was_told_long_before_is_forgotten(self) -> None:
        """Nobody is shown as online who was when we met a stranger's server once."""
        self.rooms.numbers = []
        await self.remote.receive(REMOTE, "online", None, None)
        self.clock.advance(61)

        self.rooms.numbers = [1]
        self.remote.apply([joined(REMOTE)])
        await self.server.log.flush()

        assert not self.entries


def joined(user_id: str) -> StateChanged:
    """The user is in the room from now on."""
    member: Any = SimpleNamespace(event=SimpleNamespace(content={"membership": "join"}))
    return StateChanged(1, 1, b"", {("m.room.member", user_id): member})


class OneRoom:
    """Users who are all in one room."""

    def __init__(self) -> None:
        self.numbers = [1]

    async def joined(self, user_id: str) -> list[int]:
        return self.numbers
