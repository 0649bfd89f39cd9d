"""Device lists in updates, where the shards of users have several owners."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

from twisted.trial.unittest import TestCase

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.filters import Filter
from homeserver.rooms.room.user_rooms import MemberRooms
from homeserver.streams.shards import shard_of_user
from homeserver.streams.sync_tokens import SyncToken
from homeserver.sync.sections.device_list_updates import DeviceListUpdate
from homeserver.sync.sections.device_sections import DeviceSections
from homeserver.sync.sync_request import SyncRequest
from homeserver.sync.sync_span import SyncSpan
from homeserver.sync.update import Update
from homeserver.sync.user_change_queues import device_lists_in

ALICE, BOB = "@alice:example.org", "@bob:example.org"


@dataclass(frozen=True)
class AheadInShard:
    """One shard is published up to 20, all others up to 10."""

    shard: int
    base = 10
    even = None

    def at(self, shard: int) -> int:
        return 20 if shard == self.shard else self.base


class SignedBob:
    """The changes of device lists after Alice has signed a key of Bob."""

    async def since(
        self,
        user_id: str,
        token: SyncToken,
        memberships: MemberRooms,
        candidates: Iterable[int],
        *,
        lists_changed: bool,
    ) -> DeviceListUpdate:
        return DeviceListUpdate({BOB}, (), {BOB: 0})


class DeviceSectionsTests(TestCase):
    async def test_a_signature_does_not_come_again(self) -> None:
        """It belongs to the shard of the user who signed: the next token says that this was
        received, or the client would be woken by it at once, again and again.
        """
        shard = shard_of_user(ALICE)
        sections = DeviceSections(cast("Any", None), cast("Any", None), cast("Any", SignedBob()))
        update = Update(SyncSpan(SyncToken(5), AheadInShard(shard)), {})
        request = SyncRequest(Requester(ALICE, "PHONE"), Filter(), False, None, frozenset())

        await sections.add_lists(update, request, {}, {device_lists_in(shard)}, ())

        self.assertEqual(update.span.token, SyncToken(10, ((shard, 20),)))
