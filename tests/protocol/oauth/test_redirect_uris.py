"""Redirect URIs: the examples of the specification, and attempts to get one past the rules."""

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.oauth.errors import OAuthError
from homeserver.protocol.oauth.redirect_uris import (
    NATIVE,
    WEB,
    check_redirect_uri,
    find_redirect_uri,
    is_loopback,
    origin_of,
)

HOST = "example.com"
WEB_URIS = (
    "https://example.com/callback",
    "https://app.example.com/callback",
    "https://example.com:5173/?query=value",
)
NATIVE_URIS = (
    "com.example.app:/callback",
    "com.example:/",
    "com.example:callback",
    "http://localhost/callback",
    "http://127.0.0.1/callback",
    "http://[::1]/callback",
    "http://localhost",
)


def refusal(uri: str, application_type: str, host: str = HOST) -> str | None:
    """The error for a URI, if it is refused."""
    try:
        check_redirect_uri(uri, host, application_type)
    except OAuthError as error:
        return error.errcode
    return None


@pytest.mark.parametrize("uri", WEB_URIS)
def test_web_clients_register_https_uris_of_their_host(uri: str) -> None:
    """The examples of the specification; native apps may claim such addresses, too."""
    assert refusal(uri, WEB) is None
    assert refusal(uri, NATIVE) is None


@pytest.mark.parametrize("uri", NATIVE_URIS)
def test_native_clients_register_private_schemes_and_loopback(uri: str) -> None:
    """The examples of the specification; a web client has no use for them."""
    assert refusal(uri, NATIVE) is None
    assert refusal(uri, WEB) == "invalid_redirect_uri"


@pytest.mark.parametrize(
    "uri",
    [
        "https://example.com/callback#fragment",
        "https://example.com/callback#",
        "http://example.com/callback",
        "example:/callback",
        "com.example.app://callback",
        "com.examplevil:/callback",
        "https://localhost/callback",
        "http://localhost:1234/callback",
        "http://localhost@evil.test/callback",
        "http://localhost.evil.test/callback",
        "http://127.0.0.1.evil.test/",
        "https://evil.test/",
        "https://notexample.com/",
        "https://example.com.evil.test/",
        "https://example.com@evil.test/",
        "https://user:secret@example.com/",
        "https://example.com\\@evil.test/",
        "https://evil.test\\.example.com/",
        "https://example.com:0/",
        "https://example.com:99999/",
        "https://example.com./",
        "https://ex..example.com/",
        "https:example.com/callback",
        "https:///example.com/callback",
        "HTTPS://example.com/",
        " https://example.com/",
        "https://example.com/ ",
        "https://example.com/\r\nSet-Cookie: a=b",
        "https://example.com/\x00",
        "https://exämple.com/",
        'https://example.com/"><script>',
        "javascript:alert(1)",
        "data:text/html,hello",
        "com.example",
        "",
        "https://example.com/" + "a" * 2_048,
    ],
)
def test_other_redirect_uris_are_refused(uri: str) -> None:
    """A code must not be sent to a place that the client does not own."""
    assert refusal(uri, NATIVE) == "invalid_redirect_uri"
    assert refusal(uri, WEB) == "invalid_redirect_uri"


def test_a_top_level_domain_owns_no_other_host() -> None:
    """A client that calls itself `com` cannot have the codes of all clients."""
    assert refusal("https://example.com/", WEB, "com") == "invalid_redirect_uri"
    assert refusal("com.example:/", NATIVE, "com") == "invalid_redirect_uri"
    assert refusal("https://1.192.0.2.3/", WEB, "192.0.2.3") == "invalid_redirect_uri"


@given(st.text(max_size=60), st.sampled_from([WEB, NATIVE]))
def test_what_is_registered_has_a_known_form(text: str, application_type: str) -> None:
    """No spelling passes whose owner is somebody else, or that breaks a header line."""
    for uri in (text, f"https://{text}", f"com.example:{text}", f"http://localhost{text}"):
        if refusal(uri, application_type) is not None:
            continue
        assert uri.isascii()
        assert uri.isprintable()
        assert "#" not in uri
        parts = urlsplit(uri)
        if parts.scheme == "https":
            assert parts.hostname is not None
            assert parts.hostname == HOST or parts.hostname.endswith("." + HOST)
        elif parts.scheme == "http":
            assert parts.hostname in ("localhost", "127.0.0.1", "::1")
        else:
            assert parts.scheme.startswith("com.example")
            assert parts.netloc == ""


@given(st.integers(1, 65_535))
def test_a_loopback_uri_matches_on_any_port(port: int) -> None:
    """A native program listens on the port that is free at the moment."""
    for host in ("http://localhost", "http://127.0.0.1", "http://[::1]"):
        requested = f"{host}:{port}/callback?a=b"
        assert find_redirect_uri(requested, [f"{host}/callback?a=b"]) == requested
        assert is_loopback(requested)
        assert find_redirect_uri(requested, [f"{host}/other"]) is None
        assert find_redirect_uri(requested, [f"{host}.evil.test/callback?a=b"]) is None


@pytest.mark.parametrize(
    "requested",
    [
        "http://localhost:0/callback",
        "http://localhost:65536/callback",
        "http://localhost:99999999/callback",
        "http://localhost:/callback",
        "http://localhost:80@evil.test/callback",
        "http://localhost:80/callback#a",
        "http://localhost:80/callback/",
        "http://localhost:80/callback\r\n",
        "https://localhost:80/callback",
        "http://127.0.0.1:80/callback",
        "http://LOCALHOST/callback",
    ],
)
def test_nothing_but_the_port_may_differ(requested: str) -> None:
    """Another path or host of the machine may belong to another program."""
    assert find_redirect_uri(requested, ["http://localhost/callback"]) is None


@given(st.text(max_size=30))
def test_all_other_uris_match_exactly(suffix: str) -> None:
    """An address that only resembles a registered one gets no code."""
    for uri in (*WEB_URIS, "com.example:/"):
        found = find_redirect_uri(uri + suffix, [uri])
        assert found == (uri if suffix == "" else None)


@pytest.mark.parametrize(
    ("uri", "source"),
    [
        ("https://app.example.com:8443/a?b=c", "https://app.example.com:8443"),
        ("http://localhost:1234/a", "http://localhost:1234"),
        ("http://[::1]:1234/a", "http:"),
        ("com.example.app:/a", "com.example.app:"),
    ],
)
def test_a_page_may_redirect_to_the_client_alone(uri: str, source: str) -> None:
    """Browsers apply the policy of a form to the redirect that follows."""
    assert origin_of(uri) == source
