"""Device lists of remote users who share no room any more, or perhaps none.

Spec: https://spec.matrix.org/v1.19/server-server-api/#device-management
"""

from urllib.parse import quote

from twisted.internet.defer import Deferred

from tests.federation.receiving.device_lists_case import (
    DEVICES,
    LAZY,
    QUERY,
    Late,
    RemoteListsTestCase,
    device_keys,
)
from tests.support.fake_server.fake_http import (
    NOT_FOUND,
    Received,
    always,
)
from tests.support.watcher import eventually


class PartialStateTests(RemoteListsTestCase):
    async def join_partially(self) -> None:
        """Alice joins a large room of the other server, whose members come later."""
        self.there.omits_members = True
        for operation in ("get_room_state_ids", "get_room_state"):
            self.there.answers[operation] = always(NOT_FOUND)
        self.room = self.there.create_room()
        await self.alice.join(self.room.room_id, via=[self.there.name])
        said = self.room.say(self.mallory, "hello")
        await self.there.send(self.here.name, [said])
        self.since = (await self.alice.sync(filter=LAZY))["next_batch"]

    async def test_a_list_is_not_kept_before_the_members_are_known(self) -> None:
        """The user may have left; updates are passed on to clients all the same."""
        await self.join_partially()
        first = await self.found()
        self.devices = {"E": device_keys(self.mallory, "E", "e")}
        await self.send_update(2, 1)

        self.assertEqual((first, await self.found()), ({"D": "a"}, {"E": "e"}))
        self.assertEqual((self.requests(), self.requests(QUERY)), (0, 2))
        changed = (await self.alice.sync(self.since, filter=LAZY))["device_lists"]["changed"]
        self.assertIn(self.mallory, changed)

        for operation in ("get_room_state_ids", "get_room_state"):
            del self.there.answers[operation]
        await self.alice.get(f"/rooms/{quote(self.room.room_id)}/members")
        for _ in range(2):
            self.assertEqual(await self.found(), {"E": "e"})
        self.assertEqual((self.requests(), self.requests(QUERY)), (1, 2))


class UnsharedTests(RemoteListsTestCase):
    async def become_unshared_and_rejoin(self, *, restart: bool = False) -> None:
        """Alice leaves the room, and joins it again after Mallory's devices changed."""
        await self.alice.leave(self.room_id)
        await self.there.wait_for_request(
            "send_transaction", lambda each: "leave" in str(each.body)
        )
        if restart:
            await self.restart()
        self.devices = {"E": device_keys(self.mallory, "E", "e")}
        await self.alice.join(self.room_id, via=[self.there.name])

    async def test_after_a_rejoin_the_list_is_fetched_again(self) -> None:
        """No update came in between."""
        await self.share()
        await self.query()
        await self.become_unshared_and_rejoin()

        self.assertEqual(await self.found(), {"E": "e"})
        self.assertEqual(await self.found(), {"E": "e"})
        self.assertEqual(self.requests(), 2)

    async def test_a_remote_user_who_left_is_not_followed(self) -> None:
        """Their list is deleted, and an update of it is ignored."""
        await self.share()
        await self.query()
        await self.there.send(self.here.name, [self.room.member(self.mallory, "leave")])
        await self.changed()
        await self.send_update(2, 1)

        self.assertEqual(await self.changed(), set())
        await self.there.send(self.here.name, [self.room.member(self.mallory, "join")])
        self.devices = {"E": device_keys(self.mallory, "E", "e")}
        self.assertEqual(await self.found(), {"E": "e"})
        self.assertEqual(self.requests(), 2)

    async def test_another_shared_room_keeps_the_list(self) -> None:
        """Updates come as before."""
        await self.share()
        other = await self.alice.create_room(public=True)
        await self.there.join(self.here.name, other, self.mallory)
        await self.query()

        await self.there.send(self.here.name, [self.room.member(self.mallory, "leave")])
        await self.alice.leave(self.room_id)

        self.assertEqual(await self.found(), {"D": "a"})
        self.assertEqual(self.requests(), 1)

    async def test_another_local_user_keeps_the_list(self) -> None:
        """The last one who leaves ends it."""
        await self.share()
        await self.query()
        bob = await self.here.register("bob")
        await bob.join(self.room_id)

        await self.alice.leave(self.room_id)
        self.assertEqual((await self.query(actor=bob))["failures"], {})
        self.assertEqual(self.requests(), 1)

    async def test_a_rejoin_in_the_same_transaction_does_not_hide_the_leave(self) -> None:
        """Both are handled when the user is a member again."""
        await self.share()
        await self.query()
        leave, join = (self.room.member(self.mallory, each) for each in ("leave", "join"))
        await self.there.send(self.here.name, [leave, join])
        self.devices = {"E": device_keys(self.mallory, "E", "e")}

        async def is_new() -> bool:
            return bool(await self.found() == {"E": "e"})

        await eventually(is_new, "the new list")

    async def test_a_leave_during_a_request_makes_its_list_stale(self) -> None:
        """The response may be from before the leave, and the updates since were not sent."""
        await self.share()
        old = self.list_devices(Received(DEVICES, {"user_id": self.mallory}))
        self.there.answers[DEVICES] = always(Late(old, 1.0))
        waiting = Deferred.fromCoroutine(self.found())
        await self.there.wait_for_request(DEVICES)
        leave, join = (self.room.member(self.mallory, each) for each in ("leave", "join"))
        await self.there.send(self.here.name, [leave, join])
        self.devices = {"E": device_keys(self.mallory, "E", "e")}
        self.there.answers[DEVICES] = self.list_devices

        self.assertEqual(await waiting, {"D": "a"})
        self.assertEqual(await self.found(), {"E": "e"})

    async def test_a_rejoin_at_once_does_not_hide_the_leave(self) -> None:
        """Both are read from the database after a start, as after a crash right after the leave."""
        await self.share()
        await self.query()
        reader = next(
            each for each in self.here.server._parts.readers if each.name == "remote_device_lists"
        )
        await reader.stop()
        leave, join = (self.room.member(self.mallory, each) for each in ("leave", "join"))
        await self.there.send(self.here.name, [leave, join])
        await self.restart()
        self.devices = {"E": device_keys(self.mallory, "E", "e")}

        async def is_new() -> bool:
            return bool(await self.found() == {"E": "e"})

        await eventually(is_new, "the new list")
