"""Accounts of identities that come for the first time."""

from typing import Any

import psycopg
from twisted.internet.defer import Deferred, gatherResults

from tests.single_sign_on.support import SingleSignOnTestCase, error_of


class ChosenNameTests(SingleSignOnTestCase):
    openid_settings: dict[str, Any] = {}  # noqa: RUF012
    kinds = ("oidc",)

    async def test_without_a_mapping_the_user_chooses_a_name(self) -> None:
        """The name that the provider knows is a suggestion."""
        self.openid.user = {"sub": "1", "email": "Ann.Lee@example.com", "name": "<b>Ann</b>"}

        page = await self.sign_in()

        self.assertEqual(page.fields()["localpart"], "ann.lee")
        self.assertIn("&lt;b&gt;Ann&lt;/b&gt;", page.text)
        done = await self.browser.submit(page, localpart="Ann")
        user = await self.actor_by(done)
        self.assertEqual(user.user_id, "@ann:example.org")

    async def test_a_taken_or_invalid_name_can_be_replaced(self) -> None:
        """The page comes again, with the reason."""
        await self.register("ann")
        page = await self.sign_in()

        taken = await self.browser.submit(page, localpart="ann")
        self.assertIn("This user ID is taken", taken.text)
        invalid = await self.browser.submit(taken, localpart="an n")
        self.assertIn("may only contain", invalid.text)
        user = await self.actor_by(await self.browser.submit(invalid, localpart="ann2"))
        self.assertEqual(user.user_id, "@ann2:example.org")

    async def test_a_second_click_gives_the_same_account(self) -> None:
        """A browser that lost the response sends the form again, perhaps with another name."""
        page = await self.sign_in()
        cookies = dict(self.browser.cookies)
        await self.browser.submit(page, localpart="ann")
        self.browser.cookies = cookies

        user = await self.actor_by(await self.browser.submit(page, localpart="other"))

        self.assertEqual(user.user_id, "@ann:example.org")

    async def test_two_requests_at_the_same_time_make_one_account(self) -> None:
        """Somebody clicks twice, or has two tabs."""
        page = await self.sign_in()

        names = ("ann", "ben", "cat", "dan")
        submitted = [
            Deferred.fromCoroutine(self.browser.submit(page, localpart=name)) for name in names
        ]
        pages = await gatherResults(submitted)

        users = {(await self.actor_by(each)).user_id for each in pages}
        self.assertEqual(len(users), 1)

    async def test_the_form_is_for_the_browser_that_signed_in(self) -> None:
        """Another site cannot send it in the name of a user (CSRF)."""
        page = await self.sign_in()

        refused = await self.new_browser().submit(page, localpart="ann")

        self.assertEqual((refused.status, error_of(refused)), (404, "M_NOT_FOUND"))

    async def test_a_form_before_the_sign_in_is_refused(self) -> None:
        """The state alone proves no identity."""
        begun = await self.browser.get(self.redirect_url())
        state = self.openid_state(begun.location)
        page = await self.sign_in()

        refused = await self.browser.submit(page, state=state, localpart="ann")

        self.assertEqual((refused.status, error_of(refused)), (404, "M_NOT_FOUND"))

    async def test_the_callback_of_a_finished_sign_in_is_refused(self) -> None:
        """The browser goes back in its history while it shows the form."""
        begun = await self.browser.get(self.redirect_url())
        back = await self.browser.get(begun.location)
        page = await self.browser.get(back.location)

        again = await self.browser.get(back.location)

        self.assertEqual((again.status, error_of(again)), (404, "M_NOT_FOUND"))
        self.assertEqual(self.openid.seen.count("/token"), 1)
        self.assertIn("@ann:", (await self.browser.submit(page, localpart="ann")).text)

    async def test_a_form_that_is_too_late_creates_nothing(self) -> None:
        """The operator no longer wants new users."""
        page = await self.sign_in()
        self.settings["single_sign_on"]["providers"][0]["allow_new_users"] = False
        await self.restart_server()

        refused = await self.browser.submit(page, localpart="ann")

        self.assertEqual((refused.status, error_of(refused)), (403, "M_FORBIDDEN"))

    async def test_huge_and_strange_forms_are_refused(self) -> None:
        """Bad input has an error page."""
        page = await self.sign_in()

        huge = await self.browser.submit(page, localpart="a" * 20_000)
        self.assertEqual((huge.status, error_of(huge)), (413, "M_TOO_LARGE"))
        nul = await self.browser.submit(page, localpart="a\0")
        self.assertEqual((nul.status, error_of(nul)), (400, "M_INVALID_PARAM"))
        twice = await self.browser.submit(page, localpart="a&localpart=b")
        self.assertEqual((twice.status, error_of(twice)), (400, "M_INVALID_PARAM"))
        empty = await self.browser.submit(page, localpart="")
        self.assertIn("must not be empty", empty.text)

    def openid_state(self, location: str) -> str:
        """The state in an authorization request."""
        return location.partition("&state=")[2].partition("&")[0]


class PolicyTests(SingleSignOnTestCase):
    kinds = ("cas",)
    server_settings = {  # noqa: RUF012
        "registration": {
            "enabled": False,
            "terms": [
                {
                    "id": "privacy",
                    "version": "2",
                    "name": "Privacy",
                    "url": "https://example.org/privacy",
                }
            ],
        }
    }

    async def test_a_new_user_accepts_the_policies(self) -> None:
        """The mapped name is filled in, and the acceptance is recorded."""
        page = await self.sign_in("cas")

        self.assertIn("https://example.org/privacy", page.text)
        user = await self.actor_by(await self.browser.submit(page))
        self.assertEqual(user.user_id, "@cas_user=21:example.org")
        with psycopg.connect(self.dsn) as connection:
            accepted = connection.execute("TABLE accepted_policies").fetchall()
        self.assertEqual([row[:3] for row in accepted], [(user.user_id, "privacy", "2")])


class ExistingUserTests(SingleSignOnTestCase):
    openid_settings = {  # noqa: RUF012
        "localpart": "{preferred_username}",
        "allow_existing_users": True,
        "allow_new_users": False,
    }

    async def test_an_existing_account_is_linked_once(self) -> None:
        """The first identity of that name gets the account; names that differ in case do not."""
        await self.register("alice")
        self.openid.user = {"sub": "1", "preferred_username": "alice"}
        alice = await self.actor_by(await self.sign_in())
        self.assertEqual(alice.user_id, "@alice:example.org")

        self.openid.user = {"sub": "2", "preferred_username": "Alice"}
        page = await self.sign_in()
        self.assertEqual((page.status, error_of(page)), (403, "M_FORBIDDEN"))

    async def test_of_identities_at_the_same_time_one_is_linked(self) -> None:
        """Their names differ in case, and they are different people."""
        await self.register("alice")
        waiting = []
        for number, name in enumerate(("alice", "Alice", "ALICE")):
            browser = self.new_browser()
            begun = await browser.get(self.redirect_url())
            self.openid.user = {"sub": str(number), "preferred_username": name, "name": name}
            back = await browser.get(begun.location)
            waiting.append(browser.get(back.location))

        pages = await gatherResults([Deferred.fromCoroutine(each) for each in waiting])

        self.assertEqual(sorted(page.status for page in pages), [200, 403, 403])

    async def test_without_new_users_a_stranger_is_refused(self) -> None:
        """The operator decides who has an account."""
        self.openid.user = {"sub": "1", "preferred_username": "stranger"}

        page = await self.sign_in()

        self.assertEqual((page.status, error_of(page)), (403, "M_FORBIDDEN"))

    async def test_accounts_of_bridges_guests_and_the_deactivated_are_not_linked(self) -> None:
        """They are nobody's at the provider."""
        await self.register("alice")
        self.openid.user = {"sub": "1", "preferred_username": "alice"}
        for state in (
            "user_type = 'server_notices'",
            "user_type = NULL, appservice = 'irc'",
            "appservice = NULL, is_guest = true",
            "is_guest = false, is_deactivated = true",
        ):
            with psycopg.connect(self.dsn) as connection:
                connection.execute(f"UPDATE users SET {state}")
            page = await self.sign_in()
            self.assertEqual(page.status, 403, state)

    async def test_a_locked_account_is_not_linked(self) -> None:
        """Its user signs in when it is unlocked."""
        await self.register("alice")
        self.openid.user = {"sub": "1", "preferred_username": "alice"}
        with psycopg.connect(self.dsn) as connection:
            connection.execute("UPDATE users SET is_locked = true")

        page = await self.sign_in()

        self.assertEqual((page.status, error_of(page)), (401, "M_USER_LOCKED"))
        with psycopg.connect(self.dsn) as connection:
            self.assertEqual(connection.execute("TABLE external_ids").fetchall(), [])

    async def test_where_it_is_not_allowed_the_user_chooses_another_name(self) -> None:
        """Nobody takes over an account by a name at another provider."""
        await self.register("cas_user=21")

        page = await self.sign_in("cas")

        self.assertEqual(page.fields()["localpart"], "cas_user=21")
        user = await self.actor_by(await self.browser.submit(page, localpart="another"))
        self.assertEqual(user.user_id, "@another:example.org")


class AttributeTests(SingleSignOnTestCase):
    openid_settings = {  # noqa: RUF012
        "localpart": "{preferred_username}",
        "email": "{email}",
        "required_attributes": ["groups=matrix"],
    }
    cas_settings = {  # noqa: RUF012
        "display_name": "{givenName} {sn}",
        "required_attributes": ["memberOf=staff"],
    }

    async def test_a_verified_address_belongs_to_the_new_account(self) -> None:
        """One that is not verified, or belongs to somebody else, does not."""
        person = {
            "preferred_username": "alice",
            "groups": ["x", "matrix"],
            "email": "A@example.com",
        }
        self.openid.user = {"sub": "1", "email_verified": True, **person}
        alice = await self.actor_by(await self.sign_in())
        self.openid.user = {**self.openid.user, "sub": "2", "preferred_username": "bob"}
        bob = await self.actor_by(await self.sign_in())
        self.openid.user = {**person, "sub": "3", "preferred_username": "carol"}
        carol = await self.actor_by(await self.sign_in())

        [found] = (await alice.get("/account/3pid"))["threepids"]
        self.assertEqual(found["address"], "a@example.com")
        self.assertEqual((await bob.get("/account/3pid"))["threepids"], [])
        self.assertEqual((await carol.get("/account/3pid"))["threepids"], [])

    async def test_only_users_with_the_attribute_come_in(self) -> None:
        """A group at the provider decides."""
        self.openid.user = {"sub": "1", "preferred_username": "alice", "groups": ["x"]}
        page = await self.sign_in()
        self.assertEqual((page.status, error_of(page)), (403, "M_FORBIDDEN"))

        page = await self.sign_in("cas")
        self.assertEqual((page.status, error_of(page)), (403, "M_FORBIDDEN"))

    async def test_attributes_of_cas_name_the_user(self) -> None:
        """Attributes with several values are lists."""
        self.cas.attributes = (
            "<cas:memberOf>students</cas:memberOf><cas:memberOf>staff</cas:memberOf>"
            "<cas:givenName>Ann</cas:givenName><cas:sn>Lee &amp; Co</cas:sn>"
        )

        user = await self.actor_by(await self.sign_in("cas"))

        profile = await user.get(f"/profile/{user.user_id}")
        self.assertEqual(profile["displayname"], "Ann Lee & Co")
