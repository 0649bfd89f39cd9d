"""The authorisation code grant, from the registration of a client to its tokens."""

from tests.api.oauth.support import OAuthTestCase, outcome_of


class AuthorizationCodeTests(OAuthTestCase):
    async def test_a_client_is_let_in(self) -> None:
        """A user signs in to a client on a page of the server, and it works as the user."""
        page = await self.browser.get(self.request())
        self.assertIn("My App", page.heading)
        self.assertIn("example.com", page.text)
        self.assertIn("@alice:example.org", page.text)

        outcome = outcome_of(await self.decide(page))
        self.assertEqual(outcome["state"], "a state")
        self.assertEqual(outcome["iss"], "http://matrix.example.org/")
        tokens = await self.exchange(outcome["code"])

        self.assertEqual(tokens["token_type"], "Bearer")
        self.assertEqual(tokens["expires_in"], 300)
        self.anybody.token = tokens["access_token"]
        self.assertEqual(
            await self.anybody.get("/account/whoami"),
            {"user_id": self.alice.user_id, "is_guest": False, "device_id": "ABCDEFGHIJ"},
        )
        device = await self.anybody.get("/devices/ABCDEFGHIJ")
        self.assertEqual(device["display_name"], "My App")
