"""Scripted identity providers on loopback: an OpenID provider and a CAS server.

They can behave as no provider should: each response can be replaced, in `answers` by its path.
"""

import time
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs, urlencode

import msgspec
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey
from twisted.internet import reactor
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

CLIENT_ID, CLIENT_SECRET = "matrix", "s3cret & more"


class Provider(Resource):
    """A service; `seen` are the paths that were requested, `answers` its handlers by path."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.answers: dict[str, Callable[[Request], bytes]] = {}
        site = Site(self)
        site.noisy = False
        self._listening = reactor.listenTCP(  # type: ignore[attr-defined]
            0, site, interface="127.0.0.1"
        )
        self.url = f"http://127.0.0.1:{self._listening.getHost().port}"

    async def stop(self) -> None:
        """Take no more connections."""
        stopping = self._listening.stopListening()
        if stopping is not None:
            await stopping

    def render(self, request: Request) -> bytes:
        path = request.path.decode()
        self.seen.append(path)
        answer = self.answers.get(path)
        if answer is None:
            request.setResponseCode(404)
            return b"not here"
        return answer(request)


class OpenIdProvider(Provider):
    """`user` are the claims of the user whose browser comes; `None` refuses the sign-in.

    `change_token(claims)` replaces the claims of an ID token, `sign(claims)` makes the token.
    `metadata` are the members that differ from the usual ones.
    """

    def __init__(self) -> None:
        super().__init__()
        self.user: dict[str, Any] | None = {"sub": "248289761001"}
        self.userinfo: dict[str, Any] = {}
        self.metadata: dict[str, Any] = {}
        self.keys: list[Any] = [RSAKey.generate_key(2048, {"kid": "first"})]
        self.change_token: Callable[[dict[str, Any]], dict[str, Any]] = lambda claims: claims
        self.requests: list[dict[str, str]] = []
        self._codes: dict[str, tuple[dict[str, str], dict[str, Any]]] = {}
        self.answers = {
            "/.well-known/openid-configuration": self._describe,
            "/authorize": self._authorize,
            "/token": self._exchange,
            "/jwks": self._publish_keys,
            "/userinfo": self._tell,
        }

    def rotate_keys(self) -> None:
        """Sign with a new key from now on."""
        self.keys = [ECKey.generate_key("P-256", {"kid": "second"})]

    def sign(self, claims: dict[str, Any]) -> str:
        """An ID token."""
        key = self.keys[0]
        algorithm = "RS256" if isinstance(key, RSAKey) else "ES256"
        return jwt.encode({"alg": algorithm, "kid": key.kid}, claims, key)

    def _describe(self, request: Request) -> bytes:
        return msgspec.json.encode(
            {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.url}/jwks",
                "userinfo_endpoint": f"{self.url}/userinfo",
                **self.metadata,
            }
        )

    def _authorize(self, request: Request) -> bytes:
        asked = _fields(request.uri.partition(b"?")[2])
        self.requests.append(asked)
        if self.user is None:
            back = {"error": "access_denied", "state": asked["state"]}
        else:
            code = f"code{len(self.requests)}"
            self._codes[code] = asked, self.user
            back = {"code": code, "state": asked["state"]}
        request.setResponseCode(302)
        location = f"{asked['redirect_uri']}?{urlencode(back)}"
        request.setHeader(b"Location", location.encode())
        return b""

    def _exchange(self, request: Request) -> bytes:
        assert request.content is not None
        form = _fields(request.content.read())
        asked, user = self._codes.pop(form["code"], (None, {}))
        challenge = urlsafe_b64encode(sha256(form["code_verifier"].encode()).digest())
        scheme, _, pair = str(request.getHeader("Authorization")).partition(" ")
        is_client = scheme == "Basic" and b64decode(pair) == b"matrix:s3cret+%26+more"
        if (
            asked is None
            or not is_client
            or asked["redirect_uri"] != form["redirect_uri"]
            or asked["code_challenge"] != challenge.decode().rstrip("=")
        ):
            request.setResponseCode(400)
            return b'{"error": "invalid_grant", "error_description": "no such code"}'
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": CLIENT_ID,
            "exp": now + 300,
            "iat": now,
            "nonce": asked["nonce"],
            **user,
        }
        token = self.sign(self.change_token(claims))
        return msgspec.json.encode(
            {"id_token": token, "access_token": "at", "token_type": "Bearer"}
        )

    def _publish_keys(self, request: Request) -> bytes:
        keys = [key.as_dict(private=False) for key in self.keys]
        # Neither an unknown type nor a key of a shared secret disturbs.
        more = [{"kty": "lattice", "kid": "x"}, {"kty": "oct", "k": "c2VjcmV0", "kid": "oct"}]
        return msgspec.json.encode({"keys": [*more, *keys]})

    def _tell(self, request: Request) -> bytes:
        assert request.getHeader("Authorization") == "Bearer at"
        return msgspec.json.encode({"sub": (self.user or {}).get("sub"), **self.userinfo})


class CasServer(Provider):
    """`user` is the one of all tickets; `attributes` is XML. It validates at `paths`."""

    def __init__(self) -> None:
        super().__init__()
        self.user = "cas_user!"
        self.attributes = ""
        self.failure = ""
        self.validated: list[dict[str, str]] = []
        self.paths = ["/cas/p3/serviceValidate"]
        self.answers = {"/cas/login": self._log_in}

    def render(self, request: Request) -> bytes:
        if request.path.decode() in self.paths:
            self.seen.append(request.path.decode())
            return self.validate(request)
        return super().render(request)

    def validate(self, request: Request) -> bytes:
        """The response about a ticket."""
        self.validated.append(_fields(request.uri.partition(b"?")[2]))
        result = (
            f"<cas:authenticationFailure code='{self.failure}'>no</cas:authenticationFailure>"
            if self.failure
            else f"<cas:authenticationSuccess><cas:user>{self.user}</cas:user>"
            f"<cas:attributes>{self.attributes}</cas:attributes></cas:authenticationSuccess>"
        )
        return (
            "<cas:serviceResponse xmlns:cas='http://www.yale.edu/tp/cas'>"
            f"{result}</cas:serviceResponse>"
        ).encode()

    def _log_in(self, request: Request) -> bytes:
        service = _fields(request.uri.partition(b"?")[2]).get("service")
        if service is None:
            return b"Who are you?"
        request.setResponseCode(302)
        request.setHeader(b"Location", f"{service}&ticket=ST-1".encode())
        return b""


def _fields(text: bytes) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(text.decode()).items()}
