"""OpenID Connect: the authorization code flow, in which this server is the relying party.

The provider's metadata and keys are cached. Keys are fetched again for a token that none of them
has signed, but not more often than once a minute, as any user of the provider could cause it.

Spec: https://openid.net/specs/openid-connect-core-1_0.html#CodeFlowAuth
Spec: https://openid.net/specs/openid-connect-discovery-1_0.html
Spec: https://www.rfc-editor.org/rfc/rfc7636.html (PKCE)
"""

import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable, Mapping
from hashlib import sha256
from types import ModuleType
from typing import Any
from urllib.parse import quote_plus, urlencode, urlsplit

import msgspec
from twisted.logger import Logger

from homeserver.concurrency.clock import Clock, wall_seconds
from homeserver.concurrency.late_imports import Late
from homeserver.concurrency.single_flight import SingleFlight
from homeserver.config.sections.single_sign_on import IdentityProviderSettings
from homeserver.outbound.http_client import OutboundClient, OutboundError, OutboundResponse
from homeserver.outbound.single_sign_on.identity_provider import (
    MAX_BODY,
    TIMEOUT_SECONDS,
    ProviderFailed,
    SignInRefused,
    SignInRequest,
)

METADATA_SECONDS = 3_600.0
KEYS_SECONDS = 3_600.0
KEYS_AGAIN_SECONDS = 60.0  # the least time between two fetches of keys
ID_TOKENS = "homeserver.outbound.single_sign_on.id_tokens"
_ENDPOINT = re.compile(r"https?://[!-~]+")
log = Logger()


class Metadata(msgspec.Struct, frozen=True):
    """The part of a provider's metadata that is used."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None = None
    prompt_values_supported: tuple[str, ...] = ()
    authorization_response_iss_parameter_supported: bool = False


class TokenResponse(msgspec.Struct, frozen=True):
    """The part of a token response that is used."""

    id_token: str
    access_token: str = ""


class TokenError(msgspec.Struct, frozen=True):
    """An error response of the token endpoint."""

    error: str = ""
    error_description: str = ""


def late_id_tokens(reactor: Any) -> "Late[ModuleType]":
    """The module that verifies ID tokens, imported in a thread when it is first needed."""

    def module() -> ModuleType:
        from homeserver.outbound.single_sign_on import id_tokens

        return id_tokens

    return Late(reactor, ID_TOKENS, module)


class OpenIdProvider:
    """One OpenID provider.

    `wanted` are the claims that are used: if the ID token lacks one, the userinfo endpoint is
    asked.
    """

    def __init__(
        self,
        settings: IdentityProviderSettings,
        outbound: OutboundClient,
        clock: Clock,
        id_tokens: "Late[ModuleType]",
        wanted: Iterable[str],
    ) -> None:
        self._settings = settings
        self._outbound = outbound
        self._clock = clock
        self._id_tokens = id_tokens
        self._wanted = frozenset(wanted)
        self._secret = settings.secret()
        assert settings.issuer is not None, "as the settings have checked"
        assert settings.client_id is not None, "as the settings have checked"
        self._issuer, self._client_id = settings.issuer, settings.client_id
        self._metadata: tuple[float, Metadata] | None = None
        self._keys: tuple[float, list[Any]] | None = None
        self._fetches: SingleFlight[str, bytes] = SingleFlight()

    async def check(self) -> str:
        """That there are metadata and keys. Raises `ProviderFailed`."""
        metadata = await self._get_metadata()
        module: Any = await self._id_tokens.get()
        try:
            keys = await self._get_keys(metadata, module, again=False)
        except module.InvalidIdToken as error:
            raise self._failed(f"{metadata.jwks_uri}: {error}") from None
        if not keys:
            raise self._failed("it has no public key, so its ID tokens cannot be verified")
        return f"the OpenID provider {metadata.issuer} can be reached"

    async def sign_in_url(self, request: SignInRequest) -> str:
        """The address of the authorization request. Raises `ProviderFailed`."""
        metadata = await self._get_metadata()
        challenge = urlsafe_b64encode(sha256(request.verifier.encode()).digest())
        parameters = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": request.callback,
            "scope": " ".join(self._settings.scopes),
            "state": request.state,
            "nonce": request.nonce,
            # Providers that do not know it ignore it.
            "code_challenge": challenge.decode().rstrip("="),
            "code_challenge_method": "S256",
        }
        if request.registers and "create" in metadata.prompt_values_supported:
            parameters["prompt"] = "create"
        endpoint = metadata.authorization_endpoint
        mark = "&" if urlsplit(endpoint).query else "?"
        return f"{endpoint}{mark}{urlencode(parameters)}"

    async def fetch_claims(
        self, request: SignInRequest, parameters: Mapping[str, str]
    ) -> Mapping[str, Any]:
        """The claims of the user, for the code that came with the callback."""
        metadata = await self._get_metadata()
        issuer = parameters.get("iss")
        if issuer is None and metadata.authorization_response_iss_parameter_supported:
            raise self._failed("its response does not say who it is from (iss)")
        if issuer not in (None, metadata.issuer):
            raise self._failed(f"its response is from {issuer!r}")
        if "error" in parameters:
            raise self._refused(parameters["error"], parameters.get("error_description", ""))
        if "code" not in parameters:
            raise self._failed("its response has no code")
        tokens = await self._exchange(metadata, request, parameters["code"])
        claims = await self._verify(metadata, tokens.id_token, request.nonce)
        if metadata.userinfo_endpoint is None or self._wanted <= claims.keys():
            return claims
        return {**await self._fetch_userinfo(metadata, tokens, claims), **claims}

    async def _get_metadata(self) -> Metadata:
        now = self._clock.seconds()
        if self._metadata is None or now - self._metadata[0] >= METADATA_SECONDS:
            try:
                self._metadata = (now, await self._discover())
            except ProviderFailed:
                # They hardly ever change: what was valid an hour ago most likely still is.
                if self._metadata is None:
                    raise
        return self._metadata[1]

    async def _discover(self) -> Metadata:
        settings = self._settings
        chosen = {
            name: getattr(settings, name)
            for name in (
                "authorization_endpoint",
                "token_endpoint",
                "userinfo_endpoint",
                "jwks_uri",
            )
            if getattr(settings, name) is not None
        }
        if {"authorization_endpoint", "token_endpoint", "jwks_uri"} <= chosen.keys():
            return Metadata(issuer=self._issuer, **chosen)
        url = self._issuer.rstrip("/") + "/.well-known/openid-configuration"
        body = await self._get(url)
        try:
            found = msgspec.json.decode(body, type=dict[str, Any])
            metadata = msgspec.convert({**found, **chosen}, Metadata)
        except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._failed(f"its metadata is not valid: {error}") from None
        for endpoint in (metadata.authorization_endpoint, metadata.token_endpoint):
            if _ENDPOINT.fullmatch(endpoint) is None:
                raise self._failed(f"its metadata has the endpoint {endpoint!r}")
        if metadata.issuer != self._issuer:
            raise self._failed(f"its metadata is that of the issuer {metadata.issuer!r}")
        return metadata

    async def _exchange(self, metadata: Metadata, request: SignInRequest, code: str) -> Any:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": request.callback,
            "code_verifier": request.verifier,
        }
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "Accept": "application/json",
        }
        if self._secret is None:
            form["client_id"] = self._client_id
        elif self._settings.token_endpoint_auth == "post":
            form |= {"client_id": self._client_id, "client_secret": self._secret}
        else:
            pair = f"{quote_plus(self._client_id)}:{quote_plus(self._secret)}"
            headers["Authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
        response = await self._request(
            "POST", metadata.token_endpoint, headers, urlencode(form).encode()
        )
        if response.status != 200:
            error = _decode(response.body, TokenError) or TokenError()
            why = f"its token endpoint responds with {response.status} {error.error!r}"
            log.warn(
                "{provider}: {why}: {text!r}",
                provider=self._settings.id,
                why=why,
                text=error.error_description[:200],
            )
            if error.error == "invalid_grant":
                raise SignInRefused("This sign-in is too old, or was completed before")
            raise self._failed(why)
        tokens = _decode(response.body, TokenResponse)
        if tokens is None:
            raise self._failed("its token response has no ID token")
        return tokens

    async def _verify(self, metadata: Metadata, token: str, nonce: str) -> Mapping[str, Any]:
        module: Any = await self._id_tokens.get()
        now = int(wall_seconds(self._clock))
        expected = module.Expected(metadata.issuer, self._client_id, nonce, now)
        try:
            keys = await self._get_keys(metadata, module, again=False)
            try:
                claims: Mapping[str, Any] = module.verify(token, keys, expected)
            except module.UnknownKey:
                keys = await self._get_keys(metadata, module, again=True)
                claims = module.verify(token, keys, expected)
        except module.InvalidIdToken as error:
            raise self._failed(f"its ID token is not valid: {error}") from None
        if not isinstance(claims.get("sub"), str):
            raise self._failed("its ID token has no subject")
        return claims

    async def _get_keys(self, metadata: Metadata, module: Any, *, again: bool) -> list[Any]:
        now = self._clock.seconds()
        most_age = KEYS_AGAIN_SECONDS if again else KEYS_SECONDS
        if self._keys is None or now - self._keys[0] >= most_age:
            self._keys = (now, module.import_keys(await self._get(metadata.jwks_uri)))
        return self._keys[1]

    async def _fetch_userinfo(
        self, metadata: Metadata, tokens: TokenResponse, claims: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        assert metadata.userinfo_endpoint is not None
        headers = {"Authorization": f"Bearer {tokens.access_token}", "Accept": "application/json"}
        response = await self._request("GET", metadata.userinfo_endpoint, headers)
        found: dict[str, Any] | None = _decode(response.body, dict[str, Any])
        if response.status != 200 or found is None:
            raise self._failed(f"its userinfo endpoint responds with {response.status}")
        if found.get("sub") != claims["sub"]:
            raise self._failed("its userinfo endpoint describes another user")
        return found

    async def _get(self, url: str) -> bytes:
        """The body of a document, which is fetched once for all who wait for it."""
        return await self._fetches.join(url, lambda: self._fetch(url))

    async def _fetch(self, url: str) -> bytes:
        response = await self._request("GET", url, {"Accept": "application/json"})
        if response.status != 200:
            raise self._failed(f"{url} responds with {response.status}")
        return response.body

    async def _request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> OutboundResponse:
        try:
            return await self._outbound.request(
                method,
                url,
                headers=headers,
                body=body,
                max_body=MAX_BODY,
                timeout=TIMEOUT_SECONDS,
                follow_redirects=False,
            )
        except OutboundError as error:
            raise self._failed(f"{url}: {error}") from None

    def _refused(self, error: str, description: str) -> Exception:
        log.info(
            "{provider} refuses a sign-in: {error!r} {text!r}",
            provider=self._settings.id,
            error=error[:100],
            text=description[:200],
        )
        if error == "access_denied":
            return SignInRefused(f"You have not signed in with {self._settings.name}")
        return SignInRefused(f"{self._settings.name} has refused the sign-in")

    def _failed(self, why: str) -> ProviderFailed:
        return ProviderFailed(self._settings, why)


def _decode(body: bytes, type_: Any) -> Any:
    try:
        return msgspec.json.decode(body, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
