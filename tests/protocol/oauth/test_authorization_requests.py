"""Authorisation requests: which are shown to the user, which are refused, and how they end."""

from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.oauth.authorization_requests import (
    Callback,
    parse_authorization_request,
    parse_callback,
)
from homeserver.protocol.oauth.client_metadata import ClientMetadata, parse_client_metadata
from homeserver.protocol.oauth.code_challenges import challenge_of
from homeserver.protocol.oauth.errors import OAuthError
from homeserver.protocol.oauth.scopes import API, DEVICE

CLIENT = parse_client_metadata(
    {
        "client_uri": "https://example.com/",
        "redirect_uris": ["https://example.com/cb", "https://example.com/cb?a=b"],
    }
)
ISSUER = "https://matrix.example.org/"
REQUEST = {
    "response_type": ["code"],
    "client_id": ["x"],
    "redirect_uri": ["https://example.com/cb"],
    "scope": [f"{API[0]} {DEVICE[0]}ABC"],
    "state": ["a state"],
    "code_challenge": [challenge_of("a")],
    "code_challenge_method": ["S256"],
}


def test_a_valid_request() -> None:
    """What the user is asked, and where the browser goes afterwards."""
    request = parse_authorization_request(REQUEST, CLIENT)

    assert request.scope.device_id == "ABC"
    assert request.code_challenge == challenge_of("a")
    assert parse_callback(REQUEST, CLIENT) == Callback("https://example.com/cb", "query", "a state")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": []}, "invalid_request"),
        ({"response_type": ["token"]}, "unsupported_response_type"),
        ({"response_type": ["code id_token"]}, "unsupported_response_type"),
        ({"response_mode": ["form_post"]}, "invalid_request"),
        ({"scope": []}, "invalid_scope"),
        ({"scope": ["openid"]}, "invalid_scope"),
        ({"code_challenge": []}, "invalid_request"),
        ({"code_challenge": ["short"]}, "invalid_request"),
        ({"code_challenge_method": []}, "invalid_request"),
        ({"code_challenge_method": ["plain"]}, "invalid_request"),
        ({"prompt": ["none login"]}, "invalid_request"),
        ({"state": ["a", "b"]}, "invalid_request"),
        ({"state": ["a" * 2_049]}, "invalid_request"),
        ({"nonce": ["a", "a"]}, "invalid_request"),
    ],
)
def test_other_requests_are_refused(changes: dict[str, list[str]], error: str) -> None:
    """The client learns what is wrong, at its own address."""
    request = REQUEST | changes

    assert parse_callback(request, CLIENT).redirect_uri == "https://example.com/cb"
    with pytest.raises(OAuthError) as refused:
        parse_authorization_request(request, CLIENT)
    assert refused.value.errcode == error


@pytest.mark.parametrize(
    "uris",
    [
        [],
        ["https://example.com/"],
        ["https://example.com/cb/"],
        ["https://example.com/cb", "https://example.com/cb"],
        ["https://example.com/cb", "https://evil.test/"],
    ],
)
def test_an_address_that_is_not_registered_gets_nothing(uris: list[str]) -> None:
    """Neither a code nor a user is sent to a stranger's address."""
    with pytest.raises(OAuthError):
        parse_callback(REQUEST | {"redirect_uri": uris}, CLIENT)


def test_a_client_has_the_grants_that_it_registered() -> None:
    """One without the grant gets no codes."""
    device_code = "urn:ietf:params:oauth:grant-type:device_code"
    metadata = {"client_uri": "https://example.com/", "grant_types": [device_code]}
    client: ClientMetadata = parse_client_metadata(
        {**metadata, "redirect_uris": ["https://example.com/cb"]}
    )

    with pytest.raises(OAuthError) as refused:
        parse_authorization_request(REQUEST, client)
    assert refused.value.errcode == "unauthorized_client"


@given(st.text(), st.text(), st.sampled_from(["query", "fragment"]), st.booleans())
def test_the_client_reads_what_it_was_sent(
    code: str, state: str, mode: str, has_query: bool
) -> None:
    """Whatever its state is, it comes back as it was, and adds no header and no parameter."""
    uri = CLIENT.redirect_uris[has_query]

    address = Callback(uri, mode, state).address(ISSUER, {"code": code})

    assert address.isascii()
    assert address.isprintable()
    assert address.startswith(uri)
    parts = urlsplit(address)
    sent = parts.fragment if mode == "fragment" else parts.query
    expected = {"code": code, "state": state, "iss": ISSUER}
    own = {"a": "b"} if has_query and mode == "query" else {}
    assert dict(parse_qsl(sent, keep_blank_values=True)) == own | expected
