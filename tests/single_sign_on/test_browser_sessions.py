"""Signing in to the pages of this server, such as those for OAuth, at an identity provider."""

from urllib.parse import quote, urlencode

from tests.single_sign_on.support import Page, SingleSignOnTestCase, error_of

TARGET = "/_matrix/account?action=org.matrix.devices_list"
SIGN_IN = "/_matrix/account/sign_in"


class BrowserSessionTests(SingleSignOnTestCase):
    server_settings = {"oauth": {"enabled": True}}  # noqa: RUF012

    async def begin(self, target: str, provider: str = "cas") -> Page:
        """The address of the button on the page for signing in."""
        query = urlencode({"return_to": target})
        return await self.browser.get(f"{self.url}/_matrix/sso/redirect/{provider}?{query}")

    async def test_the_page_for_signing_in_leads_to_the_provider_and_back(self) -> None:
        """The page that needed a user is shown next."""
        page = await self.browser.get(f"{self.url}{SIGN_IN}?{urlencode({'target': TARGET})}")
        self.assertIn("Example &amp; Co", page.text)
        begun = await self.browser.get(page.link("Continue with The campus"))
        back = await self.browser.get(begun.location)
        page = await self.browser.get(back.location)

        self.assertEqual((page.status, page.location), (302, TARGET))
        page = await self.browser.get(self.url + TARGET)
        self.assertIn("@cas_user=21:example.org", page.text)

    async def test_a_new_user_chooses_a_name_first(self) -> None:
        """The policy of the form would stop a redirect, so a page leads on."""
        await self.register("alice")
        self.openid.user = {"sub": "1", "preferred_username": "alice"}
        begun = await self.begin(TARGET, "openid")
        page = await self.browser.follow(begun.location, to="https:")

        page = await self.browser.submit(page, localpart="ann")

        self.assertEqual((page.status, page.location), (200, TARGET))
        page = await self.browser.get(self.url + TARGET)
        self.assertIn("@ann:example.org", page.text)

    async def test_a_link_leads_to_no_other_server(self) -> None:
        """The target of a link is checked before and stored where nobody can change it."""
        for target in (
            "https://evil.example",
            "//evil.example",
            "/_matrix/client/v3/logout",
            "/_matrix/oauth2/authorize?x=" + "x" * 2_000,
            "",
        ):
            page = await self.begin(target)
            self.assertEqual((page.status, error_of(page)), (400, "M_INVALID_PARAM"), target)

    async def test_only_the_browser_that_began_gets_the_session(self) -> None:
        """An attacker cannot sign a user's browser in to the attacker's account."""
        begun = await self.begin(TARGET)
        back = await self.browser.get(begun.location)
        victim = self.new_browser()

        page = await victim.get(back.location)

        self.assertEqual((page.status, error_of(page)), (404, "M_NOT_FOUND"))
        self.assertEqual(victim.cookies, {})


class BasePathTests(SingleSignOnTestCase):
    base_path = "/matrix/"

    async def test_browsers_see_the_paths_of_the_proxy(self) -> None:
        """A proxy may have the server at a path of a host that has more."""
        begun = await self.browser.get(self.redirect_url("cas"))
        [cookie] = begun.headers.getRawHeaders("Set-Cookie")
        self.assertIn("Path=/matrix/_matrix/sso/;", cookie)
        self.assertIn(quote("/matrix/_matrix/sso/callback", safe=""), begun.location)

        link = 'href="/matrix/_matrix/client/v3/login/sso/redirect/cas?'
        page = await self.browser.get(f"{self.url}/_matrix/static/client/login/")
        self.assertIn(link, page.text)
        url = self.redirect_url("cas").replace("/redirect/cas", "/redirect")
        self.assertIn(link, (await self.browser.get(url)).text)


class NoBrowserSessionTests(SingleSignOnTestCase):
    async def test_without_such_pages_there_is_nothing_to_sign_in_to(self) -> None:
        """Nothing else uses the address."""
        page = await self.browser.get(
            f"{self.url}/_matrix/sso/redirect/cas?{urlencode({'return_to': TARGET})}"
        )

        self.assertEqual((page.status, error_of(page)), (404, "M_NOT_FOUND"))
