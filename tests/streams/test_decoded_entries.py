"""Servers whose log publishes decoded entries: no part depends on an object of the writer.

These are test cases of other files. All others can be run like this, too: CONTRIBUTING.md has the
command.
"""

from typing import Any

from homeserver.rooms.room.changes import EventAppended
from tests.api.rooms import test_relations
from tests.api.sync import test_sync
from tests.federation.remote import test_join_through_servers
from tests.rooms.inbound import test_receiver_and_restarts
from tests.rooms.support import RoomsTestCase
from tests.sync import test_sync_law_with_forks


class TranscodingTests(RoomsTestCase):
    transcodes = True

    async def test_subscribers_see_other_objects_than_the_writer(self) -> None:
        """Without this the tests below would show nothing."""
        room_id = await self.create_room()
        seen: list[Any] = []
        self.log.subscribe(seen.extend)

        event_id = await self.say(room_id, "hello")

        (entry,) = seen
        assert isinstance(entry, EventAppended)
        assert entry.stored.event.event_id == event_id
        assert entry.stored is not self.events.cached(entry.stored.event_nid)


class DecodedSyncLawTests(test_sync_law_with_forks.SyncLawWithForksTests):
    transcodes = True
    max_examples = 10


class DecodedReceiverTests(test_receiver_and_restarts.StoredTests):
    transcodes = True


class DecodedSyncTests(test_sync.LeftRoomTests):
    transcodes = True


class DecodedThreadsTests(test_relations.ThreadsTests):
    transcodes = True


class DecodedJoiningTests(test_join_through_servers.JoiningTests):
    transcodes = True
