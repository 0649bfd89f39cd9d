"""Whose devices a client looks up: after joins with partial state, and in other cases."""

from typing import Any

from homeserver.encryption.changes import UserSignaturesChanged
from tests.rooms.inbound.replica import ALICE, BOB
from tests.support.postgres import DatabaseTestCase
from tests.sync.remote_room import RemoteRoom
from tests.sync.sync_server import SyncServer

DAVE = "@dave:two.example"
LAZY = {"room": {"state": {"lazy_load_members": True}}}


class DeviceListTests(DatabaseTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.remote = RemoteRoom()
        self.server = await SyncServer.start(self.db, self.remote)
        self.remote.use(self.server)
        self.carol = await self.server.user("carol")

    async def changed(self, since: str) -> tuple[list[str], list[str], str]:
        """The users of `changed` and `left` since a token, and the next token."""
        update = await self.server.update(self.carol, since, LAZY)
        lists = update.get("device_lists", {})
        return lists.get("changed", []), lists.get("left", []), update["next_batch"]

    async def since(self) -> str:
        return str((await self.server.update(self.carol))["next_batch"])

    async def test_members_are_looked_up_once_they_are_known(self) -> None:
        """A room that was joined with partial state shows its members later."""
        since = await self.since()
        join = await self.remote.join_with_partial_state(self.carol)
        first, _, since = await self.changed(since)
        second, _, since = await self.changed(since)
        await self.remote.send_members(join)
        third, _, since = await self.changed(since)
        fourth, _, since = await self.changed(since)

        self.assertEqual((first, second, fourth), ([], [], []))
        self.assertEqual(third, sorted([ALICE, BOB]))

    async def test_a_member_who_left_during_partial_state_is_not_followed(self) -> None:
        """Nor is anybody whose join is known only from their event followed twice."""
        since = await self.since()
        join = await self.remote.join_with_partial_state(self.carol)
        since = (await self.changed(since))[2]
        await self.remote.deliver(self.remote.member(DAVE, "join"))
        await self.remote.deliver(self.remote.member(BOB, "leave"))
        first, left, since = await self.changed(since)
        await self.remote.send_members(join)
        second, _, since = await self.changed(since)

        self.assertEqual((first, left), ([DAVE], []))
        self.assertEqual(second, [ALICE, DAVE])

    async def test_a_user_who_leaves_follows_nobody_of_the_room_any_more(self) -> None:
        """Except users with whom they share another room, also after a restart."""
        await self.remote.join(self.carol)
        own = await self.server.create_room(self.carol)
        await self.server.remote.member(own, BOB, "join")
        since = await self.since()
        await self.server.rooms.memberships.leave(self.carol, self.remote.room_id)
        for _ in range(2):
            self.assertEqual((await self.changed(since))[:2], ([], [ALICE]))
            await self.server.stop()
            self.server = await SyncServer.start(self.db, self.remote)

    async def test_an_invited_user_is_looked_up(self) -> None:
        """The inviter encrypts for them before they join; their join is news again."""
        await self.remote.join(self.carol)
        since = await self.since()
        for membership in ("invite", "join"):
            sender = ALICE if membership == "invite" else DAVE
            await self.remote.deliver(self.remote.member(DAVE, membership, sender))
            changed, _, since = await self.changed(since)
            self.assertEqual(changed, [DAVE])

    async def test_a_signature_is_shown_to_its_maker_alone(self) -> None:
        """Carol's other devices learn that she verified Bob, with whom she shares no room."""
        dave = await self.server.user("dave")
        since, other = await self.since(), (await self.server.update(dave))["next_batch"]
        position = self.server.log.next_position()
        await self.server.log.append(
            UserSignaturesChanged(position, self.carol.user_id, (BOB,)), []
        )

        self.assertEqual((await self.changed(since))[0], [BOB])
        update: dict[str, Any] = await self.server.update(dave, other)
        self.assertNotIn("device_lists", update)
