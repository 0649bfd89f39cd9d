"""Events of erased users."""

import msgspec

from homeserver.rooms.history.erased_events import as_erased
from tests.rooms.support import ALICE, RoomsTestCase


class ErasureTests(RoomsTestCase):
    async def test_nothing_that_was_said_is_left(self) -> None:
        """Neither in the event nor beside it, and the event keeps its place and its id."""
        room_id = await self.create_room()
        await self.sending.set_state(ALICE, room_id, "m.room.topic", "", {"topic": "secret one"})
        event_id = await self.sending.set_state(
            ALICE, room_id, "m.room.topic", "", {"topic": "secret two"}
        )
        room = await self.rooms.get(room_id)
        stored = room.timeline[-1]

        shown = msgspec.json.decode(as_erased(stored).client_json(0, room_id=True))

        self.assertEqual((shown["event_id"], shown["content"]), (event_id, {}))
        self.assertNotIn("secret", str(shown))
        self.assertEqual(as_erased(stored).position, stored.position)
        self.assertIn(b"secret two", stored.client_json(0, room_id=True))
