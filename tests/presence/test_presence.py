"""Presence on a real database: the events that users get, also after a restart."""

from types import SimpleNamespace
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from homeserver.accounts.sessions.requester import Requester
from homeserver.config.settings import PresenceSettings
from homeserver.presence.presence_changed import PresenceChanged
from homeserver.presence.presence_events import PresenceEvents
from homeserver.presence.remote_presence import RETRY_SECONDS, RemotePresence
from homeserver.presence.tracker import PresenceTracker
from homeserver.protocol.errors import Forbidden, InvalidParam, MatrixError, Unavailable
from homeserver.rooms.ephemeral.receipts import Receipts
from homeserver.rooms.room.changes import StateChanged
from homeserver.rooms.room.room_receipts import Receipt
from homeserver.streams.sync_tokens import SyncToken
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
        self.published.clear()  # a join publishes presence, online or not

    async def clean_up(self) -> None:
        await self.stop()
        await super().clean_up()

    async def start(self) -> None:
        """Start a server on the database, or another one after the first."""
        self.server = await SyncServer.start(self.db)
        rooms = self.server.core
        self.tracker = PresenceTracker(
            self.settings, self.db, self.server.log, rooms.names, rooms.user_rooms, self.clock
        )
        self.remote = RemotePresence(self.server.log, rooms.user_rooms, self.clock)
        self.presence = PresenceEvents(
            self.tracker,
            self.remote,
            self.db,
            self.server.log,
            rooms.names,
            rooms.registry,
            rooms.user_rooms,
        )
        self.published: list[PresenceChanged] = []
        self.server.log.subscribe(self.tracker.apply)
        self.server.log.subscribe(self.presence.apply)
        self.server.log.subscribe(
            lambda published: self.published.extend(
                change for change in published if isinstance(change, PresenceChanged)
            )
        )
        await self.tracker.start()

    async def stop(self) -> None:
        self.tracker.stop()
        await self.server.stop()

    async def begin_sync(self, caller: Requester, set_presence: Any = None) -> None:
        await self.tracker.sync_began(caller.user_id, caller.device_id, set_presence)

    def end_sync(self, caller: Requester, set_presence: Any = None) -> None:
        self.tracker.sync_ended(caller.user_id, caller.device_id, set_presence)

    async def put(self, caller: Requester, state: Any, status_msg: str | None = None) -> None:
        await self.tracker.set(caller, caller.user_id, state, status_msg)

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await self.server.log.flush()

    async def seen_by(self, caller: Requester, since: int | None = None) -> dict[str, Any]:
        """The presence contents that a user gets, by localpart."""
        token = None if since is None else SyncToken(since)
        update = await self.presence.events_since(caller.user_id, token)
        decoded = [msgspec.json.decode(event) for event in update.events]
        assert all(event["type"] == "m.presence" for event in decoded)
        return {event["sender"].partition(":")[0][1:]: event["content"] for event in decoded}

    async def states_seen_by(self, caller: Requester, since: int | None = None) -> dict[str, str]:
        seen = await self.seen_by(caller, since)
        return {name: content["presence"] for name, content in seen.items()}

    async def assert_error(self, kind: type[MatrixError], done: Any) -> None:
        await self.assertFailure(Deferred.fromCoroutine(done), kind)


class PresenceTests(PresenceTestCase):
    async def test_users_who_share_a_room_see_who_comes_online(self) -> None:
        """Users in a shared room see it, the user sees it, and strangers do not."""
        before = self.server.log.position

        await self.begin_sync(self.bob)

        self.assertEqual(await self.states_seen_by(self.alice, before), {"bob": "online"})
        self.assertEqual(await self.states_seen_by(self.bob, before), {"bob": "online"})
        self.assertEqual(await self.states_seen_by(self.stranger, before), {})
        self.assertEqual(self.published[-1].user_id, self.bob.user_id)
        self.assertEqual(len(self.published[-1].rooms), 1)

    async def test_event_has_the_status_message_and_last_activity(self) -> None:
        """Clients show the status message, and how long a user has been inactive."""
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

    async def test_polls_of_an_online_user_publish_nothing(self) -> None:
        """The cost of presence grows with its changes, not with the requests of online users."""
        await self.begin_sync(self.bob)
        count = len(self.published)

        for _ in range(3):
            self.end_sync(self.bob)
            await self.pass_time(1)
            await self.begin_sync(self.bob)
        await self.server.say(self.bob, self.room_id, "hello")
        await self.server.log.flush()

        self.assertEqual(len(self.published), count)

    async def test_sync_with_set_presence_offline_publishes_nothing(self) -> None:
        """A bot that only reads need not be shown."""
        await self.begin_sync(self.bob, "offline")
        self.end_sync(self.bob, "offline")

        self.assertEqual((len(self.tracker), self.published), (0, []))

    async def test_offline_newcomer_and_members_get_each_others_presence(self) -> None:
        """A client knows the presence of all members of a room just joined."""
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

    async def test_disconnected_user_is_offline_after_the_timeout(self) -> None:
        """A user who closes the laptop does not stay online, and costs no memory."""
        await self.begin_sync(self.bob)
        before = self.server.log.position

        self.end_sync(self.bob)
        await self.pass_time(29)
        self.assertEqual(await self.states_seen_by(self.alice, before), {})
        await self.pass_time(2)

        self.assertEqual(await self.states_seen_by(self.alice, before), {"bob": "offline"})
        self.assertEqual(await self.states_seen_by(self.alice), {})
        self.assertEqual(len(self.tracker), 0)

    async def test_idle_user_is_unavailable_until_they_write(self) -> None:
        """Members see five minutes of inactivity, and the next message."""
        await self.begin_sync(self.bob)
        await self.pass_time(301)
        self.assertEqual(await self.states_seen_by(self.alice), {"bob": "unavailable"})
        before = self.server.log.position

        await self.pass_time(1)
        await self.server.say(self.bob, self.room_id, "back again")
        await self.server.log.flush()

        self.assertEqual(await self.states_seen_by(self.alice, before), {"bob": "online"})

    async def test_reading_counts_as_activity(self) -> None:
        """A user who reads messages is active, even without replying."""
        core = self.server.core
        receipts = Receipts(self.db, self.server.log, core.names)
        event_id = await self.server.say(self.alice, self.room_id, "hello?")
        await self.begin_sync(self.bob)
        await self.pass_time(301)
        await self.pass_time(1)

        room = await self.server.core.registry.get(self.room_id)
        await receipts.move(room, [Receipt(self.bob.user_id, "m.read", None, event_id, None, 0)])
        await self.server.log.flush()

        self.assertEqual(await self.states_seen_by(self.alice), {"bob": "online"})

    async def test_newcomer_and_members_see_each_other(self) -> None:
        """Presence is shown at a join, not only from the next change on."""
        other_room = await self.server.create_room(self.stranger)
        await self.begin_sync(self.stranger)
        await self.begin_sync(self.bob)
        before = self.server.log.position

        await self.server.rooms.memberships.join(self.bob, other_room)
        await self.server.log.flush()

        self.assertIn("bob", await self.states_seen_by(self.stranger, before))
        self.assertIn("stranger", await self.states_seen_by(self.bob, before))
        self.assertNotIn("stranger", await self.states_seen_by(self.alice, before))

    async def test_members_do_not_see_a_user_who_left(self) -> None:
        """A user who leaves a room is no longer visible to its members."""
        await self.begin_sync(self.bob)
        await self.server.rooms.memberships.leave(self.bob, self.room_id)
        before = self.server.log.position

        await self.pass_time(1)
        await self.put(self.bob, "unavailable", "somewhere else")

        self.assertEqual(await self.states_seen_by(self.alice, before), {})
        self.assertEqual(await self.states_seen_by(self.alice), {})

    async def test_get_presence_needs_a_shared_room(self) -> None:
        """Users in a shared room can get it; others are refused."""
        await self.put(self.bob, "online", "here")

        response = await self.presence.get(self.alice, self.bob.user_id)
        self.assertEqual((response["presence"], response["status_msg"]), ("online", "here"))
        self.assertEqual(
            await self.presence.get(self.alice, self.alice.user_id), {"presence": "offline"}
        )
        await self.assert_error(Forbidden, self.presence.get(self.stranger, self.bob.user_id))
        await self.assert_error(Forbidden, self.presence.get(self.alice, "@nobody:example.org"))

    async def test_get_presence_of_an_offline_user_has_the_last_activity(self) -> None:
        """The last activity is known even if the server no longer tracks the user."""
        await self.put(self.bob, "online", "here")
        await self.pass_time(40)

        response = await self.presence.get(self.alice, self.bob.user_id)

        self.assertEqual(
            response, {"presence": "offline", "last_active_ago": 40_000, "status_msg": "here"}
        )

    async def test_users_set_only_their_own_presence_with_a_short_message(self) -> None:
        """Users cannot set the presence of others, or a long status message."""
        await self.assert_error(
            Forbidden, self.tracker.set(self.alice, self.bob.user_id, "offline", None)
        )
        await self.assert_error(InvalidParam, self.put(self.alice, "online", "x" * 2000))
        await self.assert_error(InvalidParam, self.put(self.alice, "online", "\0"))

    async def test_restart_does_not_change_users_who_reconnect(self) -> None:
        """A restart for an update publishes no change of users who reconnect."""
        await self.begin_sync(self.bob)
        await self.stop()

        await self.start()
        before = self.server.log.position
        self.assertEqual(await self.states_seen_by(self.alice), {"bob": "online"})
        await self.begin_sync(self.bob)
        await self.pass_time(100)

        self.assertEqual((await self.states_seen_by(self.alice, before), self.published), ({}, []))

    async def test_user_who_does_not_reconnect_after_a_restart_goes_offline(self) -> None:
        """No user stays online permanently because of a restart."""
        await self.begin_sync(self.bob)
        before = self.server.log.position
        await self.stop()

        await self.start()
        await self.pass_time(31)

        self.assertEqual(await self.states_seen_by(self.alice, before), {"bob": "offline"})

    async def test_old_token_gets_users_who_went_offline(self) -> None:
        """A token from before a restart gets the changes since."""
        await self.begin_sync(self.bob)
        before = self.server.log.position
        self.end_sync(self.bob)
        await self.pass_time(31)
        await self.stop()

        await self.start()

        self.assertEqual(await self.states_seen_by(self.alice, before), {"bob": "offline"})
        self.assertEqual(await self.states_seen_by(self.stranger, before), {})

    async def test_sync_works_while_nothing_can_be_written(self) -> None:
        """Presence is late while the database is unavailable, but devices can sync."""

        def refuse() -> None:
            raise Unavailable("unavailable")

        self.patch(self.server.log, "check_open", refuse)
        await self.begin_sync(self.bob)
        self.assertEqual(self.published, [])

        self.patch(self.server.log, "check_open", lambda: None)
        await self.pass_time(6)

        self.assertEqual(await self.states_seen_by(self.alice), {"bob": "online"})


class DisabledPresenceTests(PresenceTestCase):
    settings = PresenceSettings(enabled=False)

    async def test_disabled_presence_shows_no_user(self) -> None:
        """An operator can save the cost, and clients simply get no presence."""
        await self.begin_sync(self.bob)
        await self.put(self.bob, "online", "here")
        self.end_sync(self.bob)

        self.assertEqual((await self.seen_by(self.alice), self.published), ({}, []))
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
        self.published: list[PresenceChanged] = []
        self.server.log.subscribe(
            lambda published: self.published.extend(
                change for change in published if isinstance(change, PresenceChanged)
            )
        )

    async def clean_up(self) -> None:
        self.remote.stop()
        await self.server.stop()
        await super().clean_up()

    async def test_repeated_presence_is_published_once(self) -> None:
        """Servers repeat presence; devices are not woken for that."""
        for _ in range(3):
            await self.remote.receive(REMOTE, "online", "at sea", 1_000)

        assert [(each.state, each.status_msg) for each in self.published] == [("online", "at sea")]
        assert self.published[0].last_active_ms == 1_700_000_000_000 - 1_000

    async def test_last_of_several_changes_is_published(self) -> None:
        """A user who flaps on another server is published as here; the EDU does not wait."""
        for number in range(5):
            await self.remote.receive(REMOTE, "online", str(number), None)
        assert [change.status_msg for change in self.published] == ["0"]

        self.clock.advance(1)
        await self.server.log.flush()

        assert [change.status_msg for change in self.published] == ["0", "4"]

    async def test_last_change_survives_an_outage(self) -> None:
        """While nothing can be written it waits."""
        await self.remote.receive(REMOTE, "online", "1", None)
        await self.remote.receive(REMOTE, "offline", None, None)
        self.server.log._stuck = True
        self.clock.advance(1)
        assert [change.state for change in self.published] == ["online"]

        self.server.log._stuck = False
        self.clock.advance(RETRY_SECONDS)
        await self.server.log.flush()

        assert [change.state for change in self.published] == ["online", "offline"]
        assert self.remote.find(REMOTE) is None

    async def test_last_change_survives_a_failure(self) -> None:
        """A user is shown as they are, even if their rooms cannot be read for once."""
        for error, states in ((Unavailable("down"), ["0", "2"]), (RuntimeError(), ["0"])):
            self.published.clear()
            await self.remote.receive(REMOTE, "online", "0", None)
            await self.remote.receive(REMOTE, "online", "1", None)
            await self.remote.receive(REMOTE, "online", "2", None)
            self.rooms.error = error
            self.clock.advance(1)
            self.rooms.error = None
            self.clock.advance(RETRY_SECONDS)
            await self.server.log.flush()
            assert [change.status_msg for change in self.published] == states

            await self.remote.receive(REMOTE, "online", "3", None)
            await self.server.log.flush()
            assert self.published[-1].status_msg == "3"
            await self.remote.receive(REMOTE, "online", None, None)
            self.clock.pump([1, 1, 1])
            await self.server.log.flush()
        assert len(self.flushLoggedErrors(RuntimeError)) == 1

    async def test_user_who_settles_later_goes_offline_without_updates(self) -> None:
        """A user who comes online during an outage does not stay so permanently."""
        await self.remote.receive(REMOTE, "online", None, None)
        await self.remote.receive(REMOTE, "offline", None, None)
        self.rooms.error = Unavailable("down")
        self.clock.advance(1)
        self.rooms.error = None
        await self.remote.receive(REMOTE, "online", "back", None)
        self.clock.advance(RETRY_SECONDS)
        await self.server.log.flush()
        assert self.published[-1].status_msg == "back"

        self.clock.pump([60.0] * 40)
        await self.server.log.flush()

        assert self.published[-1].state == "offline"

    async def test_flapping_users_leave_nothing_behind(self) -> None:
        """A server cannot fill memory with users who come and go."""
        for number in range(20):
            user_id = f"@flapping{number}:remote.example"
            await self.remote.receive(user_id, "online", None, None)
            self.clock.advance(2)
            await self.remote.receive(user_id, "offline", None, None)
            await self.remote.receive(user_id, "online", None, None)
            await self.remote.receive(user_id, "offline", None, None)
            self.clock.advance(2)
        self.clock.pump([60.0] * 40)
        await self.server.log.flush()

        assert list(self.remote.present()) == []
        assert not self.remote._received_at
        assert not self.remote._settling

    async def test_stopping_in_an_outage(self) -> None:
        """A server that stops tries nothing again."""
        await self.remote.receive(REMOTE, "online", "1", None)
        await self.remote.receive(REMOTE, "online", "2", None)
        self.rooms.error = Unavailable("down")
        self.remote.stop()
        self.clock.advance(1)

        assert self.clock.getDelayedCalls() == []

    async def test_remote_user_without_updates_goes_offline(self) -> None:
        """Users of a server that shut down do not stay online permanently."""
        await self.remote.receive(REMOTE, "online", None, None)
        self.clock.advance(20 * 60)
        await self.remote.receive(REMOTE, "online", None, None)

        self.clock.advance(20 * 60)
        await self.server.log.flush()
        assert [change.state for change in self.published] == ["online"]

        self.clock.advance(11 * 60)
        await self.server.log.flush()
        assert [change.state for change in self.published] == ["online", "offline"]
        assert self.remote.find(REMOTE) is None

    async def test_users_without_a_shared_room_are_not_tracked(self) -> None:
        """A remote server cannot fill memory with users whom no local user can see."""
        self.rooms.numbers = []

        await self.remote.receive(REMOTE, "online", None, None)

        assert not self.published
        assert list(self.remote.present()) == []

    async def test_presence_received_before_the_join_is_applied(self) -> None:
        """A user who joins sees presence that arrived before the join response."""
        self.rooms.numbers = []
        await self.remote.receive(REMOTE, "online", "at sea", None)

        self.rooms.numbers = [1]
        self.remote.apply([joined(REMOTE)])
        await self.server.log.flush()

        assert [(each.state, each.status_msg) for each in self.published] == [("online", "at sea")]

    async def test_presence_received_long_before_the_join_is_forgotten(self) -> None:
        """A user is not shown as online because of an old update from their server."""
        self.rooms.numbers = []
        await self.remote.receive(REMOTE, "online", None, None)
        self.clock.advance(61)

        self.rooms.numbers = [1]
        self.remote.apply([joined(REMOTE)])
        await self.server.log.flush()

        assert not self.published


def joined(user_id: str) -> StateChanged:
    """The log entry for a user's join."""
    member: Any = SimpleNamespace(event=SimpleNamespace(content={"membership": "join"}))
    return StateChanged(1, 1, b"", {("m.room.member", user_id): member})


class OneRoom:
    """Memberships in which all users are in one room."""

    def __init__(self) -> None:
        self.numbers = [1]
        self.error: Exception | None = None

    async def joined(self, user_id: str) -> list[int]:
        if self.error is not None:
            raise self.error
        return self.numbers
