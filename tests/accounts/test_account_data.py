"""Account data, tags and ignored users."""

from typing import Any

from twisted.internet.defer import gatherResults

from homeserver.accounts.user_data import account_data
from homeserver.accounts.user_data.account_data import (
    AccountData,
    AccountDataChanged,
    ManagedByServer,
    check_client_may_set,
)
from homeserver.accounts.user_data.tags import Tags
from homeserver.protocol.errors import InvalidParam
from tests.accounts.support import ALICE, BOB, AccountsTestCase

ROOM = "!room:example.org"


class AccountDataTests(AccountsTestCase):
    async def test_what_is_stored_can_be_read(self) -> None:
        """A setting made on the phone is there on the laptop, each room with its own."""
        await self.account_data.set(ALICE, None, "org.example", {"a": 1})
        await self.account_data.set(ALICE, ROOM, "org.example", {"a": 2})

        self.assertEqual(await self.account_data.content(ALICE, "org.example"), b'{"a":1}')
        self.assertEqual(await self.account_data.content(ALICE, "org.example", ROOM), b'{"a":2}')
        self.assertIsNone(await self.account_data.content(BOB, "org.example"))
        self.assertEqual(await self.account_data.of_room(ALICE, ROOM), {"org.example": b'{"a":2}'})

    async def test_it_outlives_a_restart(self) -> None:
        """Changes since a token from before the restart are still sent after it."""
        await self.account_data.set(ALICE, None, "org.first", {"a": 1})
        since = self.log.position
        await self.account_data.set(ALICE, None, "org.second", {"a": 1})
        await self.account_data.set(ALICE, None, "org.first", {"a": 2})
        self.build()

        self.assertEqual(
            await self.account_data.changed_since(ALICE, since),
            [(None, "org.second", b'{"a":1}'), (None, "org.first", b'{"a":2}')],
        )

    async def test_it_is_bounded_in_bytes_and_number(self) -> None:
        """A user cannot fill the memory and the disk; existing data can be changed."""
        self.patch(account_data, "MAX_CONTENT_BYTES", 100)
        self.patch(account_data, "MAX_BYTES", 200)
        self.patch(account_data, "MAX_TYPES", 3)

        await self.refused(
            self.account_data.set(ALICE, None, "org.a", {"a": "x" * 100}), "M_TOO_LARGE", 413
        )
        await self.account_data.set(ALICE, None, "org.a", {"a": "x" * 80})
        await self.account_data.set(ALICE, None, "org.b", {"a": "x" * 80})
        await self.refused(
            self.account_data.set(ALICE, ROOM, "org.c", {"a": "x" * 80}),
            "M_USER_LIMIT_EXCEEDED",
            403,
        )
        await self.account_data.set(ALICE, None, "org.b", {})
        await self.account_data.set(ALICE, ROOM, "org.c", {})
        await self.refused(
            self.account_data.set(ALICE, ROOM, "org.d", {}), "M_USER_LIMIT_EXCEEDED", 403
        )
        # What the server writes has bounds of its own.
        await self.account_data.set(ALICE, ROOM, "m.fully_read", {"event_id": "$event"})

    async def test_changes_are_sent_once_in_their_order(self) -> None:
        """A sync gets the changes since its token, each type with its newest content."""
        await self.account_data.set(ALICE, None, "org.first", {"a": 1})
        await self.account_data.set(ALICE, ROOM, "org.room", {})
        since = self.log.position
        await self.account_data.set(ALICE, None, "org.first", {"a": 2})

        everything = await self.account_data.changed_since(ALICE, 0)
        changes = await self.account_data.changed_since(ALICE, since)

        self.assertEqual(everything, [(ROOM, "org.room", b"{}"), (None, "org.first", b'{"a":2}')])
        self.assertEqual(changes, [(None, "org.first", b'{"a":2}')])
        self.assertEqual(await self.account_data.changed_since(ALICE, self.log.position), [])

    async def test_no_change_costs_no_query(self) -> None:
        """Most syncs of most users are about something else."""
        await self.account_data.set(BOB, None, "org.example", {})
        queries = self.db.runs

        self.assertEqual(await self.account_data.changed_since(ALICE, self.log.position), [])

        self.assertEqual(self.db.runs, queries)

    async def test_subscribers_get_the_content_with_the_entry(self) -> None:
        """A sync that waits is answered without reading anything again."""
        entries: list[Any] = []
        self.log.subscribe(entries.extend)

        await self.account_data.set(ALICE, ROOM, "org.example", {"a": 1})

        self.assertEqual(
            entries, [AccountDataChanged(self.log.position, ALICE, ROOM, "org.example", b'{"a":1}')]
        )

    async def test_a_change_while_the_data_is_loaded_is_not_lost(self) -> None:
        """Two devices at once: the last change is what both get."""
        await self.account_data.set(ALICE, None, "org.example", {"a": 1})
        self.build()
        reading = self.started(self.account_data.content(ALICE, "org.example"))
        writing = self.started(self.account_data.set(ALICE, None, "org.example", {"a": 2}))
        await gatherResults([reading, writing])

        self.assertEqual(await self.account_data.content(ALICE, "org.example"), b'{"a":2}')

    async def test_some_types_have_a_default(self) -> None:
        """Push rules exist before a user changes them, and are in the first sync."""
        data = AccountData(self.db, self.log, {"m.push_rules": lambda user: b'{"global":{}}'})

        self.assertEqual(await data.content(ALICE, "m.push_rules"), b'{"global":{}}')
        self.assertEqual(
            await data.changed_since(ALICE, 0), [(None, "m.push_rules", b'{"global":{}}')]
        )

    def test_clients_may_not_set_what_the_server_manages(self) -> None:
        """Read markers and push rules have endpoints of their own."""
        for type_ in ("m.fully_read", "m.push_rules"):
            with self.assertRaises(ManagedByServer) as refused:
                check_client_may_set(type_)
            error = refused.exception
            self.assertEqual((error.status, error.body()["errcode"]), (405, "M_BAD_JSON"))
        for type_ in ("", "x" * 256):
            self.assertRaises(InvalidParam, check_client_may_set, type_)


class IgnoredUsersTests(AccountsTestCase):
    async def test_ignored_users_are_known_at_once(self) -> None:
        """Messages of an ignored user are hidden from the next one on."""
        self.assertEqual(await self.account_data.ignored_users(ALICE), frozenset())

        content = {"ignored_users": {BOB: {}}}
        await self.account_data.set(ALICE, None, "m.ignored_user_list", content)

        self.assertEqual(await self.account_data.ignored_users(ALICE), {BOB})
        self.assertEqual(self.account_data.find_ignored_users(ALICE), {BOB})

    async def test_an_invalid_list_ignores_no_user(self) -> None:
        """Invalid data that a client stored must not break its sync."""
        for content in ({}, {"ignored_users": [BOB]}, {"ignored_users": None}):
            await self.account_data.set(ALICE, None, "m.ignored_user_list", content)
            self.assertEqual(await self.account_data.ignored_users(ALICE), frozenset())

    async def test_users_never_ignore_themselves(self) -> None:
        """A slip in a client's list would take a user's own messages from all their devices."""
        content = {"ignored_users": {ALICE: {}, BOB: {}}}
        await self.account_data.set(ALICE, None, "m.ignored_user_list", content)

        self.assertEqual(await self.account_data.ignored_users(ALICE), {BOB})
        self.build()
        self.assertEqual(await self.account_data.ignored_users(ALICE), {BOB})

    async def test_what_is_not_in_memory_is_said_so(self) -> None:
        """The fast path never guesses."""
        self.assertIsNone(self.account_data.find_ignored_users(ALICE))


class TagsTests(AccountsTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.tags = Tags(self.account_data)

    async def test_rooms_can_be_tagged_and_untagged(self) -> None:
        """Favourites are the same on every device."""
        await self.tags.put(ALICE, ROOM, "m.favourite", {"order": 0.5})
        await self.tags.put(ALICE, ROOM, "u.work", {})
        await self.tags.remove(ALICE, ROOM, "u.work")
        await self.tags.remove(ALICE, ROOM, "u.never")

        self.assertEqual(await self.tags.of_room(ALICE, ROOM), {"m.favourite": {"order": 0.5}})
        self.assertEqual(
            await self.account_data.content(ALICE, "m.tag", ROOM),
            b'{"tags":{"m.favourite":{"order":0.5}}}',
        )

    async def test_tags_that_are_set_at_once_are_all_kept(self) -> None:
        """Each tag is its own request, but all of a room are stored as one value."""
        names = [f"u.{number}" for number in range(5)]

        await gatherResults([self.started(self.tags.put(ALICE, ROOM, n, {})) for n in names])

        self.assertEqual(sorted(await self.tags.of_room(ALICE, ROOM)), names)

    async def test_what_is_no_tag_is_refused(self) -> None:
        """Other clients of the user have to read it."""
        await self.refused(self.tags.put(ALICE, ROOM, "x" * 256, {}), "M_INVALID_PARAM", 400)
        for order in ("first", True, None):
            await self.refused(
                self.tags.put(ALICE, ROOM, "u.work", {"order": order}), "M_BAD_JSON", 400
            )
