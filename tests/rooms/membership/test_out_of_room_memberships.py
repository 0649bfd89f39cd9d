"""Memberships in rooms that this server is not in: a repeated event is stored once."""

from twisted.internet.defer import Deferred, gatherResults

from homeserver.protocol.signing.signatures import SigningKey
from homeserver.rooms.membership.out_of_room_memberships import OutOfRoomMemberships
from tests.rooms.support import ALICE, RoomsTestCase
from tests.support.room_graph import RoomGraph


class OutOfRoomMembershipsTests(RoomsTestCase):
    async def test_invite_that_comes_twice_at_once_is_stored_once(self) -> None:
        """A server that repeats itself must not make the log store one event at two numbers."""
        out_of_room = OutOfRoomMemberships(self.db, self.log, self.names, self.events, self.rooms)
        key = SigningKey.from_seed("1", bytes(32))
        graph = RoomGraph.create("11", "@eve:far.example", "far.example", key)
        invite = graph.member(ALICE.user_id, "invite", sender="@eve:far.example")

        taking = [
            Deferred.fromCoroutine(out_of_room.invited(invite, "far.example", [])) for _ in range(3)
        ]
        await gatherResults(taking)

        room = await self.names.find_nid(invite.room_id)
        assert room is not None
        assert len(await out_of_room.pending(room, ALICE.user_id)) == 1
        assert not self.log.broken.called
