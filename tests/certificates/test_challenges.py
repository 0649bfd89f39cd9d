"""Challenges: served for the order in progress alone; everything else leads to HTTPS."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.certificates.challenges import (
    MAX_CHALLENGES,
    Challenges,
    ChallengesApi,
    NoSuchChallenge,
)
from homeserver.protocol.errors import InvalidParam, MethodNotAllowed
from homeserver.web.responses import ResponseHeads
from homeserver.web.router import Router
from homeserver.web.routes import OTHER_PATHS, Response

TOKEN = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0"
RESPONSE = f"{TOKEN}.9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI"
CHALLENGES = "/.well-known/acme-challenge"
NAMES = ("example.org", "m.example.org")


class FakeRequest:
    """A request for a path, with a Host header."""

    def __init__(self, target: bytes, host: str | None) -> None:
        self.path, _, self.query = target.partition(b"?")
        self._host = host

    def header(self, name: bytes) -> str | None:
        return self._host if name == b"Host" else None


def api(challenges: Challenges | None = None, public_baseurl: str | None = None) -> ChallengesApi:
    return ChallengesApi(challenges or Challenges(), "example.org", NAMES, public_baseurl)


def redirected(target: bytes, host: str | None, public_baseurl: str | None = None) -> str:
    """Where a request leads."""
    request: Any = FakeRequest(target, host)
    response = api(public_baseurl=public_baseurl).redirect(request)
    # The header can be sent as it is.
    ResponseHeads().head(response.status, 0, response.headers, now=0, close=False)
    assert response.status == 301
    return response.headers["Location"]


def test_only_the_tokens_of_the_order_are_served() -> None:
    """And only while it is in progress."""
    challenges = Challenges()
    one = api(challenges)

    challenges.add(TOKEN, RESPONSE)
    served = one.get_challenge(TOKEN)
    challenges.clear()

    assert isinstance(served, Response)
    assert (served.status, served.body) == (200, RESPONSE.encode())
    assert served.headers["Content-Type"] == "text/plain"
    with pytest.raises(NoSuchChallenge) as refused:
        one.get_challenge(TOKEN)
    assert refused.value.body()["server_name"] == "example.org"


@pytest.mark.parametrize(
    ("token", "response"),
    [
        ("", "."),
        ("../../etc/passwd", "../../etc/passwd.x"),
        ("a b", "a b.x"),
        ("a" * 257, f"{'a' * 257}.x"),
        (TOKEN, TOKEN),
        (TOKEN, f"{TOKEN}."),
        (TOKEN, f"{TOKEN}.x<script>"),
        (TOKEN, f"{TOKEN}.x\r\n"),
        (TOKEN, f"other.{TOKEN}"),
    ],
)
def test_an_authority_cannot_have_other_content_served(token: str, response: str) -> None:
    """A hostile one would use this server for pages of its own."""
    with pytest.raises(ValueError, match="malformed"):
        Challenges().add(token, response)


def test_challenges_are_bounded() -> None:
    """However many an authority asks for."""
    challenges = Challenges()

    for number in range(MAX_CHALLENGES):
        challenges.add(f"t{number}", f"t{number}.x")

    with pytest.raises(ValueError, match="too many"):
        challenges.add(TOKEN, RESPONSE)


@pytest.mark.parametrize(
    "path",
    [
        b"/.well-known/acme-challenge/..%2f..%2fetc%2fpasswd",
        b"/.well-known/acme-challenge/../../../etc/passwd",
        b"/.well-known/acme-challenge/a/b",
        b"/.well-known/acme-challenge/",
        b"/.well-known/acme-challenge//" + TOKEN.encode(),
        b"/.well-known/acme-challenge/" + TOKEN.encode() + b"%00",
        b"/.well-known//acme-challenge/" + TOKEN.encode(),
    ],
)
def test_other_spellings_of_a_path_reveal_nothing(path: bytes) -> None:
    """No file is read for a challenge, so there is nothing to reach."""
    challenges = Challenges()
    challenges.add(TOKEN, RESPONSE)
    one = api(challenges)

    try:
        endpoint, values = Router(one.routes()).match("GET", path)
    except InvalidParam:
        return

    if endpoint.route.path != OTHER_PATHS:
        with pytest.raises(NoSuchChallenge):
            one.get_challenge(*values)


def test_every_other_path_is_redirected_and_no_other_method() -> None:
    """A password that was sent without encryption must not seem to have arrived well."""
    router = Router(api().routes())

    for method in ("GET", "HEAD"):
        for path in (b"/", b"/_matrix/client/versions", b"/a/b/c", b"//evil.example", b"*"):
            assert router.match(method, path)[0].route.path == OTHER_PATHS
    for path in (b"/_matrix/client/v3/login", f"{CHALLENGES}/{TOKEN}".encode()):
        with pytest.raises(MethodNotAllowed) as refused:
            router.match("POST", path)
        assert refused.value.headers()["Allow"] == "GET, HEAD, OPTIONS"


@pytest.mark.parametrize(
    ("target", "host", "location"),
    [
        (b"/", "example.org", "https://example.org/"),
        (b"/a?b=c&d=%2F", "M.Example.org:80", "https://m.example.org/a?b=c&d=%2F"),
        (b"/a", "m.example.org.", "https://m.example.org/a"),
        (b"/a", "evil.example", "https://example.org/a"),
        (b"/a", None, "https://example.org/a"),
        (b".evil.example", "example.org", "https://example.org/"),
        (b"@evil.example", "example.org", "https://example.org/"),
        (b"*", "example.org", "https://example.org/"),
        (b"/a", "[::1", "https://example.org/a"),
        (b"/a", "example.org@evil.example", "https://example.org/a"),
        (b"//evil.example/", "evil.example", "https://example.org//evil.example/"),
        (b'/\xa0<">', "example.org", "https://example.org/%A0%3C%22%3E"),
    ],
)
def test_redirects_lead_to_the_same_path_of_a_name_of_the_certificate(
    target: bytes, host: str | None, location: str
) -> None:
    """No link to this server leads to another one."""
    assert redirected(target, host) == location


@given(
    st.binary(max_size=40).map(lambda rest: rest.translate(None, bytes(range(33)))),
    st.text(max_size=30),
)
def test_no_redirect_leaves_the_names_of_the_certificate(target: bytes, host: str) -> None:
    """Whatever a client writes."""
    assert redirected(target, host).startswith(("https://example.org/", "https://m.example.org/"))


def test_another_port_of_https_is_that_of_the_published_address() -> None:
    """A server behind a router may have it at another one."""
    location = redirected(b"/a", None, "https://m.example.org:8443/x")

    assert location == "https://m.example.org:8443/a"
    assert redirected(b"/a", "example.org", "http://m.example.org") == "https://example.org/a"
