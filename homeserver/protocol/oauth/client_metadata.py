"""Client metadata: what a client says of itself when it registers.

What the server does not understand is ignored, and so are translations of names and addresses: the
registration has what the server keeps, which the response shows. All addresses have the host of the
`client_uri`, or a subdomain of it, since it is what tells the user with whom they have to do.

Spec: https://spec.matrix.org/v1.19/client-server-api/#client-metadata
"""

import unicodedata
from base64 import b32encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

import msgspec

from homeserver.protocol.oauth.errors import (
    INVALID_CLIENT_METADATA,
    INVALID_REDIRECT_URI,
    OAuthError,
)
from homeserver.protocol.oauth.redirect_uris import NATIVE, WEB, check_redirect_uri
from homeserver.protocol.oauth.uris import https_host, is_within

AUTHORIZATION_CODE: Final = "authorization_code"
REFRESH_TOKEN: Final = "refresh_token"
DEVICE_CODE: Final = "urn:ietf:params:oauth:grant-type:device_code"
GRANT_TYPES: Final = (AUTHORIZATION_CODE, REFRESH_TOKEN, DEVICE_CODE)
CODE: Final = "code"
NO_AUTHENTICATION: Final = "none"

MAX_NAME = 255  # characters
MAX_REDIRECT_URIS = 20
MAX_METADATA = 8_192  # bytes of what is kept, as JSON

_LINKS = ("logo_uri", "tos_uri", "policy_uri")
# Characters that change how the text around them is shown, such as its direction.
_DISGUISING = {
    "\u200e",
    "\u200f",
    *map(chr, range(0x202A, 0x202F)),
    *map(chr, range(0x2066, 0x206A)),
}


class ClientMetadata(msgspec.Struct, frozen=True, omit_defaults=True):
    """The metadata of a client that are kept."""

    client_uri: str
    redirect_uris: tuple[str, ...]
    response_types: tuple[str, ...]
    grant_types: tuple[str, ...]
    token_endpoint_auth_method: str
    application_type: str
    client_name: str | None = None
    logo_uri: str | None = None
    tos_uri: str | None = None
    policy_uri: str | None = None

    @property
    def host(self) -> str:
        """The host of the client, which the user is shown."""
        return https_host(self.client_uri) or ""

    @property
    def name(self) -> str:
        """The name of the client, or its host if it has none."""
        return self.client_name or self.host


def parse_client_metadata(given: Mapping[str, Any]) -> ClientMetadata:
    """The metadata of a registration. Raises `OAuthError`."""
    given = {name: value for name, value in given.items() if value is not None}
    client_uri = _text(given, "client_uri")
    host = None if client_uri is None else https_host(client_uri)
    if client_uri is None or host is None:
        raise _invalid("client_uri is missing, or is not an https URI without a user")
    if _text(given, "token_endpoint_auth_method") not in (None, NO_AUTHENTICATION):
        raise _invalid("the only token_endpoint_auth_method is none")
    application_type = _text(given, "application_type") or WEB
    if application_type not in (WEB, NATIVE):
        raise _invalid("the application_type is web or native")
    grant_types = _grant_types(given)
    has_codes = AUTHORIZATION_CODE in grant_types
    metadata = ClientMetadata(
        client_uri=client_uri,
        redirect_uris=_redirect_uris(given, host, application_type, is_required=has_codes),
        response_types=_response_types(given, is_required=has_codes),
        grant_types=grant_types,
        token_endpoint_auth_method=NO_AUTHENTICATION,
        application_type=application_type,
        client_name=_name(given),
        **{name: _link(given, name, host) for name in _LINKS},
    )
    if len(encode_client_metadata(metadata)) > MAX_METADATA:
        raise _invalid(f"the metadata have more than {MAX_METADATA} bytes")
    return metadata


def encode_client_metadata(metadata: ClientMetadata) -> bytes:
    """The JSON that is stored; the same for the same metadata."""
    return msgspec.json.encode(metadata, order="deterministic")


def client_id_of(encoded: bytes) -> str:
    """The client id of stored metadata: a digest, so that equal registrations are one."""
    return b32encode(sha256(encoded).digest()[:20]).decode().lower()


def _grant_types(given: Mapping[str, Any]) -> tuple[str, ...]:
    wanted = {*_texts(given, "grant_types", (AUTHORIZATION_CODE,))}
    if wanted.isdisjoint((AUTHORIZATION_CODE, DEVICE_CODE)):
        raise _invalid("the grant_types have none with which a session begins")
    # Each session has a refresh token.
    return tuple(grant for grant in GRANT_TYPES if grant in wanted | {REFRESH_TOKEN})


def _response_types(given: Mapping[str, Any], *, is_required: bool) -> tuple[str, ...]:
    if CODE in _texts(given, "response_types", (CODE,)):
        return (CODE,)
    if is_required:
        raise _invalid("the response_types of the authorization_code grant have code")
    return ()


def _redirect_uris(
    given: Mapping[str, Any], host: str, application_type: str, *, is_required: bool
) -> tuple[str, ...]:
    uris = tuple(dict.fromkeys(_texts(given, "redirect_uris", ())))
    if len(uris) > MAX_REDIRECT_URIS:
        raise OAuthError(INVALID_REDIRECT_URI, f"there are over {MAX_REDIRECT_URIS} redirect URIs")
    if is_required and not uris:
        raise OAuthError(INVALID_REDIRECT_URI, "the authorization_code grant needs a redirect URI")
    for uri in uris:
        check_redirect_uri(uri, host, application_type)
    return uris


def _name(given: Mapping[str, Any]) -> str | None:
    name = _text(given, "client_name")
    if name is None:
        return None
    name = name.strip()
    if len(name) > MAX_NAME or any(map(_is_disguising, name)):
        raise _invalid(f"client_name has over {MAX_NAME} characters, or some that are not shown")
    return name or None


def _is_disguising(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in _DISGUISING


def _link(given: Mapping[str, Any], name: str, host: str) -> str | None:
    uri = _text(given, name)
    if uri is None:
        return None
    own = https_host(uri)
    if own is None or not is_within(own, host):
        raise _invalid(f"{name} is not an https URI with the host of the client_uri")
    return uri


def _text(given: Mapping[str, Any], name: str) -> str | None:
    value = given.get(name)
    if value is not None and not isinstance(value, str):
        raise _invalid(f"{name} is not a string")
    return value


def _texts(given: Mapping[str, Any], name: str, default: Sequence[str]) -> Sequence[str]:
    values = given.get(name, default)
    if not isinstance(values, list | tuple) or not all(isinstance(each, str) for each in values):
        raise _invalid(f"{name} is not a list of strings")
    return values


def _invalid(description: str) -> OAuthError:
    return OAuthError(INVALID_CLIENT_METADATA, description)
