"""ID tokens: the signed claims with which an OpenID provider says who has signed in.

Only signatures with the provider's public keys are accepted: a client secret is shared with more
parties, and "none" is no signature. This module is imported when the first token arrives.

Spec: https://openid.net/specs/openid-connect-core-1_0.html#IDTokenValidation
"""

from collections.abc import Mapping, Sequence
from hmac import compare_digest
from typing import Any

import msgspec
from joserfc import jwt
from joserfc.errors import BadSignatureError, JoseError
from joserfc.jwk import ECKey, JWKRegistry, OKPKey, RSAKey
from joserfc.jws import extract_compact

ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
    "Ed25519",
)  # fmt: skip
LEEWAY_SECONDS = 120  # between the clocks of the provider and of this server
MAX_KEYS = 100


class InvalidIdToken(ValueError):
    """The token is not valid; the message is for the log."""


class UnknownKey(InvalidIdToken):
    """The token is signed with a key that is not among the provider's keys."""


class Expected(msgspec.Struct, frozen=True):
    """What a token must say. `now` is seconds since the epoch."""

    issuer: str
    client_id: str
    nonce: str
    now: int


class _Keys(msgspec.Struct):
    keys: list[dict[str, Any]]


def import_keys(document: bytes) -> list[RSAKey | ECKey | OKPKey]:
    """The public keys of a JWK Set that verify signatures; others are left out.

    Raises `InvalidIdToken` for what is not a JWK Set.
    """
    try:
        found = msgspec.json.decode(document, type=_Keys).keys[:MAX_KEYS]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidIdToken(f"not a set of keys: {error}") from None
    keys: list[RSAKey | ECKey | OKPKey] = []
    for each in found:
        if each.get("kty") not in ("RSA", "EC", "OKP") or each.get("use", "sig") != "sig":
            continue
        try:
            key = JWKRegistry.import_key(each)
        except (JoseError, ValueError, TypeError, KeyError):
            continue
        if isinstance(key, RSAKey | ECKey | OKPKey):
            keys.append(key)
    return keys


def verify(
    token: str, keys: Sequence[RSAKey | ECKey | OKPKey], expected: Expected
) -> Mapping[str, Any]:
    """The claims of a valid token. Raises `InvalidIdToken`, and `UnknownKey` if that is why."""
    claims = _signed_claims(token, keys)
    registry = jwt.JWTClaimsRegistry(
        now=expected.now,
        leeway=LEEWAY_SECONDS,
        iss={"essential": True, "value": expected.issuer},
        aud={"essential": True, "value": expected.client_id},
        exp={"essential": True},
        iat={"essential": True},
    )
    try:
        registry.validate(claims)
    except (JoseError, TypeError, ValueError) as error:
        raise InvalidIdToken(str(error)) from None
    audience = claims["aud"]
    authorized = claims.get("azp")
    if authorized is None and isinstance(audience, list) and len(audience) > 1:
        raise InvalidIdToken("it is for several clients, and does not say which one (azp)")
    if authorized not in (None, expected.client_id):
        raise InvalidIdToken("it was issued to another client (azp)")
    nonce = claims.get("nonce")
    if not isinstance(nonce, str) or not compare_digest(
        nonce.encode("utf-8", "replace"), expected.nonce.encode()
    ):
        raise InvalidIdToken("it has another nonce")
    return claims


def _signed_claims(token: str, keys: Sequence[RSAKey | ECKey | OKPKey]) -> dict[str, Any]:
    """The claims, if one of the keys has signed them."""
    try:
        header = extract_compact(token.encode()).headers()
    except (JoseError, ValueError, UnicodeEncodeError) as error:
        raise InvalidIdToken(f"not a signed token: {error}") from None
    if header.get("alg") not in ALGORITHMS:
        raise InvalidIdToken(f"it is signed with {header.get('alg')!r}")
    kid = header.get("kid")
    for key in keys:
        if kid is not None and key.kid not in (None, kid):
            continue
        try:
            return jwt.decode(token, key, algorithms=ALGORITHMS).claims
        except BadSignatureError:
            continue
        except (JoseError, ValueError, TypeError):
            continue  # a key of another type
    raise UnknownKey("no key of the provider has signed it")
