"""Addresses of clients, with the login token that they get."""

from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.single_sign_on.client_urls import (
    InvalidClientUrl,
    check_client_url,
    client_of,
    is_trusted,
    with_login_token,
)

NAMES = st.sampled_from(["a", "loginToken", "login%54oken", "b"])
PAIRS = st.lists(st.tuples(NAMES, st.text("xy")))


def pairs_of(url: str) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(url).query, keep_blank_values=True)


@given(PAIRS, st.sampled_from(["", "#f", "#f?loginToken=1"]))
def test_the_token_is_the_only_one_and_all_else_is_unchanged(
    pairs: list[tuple[str, str]], fragment: str
) -> None:
    """The client finds its own parameters, in their order, and one token."""
    url = "https://c.example/p?" + "&".join(f"{name}={value}" for name, value in pairs) + fragment

    found = pairs_of(with_login_token(url, "T"))

    kept = [pair for pair in pairs_of(url) if pair[0] != "loginToken"]
    assert found == [*kept, ("loginToken", "T")]
    assert urlsplit(with_login_token(url, "T")).fragment == fragment[1:]


def test_encoded_parameters_stay_as_they_are() -> None:
    """What a client has encoded in its own way comes back in the same way."""
    assert (
        with_login_token("https://client?p=http%3A%2F%2Fserver", "T")
        == "https://client?p=http%3A%2F%2Fserver&loginToken=T"
    )
    assert with_login_token("app://x", "T") == "app://x?loginToken=T"


@pytest.mark.parametrize(
    "url",
    [
        "https://app.example",
        "https://app.example:8443/a?b=c#d",
        "http://localhost:8080/",
        "http://[::1]/",
        "element://connect",
        "im.example.app:/callback",
    ],
)
def test_web_pages_and_applications_are_clients(url: str) -> None:
    """A client may be a page, or an application that opens its own addresses."""
    check_client_url(url)


@given(st.text())
def test_what_is_accepted_is_safe_in_a_header(text: str) -> None:
    """No accepted address can begin another header, or is read differently by a browser."""
    for url in (text, f"https://{text}", f"app:{text}"):
        try:
            check_client_url(url)
        except InvalidClientUrl:
            continue
        assert url.isascii()
        assert url.isprintable()
        assert not set(url) & {" ", "\\"}
        assert client_of(url).isascii()


@pytest.mark.parametrize(
    ("url", "trusted", "expected"),
    [
        ("https://a.example/app/x?y", "https://a.example/app", True),
        ("https://a.example/app", "https://a.example/app/", False),
        ("https://a.example/app/", "https://a.example/app/", True),
        ("https://A.example:443/app", "https://a.example/app", True),
        ("https://a.example/", "https://a.example", True),
        ("https://a.example", "https://a.example/", False),
        ("https://a.example/apple", "https://a.example/app", False),
        ("https://a.example/app/../evil", "https://a.example/app", False),
        ("https://a.example/app/%2e%2E/evil", "https://a.example/app", False),
        ("https://a.example/app/%2e%2e%5cevil", "https://a.example/app", False),
        ("https://a.example.evil/app", "https://a.example/app", False),
        ("https://a.example:8443/app", "https://a.example/app", False),
        ("http://a.example/app", "https://a.example/app", False),
        ("app://x/y", "app://x", True),
        ("app://z/y", "app://x", False),
        ("https://[/app", "https://[/app", False),
    ],
)
def test_a_trusted_client_is_an_origin_and_what_is_below_a_path(
    url: str, trusted: str, expected: bool
) -> None:
    """Another host, port, scheme or path is another client."""
    assert is_trusted(url, [trusted]) is expected
