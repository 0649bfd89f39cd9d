"""The pages of an account: who sees them, and what users do there."""

from typing import Any
from urllib.parse import urlencode

import psycopg

from homeserver.accounts.browser_sessions.browser_sessions import sign_in_location
from tests.api.account_pages.support import Browser, Page, PagesTestCase
from tests.support.actors import Actor

ACCOUNT = "/_matrix/account"
DELETE = "org.matrix.device_delete"
DEACTIVATE = "org.matrix.account_deactivate"
EVERYWHERE = "io.homeserver.sign_out_everywhere"
CHANGE = "io.homeserver.password"
PASSWORD = "the password of alice"


def address(action: str, device_id: str = "") -> str:
    """The address that a client opens."""
    query = {"action": action} | ({"device_id": device_id} if device_id else {})
    return f"{ACCOUNT}?{urlencode(query)}"


class AccountTests(PagesTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.alice = await self.register("alice")
        await self.sign_in("alice", self.browser)

    async def open(self, action: str, device_id: str = "", browser: Browser | None = None) -> Page:
        """Open the page of an action, following redirects."""
        browser = browser or self.browser
        return await browser.follow(await browser.get(address(action, device_id)))

    def let_time_pass(self) -> None:
        """The user has signed in eleven minutes ago."""
        with psycopg.connect(self.dsn) as connection:
            connection.execute(
                "UPDATE browser_sessions SET authenticated_ms = authenticated_ms - 660000"
            )

    async def device_ids(self, actor: Actor) -> set[str]:
        return {each["device_id"] for each in (await actor.get("/devices"))["devices"]}


class AccessTests(AccountTests):
    async def test_a_stranger_sees_no_page_and_returns_after_signing_in(self) -> None:
        """A link from a client works for users who are not signed in yet."""
        wanted = address("org.matrix.device_view", self.alice.device_id)
        stranger = self.new_browser()

        for method in (stranger.get, lambda path: stranger.post(path, {"display_name": "x"})):
            page = await method(wanted)
            self.assertEqual((page.status, page.location), (303, sign_in_location(wanted)))
        page = await stranger.submit(await stranger.follow(page), user="alice", password=PASSWORD)

        self.assertEqual((page.path, page.status), (wanted, 200))
        self.assertIn(self.alice.device_id, page.text)

    async def test_unknown_actions_show_the_overview(self) -> None:
        """A newer client than the server leads its users to where they can look around."""
        for action in ("", "org.matrix.unheard_of", "\u00e9", "a b"):
            page = await self.open(action)
            self.assertEqual(page.heading, "Your account on example.org", action)

    async def test_former_names_of_actions_lead_to_the_same_pages(self) -> None:
        """Clients from before the proposal was accepted work."""
        device = self.alice.device_id
        for names, heading in (
            (("org.matrix.profile", "profile"), "Your profile"),
            (
                ("org.matrix.devices_list", "sessions_list", "org.matrix.sessions_list"),
                "Your devices",
            ),
            ((DELETE, "session_end", "org.matrix.session_end"), f"Sign out of “{device}”?"),
            (("org.matrix.device_view", "session_view", "org.matrix.session_view"), device),
        ):
            for name in names:
                self.assertEqual((await self.open(name, device)).heading, heading, name)

    async def test_sensitive_pages_need_a_user_who_has_just_signed_in(self) -> None:
        """A stranger at an open computer cannot do harm."""
        for action in (DELETE, DEACTIVATE, EVERYWHERE, "org.matrix.cross_signing_reset"):
            wanted = address(action, self.alice.device_id)
            form = (await self.browser.get(wanted)).forms()[0][1]
            self.let_time_pass()

            shown = await self.browser.get(wanted)
            sent = await self.browser.post(wanted, {**form, "understood": "yes"})
            self.assertEqual(shown.location, sign_in_location(wanted), action)
            self.assertEqual(sent.location, sign_in_location(wanted), action)

            page = await self.browser.follow(shown)
            self.assertEqual(page.heading, "Sign in again")
            page = await self.browser.submit(page, password=PASSWORD)
            self.assertEqual((page.path, page.status), (wanted, 200))
        self.assertEqual(await self.device_ids(self.alice), {self.alice.device_id})

    async def test_forms_of_other_sites_change_nothing(self) -> None:
        """Another page in the same browser cannot act for the user (CSRF)."""
        token = (await self.open("")).forms()[0][1]["form_token"]
        other = self.new_browser()
        await self.sign_in("alice", other)
        theirs = (await self.open("", browser=other)).forms()[0][1]["form_token"]
        for action in (
            "org.matrix.profile",
            "org.matrix.device_view",
            DELETE,
            DEACTIVATE,
            CHANGE,
            "org.matrix.cross_signing_reset",
        ):
            wanted = address(action, self.alice.device_id)
            entered = {"display_name": "Eve", "understood": "yes"}
            for fields in ({}, {"form_token": ""}, {"form_token": theirs}):
                page = await self.browser.post(wanted, {**entered, **fields})
                self.assertEqual(page.status, 403, action)
            foreign = await self.browser.post(
                wanted, {**entered, "form_token": token}, **{"Sec-Fetch-Site": "cross-site"}
            )
            self.assertEqual(foreign.status, 403, action)
        self.assertEqual((await self.browser.post(f"{ACCOUNT}/sign_out", {})).status, 403)
        self.assertEqual((await self.open("")).status, 200)
        self.assertEqual(await self.device_ids(self.alice), {self.alice.device_id})

    async def test_signing_out_ends_the_session(self) -> None:
        """The next user of the computer has to sign in."""
        page = await self.browser.submit(await self.open(""))

        self.assertEqual(page.heading, "Sign in to example.org")
        self.assertNotEqual((await self.browser.get(ACCOUNT)).location, None)


class ProfileTests(AccountTests):
    async def profile(self) -> Any:
        return await self.alice.get(f"/profile/{self.alice.user_id}")

    async def test_user_changes_their_name(self) -> None:
        """Others see the new name, and no page takes it for more than text."""
        page = await self.open("org.matrix.profile")
        page = await self.browser.submit(page, display_name=" <b>Alice</b> ")

        self.assertEqual(page.heading, "Your profile was changed")
        self.assertEqual((await self.profile())["displayname"], "<b>Alice</b>")
        page = await self.open("org.matrix.profile")
        self.assertNotIn("<b>", page.text)
        self.assertEqual(page.forms()[0][1]["display_name"], "<b>Alice</b>")

        await self.browser.submit(page, display_name="")
        self.assertNotIn("displayname", await self.profile())

    async def test_user_removes_their_picture(self) -> None:
        """A picture can be removed without a client."""
        path = f"/profile/{self.alice.user_id}/avatar_url"
        await self.alice.put(path, {"avatar_url": "mxc://example.org/a"})

        page = await self.open("org.matrix.profile")
        await self.browser.submit(page, 1)

        self.assertNotIn("avatar_url", await self.profile())
        self.assertEqual(len((await self.open("org.matrix.profile")).forms()), 1)

    async def test_a_name_that_is_too_long_is_refused_on_the_page(self) -> None:
        """The user reads what is wrong, and does not lose what was typed."""
        page = await self.open("org.matrix.profile")
        page = await self.browser.submit(page, display_name="x" * 3_000)

        self.assertEqual(page.status, 400)
        self.assertIn("must not exceed", page.text)
        self.assertEqual(page.forms()[0][1]["display_name"], "x" * 3_000)

    async def test_a_suspended_user_cannot_change_the_profile(self) -> None:
        """A suspension holds here as it does over the API."""
        page = await self.open("org.matrix.profile")
        with psycopg.connect(self.dsn) as connection:
            connection.execute("UPDATE users SET is_suspended = true")

        page = await self.browser.submit(page, display_name="Eve")

        self.assertEqual(page.status, 403)
        self.assertEqual((await self.profile())["displayname"], "alice")


class DeviceTests(AccountTests):
    async def test_user_signs_one_device_out(self) -> None:
        """A lost phone loses access; the computer keeps it."""
        phone = await self.log_in(self.alice)
        page = await self.open("org.matrix.devices_list")
        self.assertIn(phone.device_id, page.text)

        page = await self.open(DELETE, phone.device_id)
        self.assertEqual(await self.device_ids(self.alice), {phone.device_id, self.alice.device_id})
        done = await self.browser.submit(page)

        self.assertEqual(done.heading, "The device was signed out")
        self.assertEqual(await self.device_ids(self.alice), {self.alice.device_id})
        await self.assert_refused("M_UNKNOWN_TOKEN", phone.get("/account/whoami"))
        again = await self.browser.submit(page)
        self.assertEqual((again.status, again.heading), (404, "There is no such device"))

    async def test_devices_of_others_are_out_of_reach(self) -> None:
        """A device id is no secret, and no key to the device."""
        bob = await self.register("bob")
        form = (await self.open(DELETE, self.alice.device_id)).forms()[0][1]
        for device_id in (bob.device_id, "NONE", "", "<script>", "\u00e9" * 300):
            for action in (DELETE, "org.matrix.device_view"):
                page = await self.open(action, device_id)
                self.assertEqual(page.status, 404)
                self.assertNotIn("<script", page.text)
                page = await self.browser.post(
                    address(action, device_id), {**form, "display_name": "x"}
                )
                self.assertEqual(page.status, 404)
        self.assertEqual(await self.device_ids(bob), {bob.device_id})

    async def test_the_list_of_devices_has_a_bound(self) -> None:
        """A program that logs in at each start costs others no time."""
        with psycopg.connect(self.dsn) as connection:
            connection.execute(
                "INSERT INTO devices (user_id, device_id, created_ms, last_seen_ms)"
                " SELECT %s, 'D' || n, n, n FROM generate_series(1, 300) AS n",
                (self.alice.user_id,),
            )

        text = (await self.open("org.matrix.devices_list")).text

        self.assertIn("device_id=D300", text)
        self.assertNotIn('device_id=D50"', text)
        self.assertIn("And 101 more", text)

    async def test_user_signs_out_everywhere(self) -> None:
        """A user whose computer was stolen ends all that is open on it."""
        other = self.new_browser()
        await self.sign_in("alice", other)
        self.assertIn(EVERYWHERE, (await self.open("org.matrix.devices_list")).text)

        page = await self.browser.submit(await self.open(EVERYWHERE))

        self.assertEqual(page.heading, "You are signed out everywhere")
        await self.assert_refused("M_UNKNOWN_TOKEN", self.alice.get("/account/whoami"))
        for browser in (self.browser, other):
            self.assertEqual((await browser.get(ACCOUNT)).status, 303)

    async def test_user_renames_a_device(self) -> None:
        """A user tells their devices apart."""
        page = await self.open("org.matrix.device_view", self.alice.device_id)
        await self.browser.submit(page, display_name="Work <i>phone</i>")

        page = await self.open("org.matrix.device_view", self.alice.device_id)
        self.assertEqual(page.forms()[0][1]["display_name"], "Work <i>phone</i>")
        self.assertNotIn("<i>", page.text)


class PasswordTests(AccountTests):
    async def change(self, page: Page, new: str = "a new horse", **fields: str) -> Page:
        entered = {"password": PASSWORD, "new_password": new, "repeated_password": new}
        form = page.forms()[0][1]
        form.pop("logout_devices")
        return await self.browser.post(address(CHANGE), {**form, **entered, **fields})

    async def log_in_with(self, password: str) -> Any:
        body = {"type": "m.login.password", "user": "alice", "password": password}
        return await self.anybody.post("/login", body)

    async def test_user_changes_the_password_and_keeps_the_devices(self) -> None:
        """Only browsers have to sign in again: all but this one."""
        other = self.new_browser()
        await self.sign_in("alice", other)

        page = await self.change(await self.open(CHANGE))

        self.assertEqual((page.status, page.heading), (200, "Your password was changed"))
        self.assertEqual((await self.browser.get(ACCOUNT)).status, 200)
        self.assertEqual((await other.get(ACCOUNT)).status, 303)
        await self.alice.get("/account/whoami")
        await self.log_in_with("a new horse")
        await self.assert_refused("M_FORBIDDEN", self.log_in_with(PASSWORD))

    async def test_user_signs_all_devices_out_with_the_old_password(self) -> None:
        """A stranger who knows the old password loses what it gave."""
        page = await self.change(await self.open(CHANGE), logout_devices="yes")

        self.assertIn("On all devices", page.text)
        await self.assert_refused("M_UNKNOWN_TOKEN", self.alice.get("/account/whoami"))
        self.assertEqual((await self.browser.get(ACCOUNT)).status, 200)

    async def test_what_is_wrong_is_said_and_nothing_is_changed(self) -> None:
        """The present password is needed, and the rules for new ones hold."""
        page = await self.open(CHANGE)
        for fields, status, text in (
            ({"password": "wrong"}, 403, "The current password is wrong."),
            ({"repeated_password": "another"}, 400, "are not the same."),
            ({"new_password": "short", "repeated_password": "short"}, 400, "at least 8"),
            ({"new_password": "", "repeated_password": ""}, 400, "at least 8"),
        ):
            refused = await self.change(page, **fields)
            self.assertEqual(refused.status, status, text)
            self.assertIn(text, refused.text)
        await self.log_in_with(PASSWORD)


class DeactivationTests(AccountTests):
    async def test_user_deactivates_the_account(self) -> None:
        """The user is out everywhere, and nobody gets in again."""
        page = await self.open(DEACTIVATE)
        page = await self.browser.submit(page, understood="yes", erase="yes")

        self.assertEqual(page.heading, "Your account was deactivated")
        self.assertNotIn("homeserver_session", self.browser.cookies)
        await self.assert_refused("M_UNKNOWN_TOKEN", self.alice.get("/account/whoami"))
        self.assertEqual((await self.sign_in("alice", self.new_browser())).status, 403)
        with psycopg.connect(self.dsn) as connection:
            row = connection.execute("SELECT is_deactivated, is_erased FROM users").fetchone()
        self.assertEqual(row, (True, True))

    async def test_nothing_happens_without_the_confirmation(self) -> None:
        """A mistaken click does not cost an account."""
        page = await self.open(DEACTIVATE)
        fields = {"form_token": page.forms()[0][1]["form_token"]}

        page = await self.browser.post(address(DEACTIVATE), fields)

        self.assertEqual(page.status, 400)
        await self.alice.get("/account/whoami")


class CrossSigningTests(AccountTests):
    async def test_user_allows_the_reset_of_their_keys(self) -> None:
        """The client that sent its user here may replace the keys."""
        page = await self.open("org.matrix.cross_signing_reset")
        self.assertEqual(self.allowed(), [])

        page = await self.browser.submit(page)

        self.assertEqual(page.heading, "Go back to your client now")
        self.assertEqual(self.allowed(), [(self.alice.user_id,)])

    def allowed(self) -> list[Any]:
        with psycopg.connect(self.dsn) as connection:
            return connection.execute("SELECT user_id FROM cross_signing_resets").fetchall()


class NoPasswordTests(AccountTests):
    async def test_user_without_a_password_is_not_asked_for_one(self) -> None:
        """Users of single sign-on have none, and no form that cannot work."""
        with psycopg.connect(self.dsn) as connection:
            connection.execute("UPDATE users SET password_hash = NULL")

        self.assertNotIn(CHANGE, (await self.open("")).text)
        page = await self.open(CHANGE)
        self.assertIn("Your account has no password", page.text)
        self.assertEqual(page.forms(), [])
