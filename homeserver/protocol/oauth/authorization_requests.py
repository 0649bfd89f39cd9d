"""Authorisation requests: with what a client sends the user's browser to this server, and back.

An error of the client or of the redirect URI is shown to the user: nothing proves that the address
belongs to the client. Any other error goes to the client, at that address.

Spec: https://spec.matrix.org/v1.19/client-server-api/#authorisation-code-flow
"""

from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlencode

import msgspec

from homeserver.protocol.oauth.client_metadata import AUTHORIZATION_CODE, CODE, ClientMetadata
from homeserver.protocol.oauth.code_challenges import S256, is_valid_challenge
from homeserver.protocol.oauth.errors import (
    INVALID_REQUEST,
    UNAUTHORIZED_CLIENT,
    UNSUPPORTED_RESPONSE_TYPE,
    OAuthError,
)
from homeserver.protocol.oauth.redirect_uris import find_redirect_uri
from homeserver.protocol.oauth.scopes import Scope, parse_scope

QUERY: Final = "query"
FRAGMENT: Final = "fragment"
RESPONSE_MODES: Final = (QUERY, FRAGMENT)
MAX_STATE = 2_048  # characters

PROMPT_CREATE: Final = "create"
PROMPT_LOGIN: Final = "login"
PROMPT_NONE: Final = "none"

Parameters = Mapping[str, Sequence[str]]


class Callback(msgspec.Struct, frozen=True):
    """The address to which the browser returns, with the outcome."""

    redirect_uri: str
    mode: str
    state: str | None

    def address(self, issuer: str, outcome: Mapping[str, str]) -> str:
        """The address with an outcome of this server.

        The issuer in it lets a client that knows several servers detect a mix-up (RFC 9207).
        """
        state = {} if self.state is None else {"state": self.state}
        text = urlencode({**outcome, **state, "iss": issuer})
        if self.mode == FRAGMENT:
            return f"{self.redirect_uri}#{text}"
        joint = "&" if "?" in self.redirect_uri else "?"
        return f"{self.redirect_uri}{joint}{text}"


class AuthorizationRequest(msgspec.Struct, frozen=True):
    """What a client asks of the user."""

    scope: Scope
    code_challenge: str


def single_parameter(parameters: Parameters, name: str) -> str | None:
    """A parameter, or `None` if it is missing or empty. Raises `OAuthError` if it is repeated.

    Source: https://datatracker.ietf.org/doc/html/rfc6749#section-3.1
    """
    values = parameters.get(name, ())
    if len(values) > 1:
        raise OAuthError(INVALID_REQUEST, f"the parameter {name} is repeated")
    return values[0] if values and values[0] else None


def parse_callback(parameters: Parameters, client: ClientMetadata) -> Callback:
    """Where to return to. Raises `OAuthError` unless the client has registered the address."""
    requested = single_parameter(parameters, "redirect_uri")
    if requested is None:
        raise OAuthError(INVALID_REQUEST, "the redirect_uri is missing")
    redirect_uri = find_redirect_uri(requested, client.redirect_uris)
    if redirect_uri is None:
        raise OAuthError(INVALID_REQUEST, "the client has not registered this redirect_uri")
    # What is wrong with these two is found by `parse_authorization_request`.
    modes = parameters.get("response_mode", ())
    mode = FRAGMENT if FRAGMENT in modes else QUERY
    states = parameters.get("state", ())
    state = states[0] if len(states) == 1 and len(states[0]) <= MAX_STATE else None
    return Callback(redirect_uri, mode, state)


def prompts_of(parameters: Parameters) -> frozenset[str]:
    """The prompts that the client asks for; unknown ones have no effect."""
    return frozenset(prompt for value in parameters.get("prompt", ()) for prompt in value.split())


def parse_authorization_request(
    parameters: Parameters, client: ClientMetadata
) -> AuthorizationRequest:
    """The request of a client whose callback is valid. Raises `OAuthError`."""
    for name in parameters:
        single_parameter(parameters, name)
    if any(len(values[0]) > MAX_STATE for values in parameters.values() if values):
        raise OAuthError(INVALID_REQUEST, "a parameter is too long")
    if AUTHORIZATION_CODE not in client.grant_types:
        raise OAuthError(UNAUTHORIZED_CLIENT, "the client has not registered this grant type")
    response_type = single_parameter(parameters, "response_type")
    if response_type is None:
        raise OAuthError(INVALID_REQUEST, "the response_type is missing")
    if response_type != CODE:
        raise OAuthError(UNSUPPORTED_RESPONSE_TYPE, "the only response_type is code")
    if single_parameter(parameters, "response_mode") not in (None, *RESPONSE_MODES):
        raise OAuthError(INVALID_REQUEST, "the response_mode is query or fragment")
    prompts = prompts_of(parameters)
    if PROMPT_NONE in prompts and len(prompts) > 1:
        raise OAuthError(INVALID_REQUEST, "the prompt none excludes others")
    challenge = single_parameter(parameters, "code_challenge") or ""
    if single_parameter(parameters, "code_challenge_method") != S256:
        raise OAuthError(INVALID_REQUEST, "the code_challenge_method has to be S256")
    if not is_valid_challenge(challenge):
        raise OAuthError(INVALID_REQUEST, "the code_challenge is missing or invalid")
    scope = parse_scope(single_parameter(parameters, "scope") or "")
    return AuthorizationRequest(scope, challenge)
