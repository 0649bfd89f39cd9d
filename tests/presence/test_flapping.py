"""Flapping presence: the first change is published at once, and the last state in any case."""

from typing import Any

from twisted.internet.defer import Deferred

from homeserver.accounts.sessions.requester import Requester
from homeserver.client_api.ephemeral.presence import PresenceApi, SetPresence
from tests.presence.test_presence import PresenceTestCase


class FlappingTests(PresenceTestCase):
    """A change is published at once; what follows within a second is published as it ends."""

    def states_of(self, user: Requester) -> list[tuple[str, str | None]]:
        """What was published of a user."""
        return [
            (change.state, change.status_msg)
            for change in self.published
            if change.user_id == user.user_id
        ]

    def start_put(self, caller: Requester, state: Any, status_msg: str | None = None) -> Any:
        return Deferred.fromCoroutine(self.put(caller, state, status_msg))

    async def test_last_of_several_changes_is_published(self) -> None:
        """The first is not delayed, and each request is acknowledged once its outcome is known."""
        await self.put(self.bob, "online", "1")
        requests = [self.start_put(self.bob, "online", str(number)) for number in range(2, 9)]
        await self.server.log.flush()
        assert self.states_of(self.bob) == [("online", "1")]
        assert not any(request.called for request in requests)

        await self.pass_time(1)

        assert self.states_of(self.bob) == [("online", "1"), ("online", "8")]
        assert all(request.called for request in requests)
        assert (await self.seen_by(self.alice))["bob"]["status_msg"] == "8"
        row = await self.presence.get(self.alice, self.bob.user_id)
        assert row["status_msg"] == "8"

    async def test_change_that_was_taken_back_is_not_published(self) -> None:
        """Nobody is woken for nothing."""
        await self.put(self.bob, "online", "here")
        self.start_put(self.bob, "unavailable", "away")
        self.start_put(self.bob, "online", "here")

        await self.pass_time(1)

        assert self.states_of(self.bob) == [("online", "here")]

    async def test_an_empty_status_message_is_none(self) -> None:
        """A client that says so after its first sync wakes nobody, and does not wait for it."""
        await self.begin_sync(self.bob)
        api = PresenceApi(self.tracker, self.presence)
        request = api.set_presence(self.bob, self.bob.user_id, SetPresence("online", ""))

        assert Deferred.fromCoroutine(request).called
        assert self.states_of(self.bob) == [("online", None)]

    async def test_user_who_keeps_flapping_is_published_twice_a_second_at_most(self) -> None:
        """The cost is bounded, however long a broken client goes on."""
        await self.put(self.bob, "online", "first")
        for number in range(50):
            self.start_put(self.bob, "online", str(number))
            await self.pass_time(0.1)
        await self.pass_time(1)

        published = self.states_of(self.bob)
        assert len(published) <= 12
        assert published[-1] == ("online", "49")

    async def test_users_do_not_delay_each_other(self) -> None:
        """Only those who flap wait."""
        await self.put(self.bob, "online", "1")
        self.start_put(self.bob, "online", "2")

        await self.put(self.alice, "online", "1")

        assert self.states_of(self.alice) == [("online", "1")]

    async def test_sync_does_not_wait(self) -> None:
        """A long poll that changes the presence again is served at once."""
        await self.begin_sync(self.bob, "online")
        self.end_sync(self.bob, "online")

        await self.begin_sync(self.bob, "unavailable")

        assert self.states_of(self.bob) == [("online", None)]
        await self.pass_time(1)
        assert self.states_of(self.bob) == [("online", None), ("unavailable", None)]

    async def test_room_that_is_joined_meanwhile_has_the_last_state(self) -> None:
        """A newcomer is shown as everywhere else, and the others get the last state, too."""
        room_id = await self.server.create_room(self.stranger)
        await self.put(self.bob, "online", "1")
        self.start_put(self.bob, "online", "2")
        await self.server.rooms.memberships.join(self.bob, room_id)
        await self.server.log.flush()
        before = self.server.log.position

        await self.pass_time(1)

        for watcher in (self.alice, self.stranger):
            assert (await self.seen_by(watcher, before))["bob"]["status_msg"] == "2"

    async def test_room_that_is_left_meanwhile_does_not_get_it(self) -> None:
        """Members see nothing of a user who left."""
        await self.put(self.bob, "online", "1")
        self.start_put(self.bob, "online", "2")
        await self.server.rooms.memberships.leave(self.bob, self.room_id)
        before = self.server.log.position

        await self.pass_time(1)

        assert await self.seen_by(self.alice, before) == {}
        assert (await self.seen_by(self.bob, before))["bob"]["status_msg"] == "2"
