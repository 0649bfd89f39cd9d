"""Upgrades of rooms with unusual state from other servers."""

from homeserver.rooms.lifecycle.upgrade import RoomUpgrades
from tests.rooms.inbound.remote_events import RemoteEvents
from tests.rooms.support import ALICE, NoProfiles, RoomsTestCase

EVE = "@eve:other.example"


class UpgradeTests(RoomsTestCase):
    async def test_new_room_gets_what_is_valid_there(self) -> None:
        """A ban of an invalid user id must not keep a room in its old version permanently."""
        remote_events = RemoteEvents(self.rooms, self.storage)
        old = await self.create_room(version="6", name="Tea")
        await remote_events.member(old, EVE, "join")
        levels = {"users": {ALICE.user_id: 100, EVE: 60}}
        await self.sending.set_state(ALICE, old, "m.room.power_levels", "", levels)
        for target in ("nobody:other.example", "@a b:other example", "@bad:other.example"):
            stored = await remote_events.member(old, target, "ban", EVE)
            assert stored.status.rejected is None
        for key in ("!child:other.example", "!nul\0:other.example"):
            await remote_events.send(old, "m.space.child", EVE, {"via": ["other.example"]}, key)
        await remote_events.send(old, "m.room.join_rules", EVE, {"join_rule": 5}, "")
        await remote_events.send(old, "m.room.topic", EVE, {"topic": 64_900 * "x"}, "")

        upgrades = RoomUpgrades(self.log, self.names, self.rooms, NoProfiles())
        new = await self.rooms.get(await upgrades.upgrade(ALICE, old, "12"))

        assert new.version.identifier == "12"
        assert new.members == {ALICE.user_id: "join", "@bad:other.example": "ban"}
        assert ("m.space.child", "!child:other.example") in new.state
        assert ("m.room.name", "") in new.state
        assert ("m.room.join_rules", "") not in new.state
