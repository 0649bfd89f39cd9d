"""Settings of users in rooms that are replaced."""

from typing import Any

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.accounts.user_data.tags import Tags
from homeserver.protocol.push_rules.rule_set import PushRule
from homeserver.push.rules import PushRules
from homeserver.storage.database.database import DatabaseUnavailable
from homeserver.streams.durable_readers import RETRIES
from tests.support.postgres import DatabaseTestCase
from tests.support.reactor import until
from tests.sync.sync_server import SyncServer


class UpgradeMigrationTests(DatabaseTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.server = await SyncServer.start(self.db)
        self.account_data = self.server.accounts.account_data
        self.tags, self.rules = Tags(self.account_data), PushRules(self.account_data)
        self.alice = await self.server.user("alice")
        self.bob = await self.server.user("bob")
        self.old = await self.server.create_room(self.alice)
        await self.join(self.bob, self.old)

    async def clean_up(self) -> None:
        await self.server.stop()
        await super().clean_up()

    async def join(self, user: Requester, room_id: str) -> None:
        """Join, and wait for the migration that follows."""
        await self.server.rooms.memberships.join(user, room_id)
        await self.settled()

    async def settled(self) -> None:
        await self.server.idle()

    async def replace(self, *, confirmed: bool = True) -> str:
        """A room that Alice makes instead of the old one; gives its id."""
        content = {"predecessor": {"room_id": self.old}}
        new = await self.server.create_room(self.alice, creation_content=content)
        if confirmed:
            tombstone = {"body": "We have moved", "replacement_room": new}
            await self.server.rooms.sending.set_state(
                self.alice, self.old, "m.room.tombstone", "", tombstone
            )
        await self.settled()
        return new

    def rule(self, **members: Any) -> PushRule:
        """A rule of Bob's for the old room."""
        return PushRule(rule_id=self.old, default=False, enabled=True, actions=[], **members)

    async def direct_chats(self, user: Requester) -> Any:
        return msgspec.json.decode(
            await self.account_data.content(user.user_id, "m.direct") or b"null"
        )

    async def test_tags_follow_into_the_new_room(self) -> None:
        """A favourite stays a favourite when the room is upgraded."""
        await self.tags.put(self.bob.user_id, self.old, "m.favourite", {"order": 0.5})

        new = await self.replace()
        await self.join(self.bob, new)

        tags = await self.tags.of_room(self.bob.user_id, new)
        self.assertEqual(tags, {"m.favourite": {"order": 0.5}})

    async def test_settings_of_the_creator_follow_at_once(self) -> None:
        """The user who upgrades a room is in the new one before the tombstone is sent."""
        await self.tags.put(self.alice.user_id, self.old, "u.work", {})

        new = await self.replace()

        self.assertEqual(await self.tags.of_room(self.alice.user_id, new), {"u.work": {}})

    async def test_aliases_and_the_directory_entry_follow(self) -> None:
        """After an upgrade on another server, local aliases and the local directory name the new
        room.
        """
        aliases, directory = self.server.rooms.aliases, self.server.rooms.directory
        alias = "#old:example.org"
        new = await self.replace(confirmed=False)
        await aliases.add(self.alice, alias, self.old)
        await directory.set_listed(self.alice, self.old, True)
        tombstone = {"body": "We have moved", "replacement_room": new}
        await self.server.rooms.sending.set_state(
            self.alice, self.old, "m.room.tombstone", "", tombstone
        )

        await self.join(self.bob, new)

        self.assertEqual((await aliases.resolve(alias)).room_id, new)
        self.assertTrue(await directory.is_listed(new))
        self.assertFalse(await directory.is_listed(self.old))

    async def test_room_that_only_claims_a_predecessor_gets_no_aliases(self) -> None:
        """Any user can name any predecessor, and would so take over its aliases."""
        alias = "#old:example.org"
        await self.server.rooms.aliases.add(self.alice, alias, self.old)
        content = {"predecessor": {"room_id": self.old}}

        await self.server.create_room(self.bob, creation_content=content)
        await self.settled()

        self.assertEqual((await self.server.rooms.aliases.resolve(alias)).room_id, self.old)

    async def test_direct_chat_stays_one(self) -> None:
        """The other person's only room does not turn into a group."""
        chats = {self.alice.user_id: [self.old], "@eve:example.org": ["!x:example.org"], "?": 1}
        await self.account_data.set(self.bob.user_id, None, "m.direct", chats)

        new = await self.replace()
        await self.join(self.bob, new)

        self.assertEqual(
            await self.direct_chats(self.bob), chats | {self.alice.user_id: [self.old, new]}
        )
        self.assertIsNone(await self.direct_chats(self.alice))

    async def test_muted_room_stays_muted(self) -> None:
        """Clients mute a room by a rule that has its id, of one of two kinds."""
        condition = {"kind": "event_match", "key": "room_id", "pattern": self.old}
        muted = self.rule(conditions=[condition])
        await self.rules.put(self.bob.user_id, "override", muted)
        quiet = self.rule()
        await self.rules.put(self.bob.user_id, "room", quiet)
        await self.rules.set_enabled(self.bob.user_id, "room", self.old, False)

        new = await self.replace()
        await self.join(self.bob, new)

        rules = await self.rules.of(self.bob.user_id)
        follower = rules.get("override", new)
        self.assertEqual(follower.conditions, [condition | {"pattern": new}])
        self.assertFalse(rules.get("room", new).enabled)
        self.assertEqual(rules.get("override", self.old), muted)

    async def test_room_that_only_claims_a_predecessor_gets_no_settings(self) -> None:
        """A user cannot make their room another user's favourite by naming a famous one."""
        await self.tags.put(self.bob.user_id, self.old, "m.favourite", {})

        new = await self.replace(confirmed=False)
        await self.join(self.bob, new)

        self.assertEqual(await self.tags.of_room(self.bob.user_id, new), {})

    async def test_settings_of_the_new_room_stay(self) -> None:
        """A tag that the user removed does not come back."""
        await self.tags.put(self.bob.user_id, self.old, "m.favourite", {})
        new = await self.replace()
        await self.join(self.bob, new)
        await self.tags.remove(self.bob.user_id, new, "m.favourite")

        await self.server.rooms.memberships.leave(self.bob, new)
        await self.join(self.bob, new)

        self.assertEqual(await self.tags.of_room(self.bob.user_id, new), {})

    async def test_an_outage_delays_a_migration(self) -> None:
        """The settings follow when the database is available again."""
        await self.tags.put(self.bob.user_id, self.old, "m.favourite", {})
        failures: list[Exception] = [DatabaseUnavailable("gone")]

        read = self.account_data.content

        async def fail_once(*key: str) -> bytes | None:
            if failures:
                raise failures.pop()
            return await read(*key)

        new = await self.replace()
        self.patch(self.account_data, "content", fail_once)
        await self.server.rooms.memberships.join(self.bob, new)
        await until(lambda: not failures)
        self.server.readers_clock.advance(RETRIES.pause(1))
        await self.settled()

        self.assertEqual(await self.tags.of_room(self.bob.user_id, new), {"m.favourite": {}})
