"""Empty responses for endpoints that clients request by themselves."""

from tests.support.server import ServerTestCase


class EmptyResponsesTests(ServerTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.alice = await self.register("alice")

    async def test_settings_pages_find_nothing_instead_of_an_error(self) -> None:
        """A client that lists networks works, and shows none."""
        self.assertEqual(await self.alice.get("/thirdparty/protocols"), {})

    async def test_only_users_are_answered(self) -> None:
        """As on a server that has something to show."""
        for path in ("/thirdparty/protocols",):
            await self.assert_refused("M_MISSING_TOKEN", self.anybody.get(path), 401)
