"""Malformed requests to the endpoints of the OAuth 2.0 API: refused, never answered with a 500.

Their parameters are forms, which the test of all endpoints does not know.

Spec: https://spec.matrix.org/v1.19/client-server-api/#oauth-20-api
"""

import http.client
import json
from collections.abc import Iterator
from urllib.parse import quote_plus, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from homeserver.protocol.oauth.client_metadata import GRANT_TYPES
from homeserver.protocol.oauth.scopes import API, DEVICE
from tests.clients.plain_client import Http
from tests.fuzz.malformed import any_json, hostile_text
from tests.support.process import ServerProcess, running_server

pytestmark = pytest.mark.interop
OAUTH = "/_matrix/oauth2"
REDIRECT_URI = "http://localhost/callback"
CLIENT = {
    "client_uri": "https://example.com/",
    "client_name": "A client",
    "application_type": "native",
    "redirect_uris": [REDIRECT_URI],
    "grant_types": [*GRANT_TYPES],
    "response_types": ["code"],
    "token_endpoint_auth_method": "none",
}
SCOPE = f"{API[0]} {DEVICE[0]}ABC"
VALID = {
    "grant_type": "authorization_code",
    "response_type": "code",
    "redirect_uri": "http://localhost:1/callback",
    "scope": SCOPE,
    "state": "a state",
    "code_challenge": "a" * 43,
    "code_challenge_method": "S256",
    "code_verifier": "a" * 43,
    "code": "a code",
    "device_code": "a code",
    "user_code": "BCDF-GHJK",
    "refresh_token": "a.1.b",
    "token": "a.1.b",
    "prompt": "none",
    "response_mode": "fragment",
}
hostile = st.one_of(
    hostile_text.filter(lambda text: len(text) < 1_000).map(
        lambda text: quote_plus(text.encode("utf-8", "surrogatepass"))
    ),
    st.sampled_from(["%", "%ff", "%00", "%zz", *GRANT_TYPES, REDIRECT_URI, quote_plus(SCOPE)]),
)


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """A server with the API."""
    overrides = {"public_baseurl": "http://localhost", "oauth": {"enabled": True}}
    with running_server(overrides) as process:
        yield process


@pytest.fixture(scope="module")
def client_id(server: ServerProcess) -> str:
    """A registered client."""
    answer = Http(server.url).request("POST", f"{OAUTH}/register", CLIENT)
    return str(answer["client_id"])


@pytest.mark.parametrize("endpoint", ["token", "revoke", "device", "authorize", "link"])
def test_malformed_forms_are_refused(server: ServerProcess, client_id: str, endpoint: str) -> None:
    """A stranger can neither crash the server nor learn its internals."""
    valid = VALID | {"client_id": client_id}

    @settings(max_examples=300, deadline=None, derandomize=True, database=None)
    @given(
        grant_type=st.sampled_from(GRANT_TYPES),
        changes=st.lists(st.tuples(st.sampled_from([*valid, "other"]), hostile), max_size=3),
        left_out=st.sets(st.sampled_from([*valid]), max_size=2),
    )
    def every_form_is_answered(
        grant_type: str, changes: list[tuple[str, str]], left_out: set[str]
    ) -> None:
        kept = {name: value for name, value in valid.items() if name not in left_out}
        pairs = [urlencode(kept | {"grant_type": grant_type})]
        form = "&".join(pairs + [f"{name}={value}" for name, value in changes])
        if endpoint in ("authorize", "link"):
            send(server, "GET", f"{OAUTH}/{endpoint}?{form}", b"")
            send(server, "POST", f"{OAUTH}/{endpoint}?{form}", form.encode())
        else:
            send(server, "POST", f"{OAUTH}/{endpoint}", form.encode())

    every_form_is_answered()


def test_malformed_metadata_are_refused(server: ServerProcess) -> None:
    """A registration has what the specification allows, or none is made."""

    @settings(
        max_examples=300,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(st.dictionaries(st.sampled_from([*CLIENT, "logo_uri", "tos_uri"]), any_json, max_size=2))
    def every_registration_is_answered(changes: dict[str, object]) -> None:
        body = json.dumps(CLIENT | changes).encode("utf-8", "surrogatepass")
        status, answer = send(server, "POST", f"{OAUTH}/register", body)
        is_refused = status == 413 or answer.get("error", "").startswith("invalid_")
        assert status == 201 or is_refused, answer

    every_registration_is_answered()


def send(
    server: ServerProcess, method: str, target: str, body: bytes
) -> tuple[int, dict[str, str]]:
    """The status and the JSON of a response, which is never an error of the server."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        connection.request(method, target, body)
        response = connection.getresponse()
        content = response.read()
        assert response.status < 500, (response.status, content)
        is_json = (response.headers.get("Content-Type") or "").startswith("application/json")
        return response.status, json.loads(content) if is_json and content else {}
    finally:
        connection.close()
