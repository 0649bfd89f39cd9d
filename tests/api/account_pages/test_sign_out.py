"""Signing out of the pages of this server."""

from tests.api.account_pages.support import PagesTestCase
from tests.support.server import ServerTestCase

SIGN_OUT = "/_matrix/account/sign_out"


class SigningOutTests(PagesTestCase):
    async def test_who_is_not_signed_in_is_sent_to_sign_in(self) -> None:
        """A page that was open for too long leads somewhere."""
        page = await self.browser.post(SIGN_OUT, {})

        self.assertEqual(page.status, 303)
        self.assertEqual(page.location, "/_matrix/account/sign_in?target=%2F_matrix%2Faccount")

    async def test_forms_that_no_page_sends_are_refused(self) -> None:
        """Another site cannot sign users out, and no bytes cause an error of the server."""
        foreign = await self.browser.post(SIGN_OUT, {}, **{"Sec-Fetch-Site": "same-site"})
        self.assertEqual(foreign.status, 403)
        for body in (b"\xff", b"a=%ff", b"a=%00", b"a=1&a=2", b"&" * 1_000):
            page = await self.browser.post_body(SIGN_OUT, body)
            self.assertEqual(page.status, 400, body[:10])
            self.assertIn("<h1>", page.text)


class DisabledPagesTests(ServerTestCase):
    async def test_pages_that_are_not_enabled_do_not_exist(self) -> None:
        """An operator who does not want them has nothing to protect."""
        attempt = self.anybody.request("POST", SIGN_OUT, b"")

        await self.assert_refused("M_UNRECOGNIZED", attempt, 404)
