"""Cookies of sign-ins in progress."""

from http.cookies import SimpleCookie

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from homeserver.accounts.single_sign_on.sign_in_attempts import (
    LIFETIME_SECONDS,
    Purpose,
    SignInAttempt,
    SignInAttempts,
)
from homeserver.protocol.errors import NotFound
from homeserver.protocol.single_sign_on.claims import MAX_NAME, MAX_SUBJECT, Identity
from homeserver.protocol.single_sign_on.client_urls import MAX_LENGTH

MAX_COOKIE = 4_096  # bytes of name, value and attributes, which every browser stores


class AttemptTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.attempts = self.of(b"secret")
        self.attempt = self.attempts.new("id", Purpose.LOGIN, "https://client.example")

    def of(self, secret: bytes, baseurl: str = "https://example.org") -> SignInAttempts:
        return SignInAttempts(secret, self.clock, baseurl)

    def stored(self, attempt: SignInAttempt) -> str:
        """The `Cookie` header of a browser that stores an attempt."""
        return self.attempts.cookie(attempt).partition(";")[0]

    def test_a_browser_brings_back_what_was_stored(self) -> None:
        """Among other cookies, and until it is too old."""
        cookies = f"a=b; {self.stored(self.attempt)}; c"

        self.assertEqual(self.attempts.find(self.attempt.state, cookies), self.attempt)
        self.clock.advance(LIFETIME_SECONDS)
        with self.assertRaises(NotFound):
            self.attempts.find(self.attempt.state, cookies)

    def test_a_cookie_is_for_this_server_and_its_pages_alone(self) -> None:
        """Scripts do not see it, other sites do not send it with forms, and it needs TLS."""
        cookie = SimpleCookie(self.attempts.cookie(self.attempt))
        [(name, morsel)] = cookie.items()

        self.assertTrue(name.startswith("__Secure-sso_"))
        self.assertTrue(morsel["httponly"])
        self.assertTrue(morsel["secure"])
        self.assertEqual(morsel["samesite"], "Lax")
        self.assertEqual(morsel["path"], "/_matrix/sso/")
        self.assertNotIn("client.example", morsel.value)
        plain = self.of(b"secret", "http://localhost:8008").cookie(self.attempt)
        self.assertTrue(plain.startswith("sso_"))
        self.assertNotIn("Secure", plain)

    def test_no_other_cookie_is_accepted(self) -> None:
        """Not that of another server, of another state, nor what a user has made up."""
        state = self.attempt.state
        name, _, value = self.stored(self.attempt).partition("=")
        forged = self.of(b"other").cookie(self.attempt).partition(";")[0]
        other = self.attempts.new("id", Purpose.LOGIN, "https://evil.example")
        renamed = f"{name}={self.stored(other).partition('=')[2]}"

        for cookies in (None, "", forged, renamed, f"{name}=", f"{name}={value[:-3]}", f"{name}=ü"):
            with self.assertRaises(NotFound):
                self.attempts.find(state, cookies)
        with self.assertRaises(NotFound):
            self.attempts.find("other", self.stored(self.attempt))

    def test_the_longest_attempt_fits_into_a_cookie(self) -> None:
        """A browser ignores larger ones, and the sign-in would never end."""
        identity = Identity(
            "\u20ac" * (MAX_SUBJECT // 3),
            "\u20ac" * MAX_NAME,
            is_mapped=True,
            display_name="\U0001f600" * MAX_NAME,
            email="a" * 250,
        )
        attempt = self.attempts.new("x" * 100, Purpose.CONFIRMATION, "x" * MAX_LENGTH)
        self.assertLessEqual(len(self.attempts.cookie(attempt)), MAX_COOKIE)
        attempt = replace(attempt, nonce="", verifier="", identity=identity)
        self.assertLessEqual(len(self.attempts.cookie(attempt)), MAX_COOKIE)


@given(st.text(), st.text())
def test_any_header_is_answered(state: str, cookies: str) -> None:
    """What comes from a browser can be anything."""
    attempts = SignInAttempts(b"secret", Clock(), "https://example.org")
    try:
        attempts.find(state, cookies)
    except NotFound:
        return
    raise AssertionError("nothing was stored")
