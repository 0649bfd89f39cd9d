"""Changes of local users' device lists, as other servers receive them."""

from itertools import pairwise
from typing import Any

from homeserver.storage.encryption.cross_signing import cross_signing_keys_of
from tests.federation.encryption.peers import PeersTestCase
from tests.support.fake_server.fake_http import FAILURE, NOT_FOUND, always
from tests.support.fake_server.server import FakeServer
from tests.support.reactor import until

UPDATE, SIGNING = "m.device_list_update", "m.signing_key_update"
STATE = ("get_room_state_ids", "get_room_state")


def updates_of(server: FakeServer) -> list[Any]:
    """The contents of the updates that a server has accepted."""
    return [each["content"] for each in server.edus if each["edu_type"] == UPDATE]


class DeviceListsOutTests(PeersTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.room = await self.alice.create_room(public=True)
        await self.there.join(self.here.name, self.room, self.bob)

    async def change_signing_keys(self) -> None:
        """Have Alice's cross-signing keys change, as an upload does."""
        parts = self.here.server.parts
        key = b'{"user_id":"%s","usage":["master"],"keys":{"ed25519:abc":"abc"}}'
        async with parts.db.connection() as connection:
            await connection.execute(
                "INSERT INTO cross_signing_keys (user_id, usage, key) VALUES (%s, %s, %s)",
                (self.alice.user_id, "master", key % self.alice.user_id.encode()),
            )
        self.assertEqual(len(await parts.db.run(cross_signing_keys_of, [self.alice.user_id])), 1)
        lists = parts.encryption.device_lists
        await lists.prepare(self.alice.user_id)
        lists.record(self.alice.user_id)

    async def test_changes_are_a_chain(self) -> None:
        """Each names the one before; keys are sent as they were uploaded, without the rest."""
        first = await self.upload(self.alice)
        await self.arrive(1, UPDATE)
        second = await self.upload(self.alice, "new")
        await self.arrive(2, UPDATE)
        name = {"display_name": "Desk"}
        await self.alice.put(f"/devices/{self.alice.device_id}", name)
        contents = await self.arrive(3, UPDATE)

        ids = [each.pop("stream_id") for each in contents]
        self.assertEqual([each.pop("prev_id") for each in contents], [[], ids[:1], ids[1:2]])
        self.assertEqual(ids, sorted(ids))
        own = {"user_id": self.alice.user_id, "device_id": self.alice.device_id}
        self.assertEqual(contents[:2], [{**own, "keys": first}, {**own, "keys": second}])
        self.assertEqual(contents[2], {**own, "keys": second, "device_display_name": "Desk"})

    async def test_devices_that_are_removed_together_are_a_chain(self) -> None:
        """Two log-outs in one commit are two EDUs, each of which says that a device is gone."""
        await self.upload(self.alice)
        await self.arrive(1, UPDATE)
        devices = self.here.server.parts.account_core.devices
        await devices.added(self.alice.user_id, "ONE")
        await self.arrive(2, UPDATE)
        await devices.remove(self.alice.user_id, ["ONE", self.alice.device_id])
        contents = await self.arrive(4, UPDATE)

        self.assertEqual(
            [(each["device_id"], each.get("deleted")) for each in contents[2:]],
            [("ONE", True), (self.alice.device_id, True)],
        )
        for earlier, later in pairwise(contents):
            self.assertEqual(later["prev_id"], [earlier["stream_id"]])

    async def test_cross_signing_keys_leave_no_gap(self) -> None:
        """Both names of their EDU, and then one that continues the chain, so nobody fetches."""
        keys = await self.upload(self.alice)
        (first,) = await self.arrive(1, UPDATE)
        await self.change_signing_keys()
        await self.arrive(2, UPDATE)
        await self.upload(self.alice, "new")
        contents = await self.arrive(3, UPDATE)

        own = {"user_id": self.alice.user_id}
        master = {**own, "usage": ["master"], "keys": {"ed25519:abc": "abc"}}
        expected = [{**own, "master_key": master}]
        self.assertEqual(self.contents(SIGNING), expected)
        self.assertEqual(self.contents("org.matrix.signing_key_update"), expected)
        self.assertEqual(contents[1]["keys"], keys)
        self.assertEqual(contents[1]["prev_id"], [first["stream_id"]])
        self.assertEqual(contents[2]["prev_id"], [contents[1]["stream_id"]])
        types = [edu["edu_type"] for edu in self.there.edus]
        self.assertLess(types.index(SIGNING), types.index(UPDATE, types.index(SIGNING)))

    async def test_an_unavailable_server_gets_the_newest_change(self) -> None:
        """Its `prev_id` shows the gap; meanwhile one row is stored, however much changes."""
        await self.upload(self.alice)
        (first,) = await self.arrive(1, UPDATE)
        arrived = self.answer_transactions(always(FAILURE))
        await self.upload(self.alice, "2")
        await until(lambda: bool(arrived))
        for seed in "345":
            await self.upload(self.alice, seed)
        await self.settle()
        self.assertEqual(await self.waiting("device_list_outbox"), 1)
        await self.restart()
        await self.come_back()
        _, last = await self.arrive(2, UPDATE)

        stored = await self.here.server.parts.encryption.directory.of(self.alice.user_id)
        self.assertEqual(last["keys"], stored.devices[self.alice.device_id].keys)
        self.assertNotEqual(last["prev_id"], [first["stream_id"]])
        await self.settle()
        await until(lambda: not self.here.server.parts.federated_rooms.destinations_with_edus)
        self.assertEqual(await self.waiting("device_list_outbox"), 0)

    async def test_a_server_that_left_gets_nothing(self) -> None:
        """Devices of a user are no business of servers that share no room with the user."""
        await self.upload(self.alice)
        await self.arrive(1, UPDATE)
        await self.alice.leave(self.room)
        await self.upload(self.alice, "new")
        await self.settle()

        self.assertEqual(len(self.contents(UPDATE)), 1)

    async def test_a_server_that_joins_gets_the_lists_of_the_members(self) -> None:
        """Once: not with its second user, and not of users whose rooms it is in already."""
        carol = await self.here.register("carol")
        room = await carol.create_room(public=True)
        await self.upload(carol)
        await self.settle()
        self.assertEqual(self.contents(UPDATE), [])
        await self.alice.join(room)
        await self.upload(self.alice)
        await self.arrive(1, UPDATE)
        await self.there.join(self.here.name, room, self.bob)
        _, update = await self.arrive(2, UPDATE)

        self.assertEqual(update["user_id"], carol.user_id)
        await self.there.join(self.here.name, room, self.there.user("second"))
        await self.settle()
        self.assertEqual(len(self.contents(UPDATE)), 2)

    async def test_a_user_who_joins_is_announced_to_new_servers_only(self) -> None:
        """A server that shares a room with the user already has the list."""
        carol = await self.here.register("carol")
        await self.upload(carol)
        await self.upload(self.alice)
        await self.arrive(1, UPDATE)
        await carol.join(self.room)
        _, update = await self.arrive(2, UPDATE)
        self.assertEqual(update["user_id"], carol.user_id)

        other = await self.fake()
        room = other.create_room()
        await carol.join(room.room_id, via=[other.name])
        await until(lambda: bool(updates_of(other)))
        self.assertEqual([each["user_id"] for each in updates_of(other)], [carol.user_id])
        await self.settle()
        self.assertEqual(len(self.contents(UPDATE)), 2)

    async def test_a_server_whose_members_become_known_gets_the_list(self) -> None:
        """A room of which this server had partial state; those known at the join get it once."""
        await self.upload(self.alice)
        await self.arrive(1, UPDATE)
        host = await self.fake()
        late = await self.fake()
        host.omits_members = True
        for operation in STATE:
            host.answers[operation] = always(NOT_FOUND)
        room = host.create_room()
        room.server_name, room.key = late.name, late.key
        room.member(late.user("dave"), "join")
        room.server_name, room.key = host.name, host.key
        room.servers = {host.name}
        await self.alice.join(room.room_id, via=[host.name])
        await until(lambda: len(updates_of(host)) == 1)
        await self.settle()
        self.assertEqual(late.edus, [])
        for operation in STATE:
            del host.answers[operation]
        await until(lambda: len(updates_of(late)) == 1)

        await self.settle()
        self.assertEqual(len(updates_of(host)), 1)

    async def settle(self) -> None:
        """Wait until the readers have handled everything."""
        parts = self.here.server.parts
        await until(lambda: all(reader.is_idle for reader in parts.readers))
