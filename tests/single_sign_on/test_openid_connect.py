"""OpenID providers that do what no provider should, and those that do what they may."""

import hmac
import time
from base64 import urlsafe_b64encode
from typing import Any
from unittest.mock import patch

import msgspec
from joserfc import jwt
from joserfc.jwk import RSAKey
from twisted.internet import reactor
from twisted.web.server import Request

from homeserver.outbound.single_sign_on import openid_connect
from tests.single_sign_on.providers import CLIENT_ID, CLIENT_SECRET
from tests.single_sign_on.support import Page, SingleSignOnTestCase, error_of

ALICE = {"sub": "1", "preferred_username": "alice"}


class OpenIdTestCase(SingleSignOnTestCase):
    kinds = ("oidc",)

    async def setUp(self) -> None:
        await super().setUp()
        self.openid.user = dict(ALICE)

    async def assert_fails(self, page: Page, status: int, errcode: str, why: str = "") -> None:
        """The user sees an error page, and has no account."""
        self.assertEqual((page.status, error_of(page)), (status, errcode), why)
        self.assertNotIn("loginToken", page.text)


class RequestTests(OpenIdTestCase):
    async def test_the_request_has_all_that_protects_it(self) -> None:
        """State, nonce and challenge are new each time; the secret stays here."""
        await self.sign_in()
        await self.sign_in()

        first, second = self.openid.requests
        self.assertEqual(first["response_type"], "code")
        self.assertEqual(first["scope"], "openid profile email")
        self.assertEqual(first["code_challenge_method"], "S256")
        self.assertEqual(first["redirect_uri"], f"{self.url}/_matrix/sso/callback")
        for name in ("state", "nonce", "code_challenge"):
            self.assertNotEqual(first[name], second[name])
            self.assertGreaterEqual(len(first[name]), 43)
        self.assertNotIn("client_secret", first)

    async def test_a_user_who_wants_an_account_is_sent_to_create_one(self) -> None:
        """The provider is asked for its page of registration, if it says that it has one."""
        page = await self.browser.get(self.redirect_url(action="register"))
        self.assertNotIn("prompt=", page.location)

        self.openid.metadata = {"prompt_values_supported": ["none", "create"]}
        await self.restart_server()
        page = await self.browser.get(self.redirect_url(action="register"))
        self.assertIn("&prompt=create", page.location)
        page = await self.browser.get(self.redirect_url(action="login"))
        self.assertNotIn("prompt=", page.location)

    async def test_metadata_and_keys_are_fetched_once(self) -> None:
        """A sign-in costs the provider one request for its token."""
        for _ in range(3):
            await self.sign_in()

        self.assertEqual(self.openid.seen.count("/.well-known/openid-configuration"), 1)
        self.assertEqual(self.openid.seen.count("/jwks"), 1)
        self.assertEqual(self.openid.seen.count("/token"), 3)

    async def test_metadata_stay_in_use_until_there_are_newer_ones(self) -> None:
        """A provider may be unable to describe itself for a while."""
        await self.sign_in()
        self.patch(openid_connect, "METADATA_SECONDS", 0.0)
        del self.openid.answers["/.well-known/openid-configuration"]

        page = await self.sign_in()

        self.assertIn("@alice:example.org", page.text)
        self.assertEqual(self.openid.seen.count("/.well-known/openid-configuration"), 3)


class ClockTests(OpenIdTestCase):
    async def test_tokens_expire_by_the_time_of_the_day(self) -> None:
        """A server whose clock was set since its start takes no old ones."""
        later = lambda: time.time() + 7_200  # noqa: E731
        with patch.object(reactor, "wall_seconds", later, create=True):
            page = await self.sign_in()

        await self.assert_fails(page, 502, "M_UNKNOWN")


class HostileProviderTests(OpenIdTestCase):
    async def test_wrong_claims_are_refused(self) -> None:
        """Tokens for other clients, of other issuers, too old, or of another sign-in."""
        now = int(time.time())
        for wrong in (
            {"iss": "https://other.example"},
            {"aud": "other"},
            {"aud": [CLIENT_ID, "other"]},
            {"aud": [CLIENT_ID], "azp": "other"},
            {"aud": None},
            {"exp": now - 600},
            {"exp": "tomorrow"},
            {"exp": None},
            {"iat": None},
            {"nonce": "other"},
            {"nonce": None},
            {"sub": None},
            {"sub": 7},
        ):
            self.openid.change_token = lambda claims, wrong=wrong: {  # type: ignore[misc]
                name: value for name, value in {**claims, **wrong}.items() if value is not None
            }
            await self.assert_fails(await self.sign_in(), 502, "M_UNKNOWN", str(wrong))

    async def test_a_token_may_be_for_several_clients(self) -> None:
        """It says then that it was issued to this one."""
        for audience in (
            {"aud": [CLIENT_ID]},
            {"aud": CLIENT_ID, "azp": CLIENT_ID},
            {"aud": ["other", CLIENT_ID], "azp": CLIENT_ID},
        ):
            self.openid.change_token = lambda claims, audience=audience: {  # type: ignore[misc]
                **claims,
                **audience,
            }
            page = await self.sign_in()
            self.assertIn("@alice:example.org", page.text, str(audience))

    async def test_wrong_signatures_are_refused(self) -> None:
        """No signature, one with the client secret or the public key as a secret, another key."""
        public = self.openid.keys[0].as_pem(private=False)
        stranger = RSAKey.generate_key(2048, {"kid": "first"})

        def signing_input(algorithm: str, claims: dict[str, Any]) -> str:
            head = msgspec.json.encode({"alg": algorithm, "kid": "first"})
            return f"{_encode(head)}.{_encode(msgspec.json.encode(claims))}"

        def with_secret(secret: bytes) -> Any:
            def sign(claims: dict[str, Any]) -> str:
                text = signing_input("HS256", claims)
                return f"{text}.{_encode(hmac.digest(secret, text.encode(), 'sha256'))}"

            return sign

        def unsigned(claims: dict[str, Any]) -> str:
            return signing_input("none", claims) + "."

        for sign in (
            unsigned,
            with_secret(CLIENT_SECRET.encode()),
            with_secret(public),
            with_secret(b"secret"),
            lambda claims: jwt.encode({"alg": "RS256", "kid": "first"}, claims, stranger),
            lambda _: "not a token",
            lambda _: "a.b.c.d.e",
            lambda _: "",
            lambda _: "ü.ü.ü",
        ):
            self.openid.sign = sign  # type: ignore[method-assign]
            await self.assert_fails(await self.sign_in(), 502, "M_UNKNOWN")

    async def test_new_keys_are_fetched_but_not_all_the_time(self) -> None:
        """A provider may change its keys; tokens with unknown keys cause no flood of requests."""
        await self.sign_in()
        self.openid.rotate_keys()

        # The keys are less than a minute old.
        await self.assert_fails(await self.sign_in(), 502, "M_UNKNOWN")
        self.assertEqual(self.openid.seen.count("/jwks"), 1)

        self.patch(openid_connect, "KEYS_AGAIN_SECONDS", 0.0)
        page = await self.sign_in()
        self.assertIn("@alice:example.org", page.text)
        self.assertEqual(self.openid.seen.count("/jwks"), 2)

    async def test_a_response_of_another_provider_is_refused(self) -> None:
        """A mix-up attack sends the code of one provider to another."""
        self.openid.metadata = {"authorization_response_iss_parameter_supported": True}
        page = await self.sign_in()
        await self.assert_fails(page, 502, "M_UNKNOWN", "without iss")

        begun = await self.browser.get(self.redirect_url())
        back = await self.browser.get(begun.location)
        page = await self.browser.get(back.location + "&iss=https://other.example")
        await self.assert_fails(page, 502, "M_UNKNOWN", "another iss")
        self.assertNotIn("/token", self.openid.seen)

        begun = await self.browser.get(self.redirect_url())
        back = await self.browser.get(begun.location)
        page = await self.browser.get(back.location + f"&iss={self.openid.url}")
        self.assertIn("@alice:example.org", page.text)

    async def test_what_is_not_valid_is_an_error_page(self) -> None:
        """Metadata, tokens and claims can be anything."""

        def of(body: bytes, status: int = 200) -> Any:
            def answer(request: Request) -> bytes:
                request.setResponseCode(status)
                return body

            return answer

        self.openid.user = {"sub": "9"}  # so the userinfo endpoint is asked
        broken = {
            "/userinfo": (of(b'{"sub": "other"}'), of(b"[]"), of(b"{}", 500), of(b"\xff")),
            "/token": (of(b"{}"), of(b"[]"), of(b"x" * 300_000), of(b"{}", 500), of(b"", 302)),
            "/jwks": (of(b'{"keys": 1}'), of(b"no", 404), of(b'{"keys": [{"kty": "RSA"}]}')),
            "/.well-known/openid-configuration": (
                of(b'{"issuer": "https://other.example"}'),
                of(b"\xff"),
                of(b"", 404),
                of(
                    msgspec.json.encode(
                        {
                            "issuer": self.openid.url,
                            "authorization_endpoint": "https://a/\r\nX: y",
                            "token_endpoint": "https://a/",
                            "jwks_uri": "https://a/",
                        }
                    )
                ),
            ),
        }
        for path, answers in broken.items():
            usual = self.openid.answers[path]
            for number, answer in enumerate(answers):
                await self.restart_server()
                self.openid.answers[path] = answer
                page = await self.sign_in()
                await self.assert_fails(page, 502, "M_UNKNOWN", f"{path} {number}")
            self.openid.answers[path] = usual

    async def test_a_provider_that_is_away_is_an_error_page(self) -> None:
        """The user can try again later."""
        await self.openid.stop()

        await self.assert_fails(await self.browser.get(self.redirect_url()), 502, "M_UNKNOWN")


class UserTests(OpenIdTestCase):
    async def test_a_user_who_refuses_comes_back_to_an_error_page(self) -> None:
        """The message says what happened, and what the provider says is not shown."""
        self.openid.user = None

        page = await self.sign_in()

        await self.assert_fails(page, 403, "M_FORBIDDEN")
        self.assertIn("You have not signed in with Example &amp; Co", page.text)

    async def test_a_code_is_used_once(self) -> None:
        """The second use fails at the provider."""
        begun = await self.browser.get(self.redirect_url())
        back = await self.browser.get(begun.location)
        cookies = dict(self.browser.cookies)
        await self.browser.get(back.location)
        self.browser.cookies = cookies

        await self.assert_fails(await self.browser.get(back.location), 403, "M_FORBIDDEN")

    async def test_claims_come_from_the_userinfo_endpoint_if_they_are_missing(self) -> None:
        """Many providers have nothing but `sub` in the token."""
        self.openid.user = {"sub": "1"}
        self.openid.userinfo = {"preferred_username": "alice", "name": "Alice \u202e\n" + "x" * 300}

        alice = await self.actor_by(await self.sign_in())

        self.assertEqual(alice.user_id, "@alice:example.org")
        profile = await alice.get(f"/profile/{alice.user_id}")
        self.assertEqual(profile["displayname"], ("Alice " + "x" * 300)[:100])

    async def test_strange_claims_do_no_harm(self) -> None:
        """A page asks for a name where none is usable; a subject must be one."""
        for name in ("", "x" * 400, {"a": 1}, [], True, "\0", "..", "\U0001f600" * 60):
            self.openid.user = {"sub": "1", "preferred_username": name}
            page = await self.sign_in()
            self.assertIn(page.status, (200, 403), repr(name))
        for subject in ("", "x" * 256, "a\0b"):
            self.openid.user = {"sub": subject}
            await self.assert_fails(await self.sign_in(), 403, "M_FORBIDDEN", repr(subject))


class ExplicitEndpointTests(OpenIdTestCase):
    async def setUp(self) -> None:
        self.openid_settings = {"localpart": "{preferred_username}", "token_endpoint_auth": "post"}
        await super().setUp()

    async def test_a_secret_in_the_body_is_another_way(self) -> None:
        """Some providers accept no other."""
        page = await self.sign_in()

        # The scripted provider accepts the header alone, which shows that there was none.
        await self.assert_fails(page, 403, "M_FORBIDDEN")


def _encode(part: bytes) -> str:
    return urlsafe_b64encode(part).decode().rstrip("=")
