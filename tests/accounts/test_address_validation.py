"""The proof that an address is the user's: what is sent, what counts, and what is kept secret."""

import contextlib
from typing import Any

import pytest

from homeserver.accounts.sessions.expired_rows import ExpiredRowCleanup
from homeserver.accounts.third_party_ids.address_validation import (
    LIFETIME_MS,
    TokenRequest,
    safe_next_link,
)
from homeserver.config.sections.contact import EmailSettings
from homeserver.protocol.errors import LimitExceeded
from homeserver.protocol.third_party_ids.address_validation import (
    ADD,
    PASSWORD,
    REGISTER,
    ThreepidCredentials,
)
from homeserver.storage.accounts.third_party_ids import ThirdPartyId, insert_third_party_id
from homeserver.storage.accounts.validation_sessions import find_validation_session
from tests.accounts.support import ALICE, AccountsTestCase, MailRecorder

ALICES = "alice@example.com"
SECRET = "monkeys_are_GREAT"
DAY = LIFETIME_MS / 1000


class ValidationTestCase(AccountsTestCase):
    async def setUp(self) -> None:
        self.box = MailRecorder()
        self.couriers = {"email": self.box}
        await super().setUp()

    async def ask(
        self, purpose: str = ADD, address: str = ALICES, attempt: int = 1, **more: Any
    ) -> str:
        """A client asks for a token; gives the session id."""
        request = TokenRequest(more.pop("secret", SECRET), attempt, **more)
        return await self.validation.request_token(purpose, "email", address, request)

    async def show_token(self, sid: str, number: int = -1) -> None:
        """The user follows the link of a letter."""
        session = await self.validation.find_by_token(sid, self.box.letters[number].token or "")
        assert session is not None
        await self.validation.confirm(session)

    async def owned(self, address: str = ALICES) -> None:
        """Alice has an account with an address."""
        await self.user()
        new = ThirdPartyId("email", address, ALICE, validated_ms=1, added_ms=2)
        await self.db.run(insert_third_party_id, new)

    async def find(self, sid: str, purpose: str = ADD, secret: str = SECRET) -> Any:
        """Find a validated session, as a client does."""
        return await self.validation.find_validated(
            purpose, "email", ThreepidCredentials(sid, secret)
        )


class TokenTests(ValidationTestCase):
    async def test_who_shows_the_token_has_the_address(self) -> None:
        """The way from the mail to the account."""
        sid = await self.ask(address="Alice@Example.COM")
        await self.refused(self.find(sid), "M_THREEPID_AUTH_FAILED", 403)

        await self.show_token(sid)

        found = await self.find(sid)
        self.assertEqual((found.medium, found.address), ("email", ALICES))
        self.assertEqual(found.validated_ms, 1_700_000_000_000)

    async def test_the_letter_goes_to_the_canonical_address(self) -> None:
        """Of two addresses that fold into one, the one that the account has is written to."""
        await self.owned("strauss@example.com")

        await self.ask(PASSWORD, "strauß@example.com")

        self.assertEqual(self.box.letters[0].address, "strauss@example.com")

    async def test_a_session_is_for_one_purpose(self) -> None:
        """A user who confirms an address for a new account does not confirm another operation."""
        sid = await self.ask(REGISTER)
        await self.show_token(sid)

        for purpose in (ADD, PASSWORD):
            await self.refused(self.find(sid, purpose), "M_THREEPID_AUTH_FAILED", 403)
        await self.find(sid, REGISTER)

    async def test_who_reads_the_mail_alone_can_do_nothing_with_it(self) -> None:
        """The secret never leaves the client, so the mail does not hold it."""
        sid = await self.ask()
        await self.show_token(sid)

        token = self.box.letters[0].token or ""

        for secret in (token, sid, ""):
            await self.refused(self.find(sid, secret=secret), "M_THREEPID_AUTH_FAILED", 403)

    async def test_a_wrong_token_shows_nothing(self) -> None:
        """Nor does the token of another session."""
        sid = await self.ask()
        await self.ask(address="other@example.com")
        other = self.box.letters[1].token or ""

        for token in ("", "guess", other):
            self.assertIsNone(await self.validation.find_by_token(sid, token))
        for unknown in ("", "unknown", "\0", "x" * 300):
            self.assertIsNone(await self.validation.find_by_token(unknown, other))

    async def test_secrets_are_not_in_the_database(self) -> None:
        """A thief of a database copy can take over no account."""
        sid = await self.ask()

        session = await self.db.run(find_validation_session, sid, 0)

        kept = repr(session)
        self.assertNotIn(SECRET, kept)
        self.assertNotIn(str(self.box.letters[0].token), kept)

    async def test_a_session_ends_a_day_after_its_last_change(self) -> None:
        """An old mail is useless to an attacker."""
        sid = await self.ask()
        self.clock.advance(DAY - 1)
        await self.show_token(sid)
        self.clock.advance(DAY - 1)
        await self.find(sid)

        self.clock.advance(1)

        await self.refused(self.find(sid), "M_THREEPID_AUTH_FAILED", 403)
        self.assertIsNone(await self.validation.find_by_token(sid, self.box.letters[0].token or ""))

    async def test_expired_sessions_are_deleted(self) -> None:
        """The table does not grow without bound."""
        sid = await self.ask()
        self.clock.advance(DAY)

        await ExpiredRowCleanup(self.db, self.clock).clean_up()

        self.assertIsNone(await self.db.run(find_validation_session, sid, 0))

    async def test_a_spent_session_is_spent(self) -> None:
        """One mail, one use."""
        sid = await self.ask()
        await self.show_token(sid)

        self.assertTrue(await self.validation.end(sid))
        self.assertFalse(await self.validation.end(sid))
        await self.refused(self.find(sid), "M_THREEPID_AUTH_FAILED", 403)


class AttemptTests(ValidationTestCase):
    async def test_the_same_attempt_sends_nothing_again(self) -> None:
        """A client that lost the answer does not fill the mailbox."""
        first = await self.ask(attempt=2)

        self.assertEqual(await self.ask(attempt=2), first)
        self.assertEqual(await self.ask(attempt=1), first)

        self.assertEqual(len(self.box.letters), 1)

    async def test_a_later_attempt_is_a_reminder(self) -> None:
        """A mail that got lost is sent again; the newest one counts."""
        sid = await self.ask(attempt=1)

        self.assertEqual(await self.ask(attempt=2), sid)

        first, second = (letter.token or "" for letter in self.box.letters)
        self.assertIsNone(await self.validation.find_by_token(sid, first))
        self.assertIsNotNone(await self.validation.find_by_token(sid, second))

    async def test_attempts_are_counted_for_each_address_and_secret(self) -> None:
        """Two clients do not get in each other's way."""
        sids = {
            await self.ask(),
            await self.ask(secret="another"),
            await self.ask(address="other@example.com"),
            await self.ask(REGISTER),
        }

        self.assertEqual((len(sids), len(self.box.letters)), (4, 4))

    async def test_an_attempt_that_failed_may_be_made_again(self) -> None:
        """The mail server was away; the client repeats its request."""
        self.box.broken = True
        await self.refused(self.ask(), "M_EMAIL_SEND_ERROR", 503)
        self.box.broken = False

        await self.ask()

        self.assertEqual(len(self.box.letters), 1)

    async def test_an_expired_session_is_not_continued(self) -> None:
        """A user has to confirm again what they confirmed long ago."""
        old = await self.ask()
        await self.show_token(old)
        self.clock.advance(DAY)

        new = await self.ask()

        self.assertNotEqual(new, old)
        self.assertEqual(len(self.box.letters), 2)
        await self.refused(self.find(new), "M_THREEPID_AUTH_FAILED", 403)

    async def test_an_address_is_not_flooded_with_mails(self) -> None:
        """One mailbox gets few mails, independent of the number of clients."""
        for number in range(4):
            await self.ask(secret=f"client{number}")

        await self.refused(self.ask(secret="one more"[:3]), "M_LIMIT_EXCEEDED", 429)
        await self.ask(address="other@example.com")

        self.assertEqual(len(self.box.letters), 5)
        self.clock.advance(100)
        await self.ask(secret="one")


class SecrecyTests(ValidationTestCase):
    async def test_what_is_not_sent_leaves_nothing_behind(self) -> None:
        """Sessions are as many as letters: who is refused letters stores nothing for a day."""
        for number in range(30):
            with contextlib.suppress(LimitExceeded):
                await self.ask(secret=f"secret{number}")

        cursor = await self.db.run(
            lambda db: db.execute("SELECT count(*) FROM validation_sessions")
        )
        self.assertEqual(await cursor.fetchone(), (len(self.box.letters),))
        self.assertLess(len(self.box.letters), 10)

    async def test_the_response_does_not_reveal_that_an_address_has_an_account(self) -> None:
        """A client cannot find out which addresses have accounts; the owner gets a mail."""
        await self.owned()

        for purpose in (REGISTER, ADD):
            sid = await self.ask(purpose)

            letter = self.box.letters[-1]
            self.assertEqual((letter.purpose, letter.sid, letter.token), (purpose, sid, None))
            self.assertIsNone(await self.validation.find_by_token(sid, ""))

    async def test_the_response_does_not_reveal_that_an_address_has_no_account(self) -> None:
        """A request for an address without an account gets the same response."""
        sid = await self.ask(PASSWORD)

        letter = self.box.letters[-1]
        self.assertEqual((letter.purpose, letter.sid, letter.token), (PASSWORD, sid, None))

    async def test_who_has_an_account_gets_a_token_for_a_new_password(self) -> None:
        """The one case in which there is something to confirm."""
        await self.owned()

        sid = await self.ask(PASSWORD)

        self.assertIsNotNone(
            await self.validation.find_by_token(sid, self.box.letters[0].token or "")
        )


class RefusalTests(ValidationTestCase):
    email_settings = EmailSettings(allowed_domains=("Example.com",))

    async def test_malformed_requests(self) -> None:
        """A malformed request gets an error before a mail is sent."""
        for secret in ("", "a b", "x" * 256, "a\n"):
            await self.refused(self.ask(secret=secret), "M_INVALID_PARAM", 400)
        for address in ("", "alice", "alice@example.com, bob@example.com"):
            await self.refused(self.ask(address=address), "M_INVALID_PARAM", 400)

        self.assertEqual(self.box.letters, [])

    async def test_domains_that_are_not_allowed(self) -> None:
        """A company registers its own addresses only; existing users can reset their password."""
        for purpose in (REGISTER, ADD):
            await self.refused(self.ask(purpose, "a@elsewhere.com"), "M_THREEPID_DENIED", 403)
        await self.ask(PASSWORD, "a@elsewhere.com")
        await self.ask(REGISTER)

    async def test_media_that_cannot_be_reached(self) -> None:
        """Without a sender the client gets an error instead of waiting."""
        request = TokenRequest(SECRET, 1)
        for purpose, errcode, status in (
            (ADD, "M_THREEPID_MEDIUM_NOT_SUPPORTED", 400),
            (REGISTER, "M_THREEPID_DENIED", 403),
            (PASSWORD, "M_THREEPID_DENIED", 403),
        ):
            refused = self.validation.request_token(purpose, "msisdn", "447700900001", request)
            await self.refused(refused, errcode, status)


APP = "https://app.example.com/"


@pytest.mark.parametrize(
    ("link", "is_safe"),
    [
        ("https://app.example.com/", True),
        ("https://app.example.com/#/register?a=b", True),
        ("app://welcome/back", True),
        ("http://app.example.com/", False),
        ("https://app.example.com.evil.com/", False),
        ("https://app.example.com:8443/", False),
        ("https://app.example.com@evil.com/", False),
        ("https://app.example.com\\@evil.com/", False),
        ("https://evil.com/https://app.example.com/", False),
        ("//app.example.com/", False),
        ("/relative", False),
        ("javascript:alert(1)//https://app.example.com/", False),
        ("https://app.example.com/\r\nSet-Cookie: a=b", False),
        ("https://app.example.com/ä", False),
        ("https://[::1", False),
        ("https://app.example.com/" + "x" * 3_000, False),
    ],
)
def test_people_are_sent_on_to_known_places_only(link: str, *, is_safe: bool) -> None:
    """Users trust a link on the server's page, so it must not lead to a foreign site."""
    assert safe_next_link(link, (APP, "app://welcome/")) == (link if is_safe else None)


def test_without_a_list_no_link_is_followed() -> None:
    """The default is safe."""
    assert safe_next_link(APP, ()) is None
    assert safe_next_link(None, (APP,)) is None
