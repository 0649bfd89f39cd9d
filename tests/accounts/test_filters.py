"""Filters: stored once, found again, or spelled out."""

from homeserver.accounts.user_data import filters
from homeserver.accounts.user_data.filters import Filters
from tests.accounts.support import ALICE, BOB, AccountsTestCase

LAZY = {"room": {"state": {"lazy_load_members": True}}}


class FiltersTests(AccountsTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        await self.user()
        self.filters = Filters(self.db)

    async def test_a_filter_is_found_by_its_id(self) -> None:
        """A client names its filter instead of sending it with every sync."""
        filter_id = await self.filters.define(ALICE, LAZY)

        found = await self.filters.find(ALICE, filter_id)

        self.assertTrue(found.room.state.lazy_load_members)
        self.assertIs(await self.filters.find(ALICE, filter_id), found)
        self.assertEqual(
            await self.filters.get(ALICE, filter_id),
            b'{"room":{"state":{"lazy_load_members":true}}}',
        )

    async def test_the_same_filter_is_stored_once(self) -> None:
        """Clients define their filter again at every start."""
        first = await self.filters.define(ALICE, LAZY)

        self.assertEqual(await self.filters.define(ALICE, LAZY), first)

    async def test_filters_are_bounded_in_number(self) -> None:
        """A user cannot fill the disk with filters; existing ones stay."""
        self.patch(filters, "MAX_OF_USER", 2)
        first = await self.filters.define(ALICE, LAZY)
        await self.filters.define(ALICE, {})

        await self.refused(
            self.filters.define(ALICE, {"presence": {}}), "M_USER_LIMIT_EXCEEDED", 403
        )

        self.assertEqual(await self.filters.define(ALICE, LAZY), first)
        await self.user("bob")
        await self.filters.define(BOB, {"presence": {}})

    async def test_a_filter_can_be_inline(self) -> None:
        """Short filters are in the request itself."""
        found = await self.filters.find(ALICE, '{"room":{"timeline":{"limit":5}}}')

        self.assertEqual(found.room.timeline.limit, 5)

    async def test_filters_of_others_are_not_found(self) -> None:
        """A filter may name rooms that others need not know of."""
        filter_id = await self.filters.define(ALICE, LAZY)

        await self.refused(self.filters.find(BOB, filter_id), "M_NOT_FOUND", 404)

    async def test_an_invalid_filter_is_refused(self) -> None:
        """The error says what is wrong with any invalid filter."""
        for text in ("", "x", "-1", "1" * 30, "²"):
            await self.refused(self.filters.find(ALICE, text), "M_NOT_FOUND", 404)
        await self.refused(self.filters.find(ALICE, "{"), "M_INVALID_PARAM", 400)
        await self.refused(self.filters.find(ALICE, '{"room": 7}'), "M_BAD_JSON", 400)
        await self.refused(self.filters.define(ALICE, {"room": 7}), "M_BAD_JSON", 400)
