"""Client metadata: what is kept of a registration, and what is refused."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.oauth.client_metadata import (
    ClientMetadata,
    client_id_of,
    encode_client_metadata,
    parse_client_metadata,
)
from homeserver.protocol.oauth.errors import OAuthError
from tests.protocol.json_values import loose_values

DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
# The example of the specification, and the response to it.
GIVEN: dict[str, Any] = {
    "client_name": "My App",
    "client_name#fr": "Mon application",
    "client_uri": "https://example.com/",
    "logo_uri": "https://example.com/logo.png",
    "tos_uri": "https://example.com/tos.html",
    "tos_uri#fr": "https://example.com/fr/tos.html",
    "policy_uri": "https://example.com/policy.html",
    "policy_uri#fr": "https://example.com/fr/policy.html",
    "redirect_uris": ["https://app.example.com/callback"],
    "token_endpoint_auth_method": "none",
    "response_types": ["code"],
    "grant_types": [
        "authorization_code",
        "refresh_token",
        "urn:ietf:params:oauth:grant-type:token-exchange",
    ],
    "application_type": "web",
}
KEPT = {name: value for name, value in GIVEN.items() if "#" not in name} | {
    "grant_types": ["authorization_code", "refresh_token"]
}


def test_the_example_of_the_specification() -> None:
    """Translations and unknown grants are not registered, and so not in the response."""
    assert msgspec.to_builtins(parse_client_metadata(GIVEN), builtin_types=()) == {
        name: tuple(value) if isinstance(value, list) else value for name, value in KEPT.items()
    }


def test_defaults() -> None:
    """A client that says little is a web client with the common grants."""
    given_members = {"client_uri": "https://a.test", "redirect_uris": ["https://a.test/cb"]}
    metadata = parse_client_metadata({**given_members, "client_name": None})

    assert metadata == ClientMetadata(
        client_uri="https://a.test",
        redirect_uris=("https://a.test/cb",),
        response_types=("code",),
        grant_types=("authorization_code", "refresh_token"),
        token_endpoint_auth_method="none",
        application_type="web",
    )
    assert metadata.name == "a.test"


def test_a_client_without_a_browser_needs_no_redirect_uri() -> None:
    """A program on a television signs in with a code."""
    metadata = parse_client_metadata(
        {"client_uri": "https://a.test", "grant_types": [DEVICE_CODE], "response_types": []}
    )

    assert metadata.grant_types == ("refresh_token", DEVICE_CODE)
    assert metadata.redirect_uris == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"client_uri": None},
        {"client_uri": "http://example.com/"},
        {"client_uri": "https://user@example.com/"},
        {"client_uri": "https://example.com:secret@evil.test/"},
        {"client_uri": "javascript:alert(1)"},
        {"client_uri": 1},
        {"logo_uri": "https://evil.test/logo.png"},
        {"logo_uri": "data:image/png;base64,AAAA"},
        {"tos_uri": "javascript:alert(1)"},
        {"policy_uri": "http://example.com/"},
        {"policy_uri": ["https://example.com/"]},
        {"client_name": "a" * 256},
        {"client_name": "Official\u202eppA"},
        {"client_name": "two\nlines"},
        {"client_name": {}},
        {"token_endpoint_auth_method": "client_secret_basic"},
        {"application_type": "other"},
        {"response_types": ["token"]},
        {"response_types": "code"},
        {"response_types": [1]},
        {"grant_types": []},
        {"grant_types": ["refresh_token"]},
        {"grant_types": ["password"]},
        {"grant_types": "authorization_code"},
        {"redirect_uris": "https://app.example.com/callback"},
    ],
)
def test_invalid_metadata_are_refused(changes: dict[str, Any]) -> None:
    """The user is shown what a client says of itself, so it must be true or plain."""
    with pytest.raises(OAuthError) as refused:
        parse_client_metadata(GIVEN | changes)

    assert refused.value.errcode == "invalid_client_metadata"


@pytest.mark.parametrize(
    "uris",
    [
        [],
        ["https://evil.test/"],
        ["https://app.example.com/callback", "http://localhost/"],
        [f"https://example.com/{number}" for number in range(21)],
    ],
)
def test_invalid_redirect_uris_are_refused(uris: list[str]) -> None:
    """One bad address is enough to steal codes."""
    with pytest.raises(OAuthError) as refused:
        parse_client_metadata(GIVEN | {"redirect_uris": uris})

    assert refused.value.errcode == "invalid_redirect_uri"


def test_metadata_are_bounded() -> None:
    """A stranger cannot fill the database."""
    uris = [f"https://example.com/{number}/{'a' * 2_000}" for number in range(10)]

    with pytest.raises(OAuthError):
        parse_client_metadata(GIVEN | {"redirect_uris": uris})


def test_equal_metadata_have_one_id() -> None:
    """The browsers of thousands of users with one client are one registration."""
    again = dict(reversed(GIVEN.items())) | {"client_name": " My App ", "contacts": ["x"]}
    other = GIVEN | {"client_name": "My other app"}

    ids = [
        client_id_of(encode_client_metadata(parse_client_metadata(each)))
        for each in (GIVEN, again, other)
    ]

    assert ids[0] == ids[1] != ids[2]


MEMBERS = st.sampled_from([*GIVEN, "contacts"])


@given(st.dictionaries(MEMBERS, loose_values), st.sets(MEMBERS))
def test_any_json_is_kept_or_refused(changes: dict[str, Any], left_out: set[str]) -> None:
    """No registration is an error of the server, and what is kept would be kept again."""
    members = {name: value for name, value in GIVEN.items() if name not in left_out}
    try:
        metadata = parse_client_metadata(members | changes)
    except OAuthError:
        return
    encoded = encode_client_metadata(metadata)
    assert msgspec.json.decode(encoded, type=ClientMetadata) == metadata
    assert parse_client_metadata(msgspec.json.decode(encoded)) == metadata
