"""Malformed forms of a user who is signed in with a browser: refused, never answered with a 500.

Spec: https://spec.matrix.org/v1.19/client-server-api/#oauth-20-account-management
"""

import http.client
from collections.abc import Iterator
from urllib.parse import quote_plus, urlencode

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homeserver.accounts.browser_sessions.browser_sessions import COOKIE, form_token_of
from tests.clients.plain_client import Http, password_of, register
from tests.fuzz.malformed import hostile_text
from tests.fuzz.test_malformed_oauth_requests import CLIENT, OAUTH, VALID
from tests.support.process import SHARED_SECRET, ServerProcess, running_server

pytestmark = pytest.mark.interop
ACCOUNT = "/_matrix/account"
ACTIONS = (
    "org.matrix.profile",
    "org.matrix.devices_list",
    "org.matrix.device_view",
    "org.matrix.device_delete",
    "org.matrix.cross_signing_reset",
    "io.homeserver.addresses",
)
FIELDS = {
    "action": "org.matrix.profile",
    "address": "alice@example.com",
    "client_secret": "a",
    "decision": "allow",
    "device_id": "ABC",
    "display_name": "Alice",
    "email": "alice@example.com",
    "medium": "email",
    "sid": "1",
    "redirectUrl": "https://client.example/",
}
hostile = st.one_of(
    hostile_text.filter(lambda text: len(text) < 1_000).map(
        lambda text: quote_plus(text.encode("utf-8", "surrogatepass"))
    ),
    st.sampled_from(["%", "%ff", "%00", "%zz", "", *ACTIONS]),
)


class Session(msgspec.Struct, frozen=True):
    """A browser's session, and the client that asks its user."""

    secret: str
    client_id: str


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """A server with the pages."""
    overrides = {"public_baseurl": "http://localhost", "oauth": {"enabled": True}}
    with running_server(overrides) as process:
        yield process


@pytest.fixture(scope="module")
def session(server: ServerProcess) -> Session:
    """A user who is signed in."""
    register(server.url, SHARED_SECRET, "alice")
    path = f"{ACCOUNT}/sign_in"
    _, page = request(server, "GET", path, {}, b"")
    form_cookie = (page or "").partition(";")[0]
    fields = {
        "form_token": form_token_of(form_cookie.partition("=")[2]),
        "user": "alice",
        "password": password_of("alice"),
    }
    status, cookie = request(
        server, "POST", path, {"Cookie": form_cookie}, urlencode(fields).encode()
    )
    assert status == 303
    name, _, secret = (cookie or "").partition(";")[0].partition("=")
    assert name == COOKIE
    client = Http(server.url).request("POST", f"{OAUTH}/register", CLIENT)
    return Session(secret, client["client_id"])


@pytest.mark.parametrize(
    "path", [f"{OAUTH}/authorize", f"{OAUTH}/link", ACCOUNT, f"{ACCOUNT}/client_login"]
)
def test_malformed_forms_are_refused(server: ServerProcess, session: Session, path: str) -> None:
    """Whatever a page is sent with a valid session, the user sees a page."""
    valid = VALID | FIELDS | {"client_id": session.client_id, "prompt": "consent"}
    headers = {"Cookie": f"{COOKIE}={session.secret}"}
    token = urlencode({"form_token": form_token_of(session.secret)})

    @settings(max_examples=200, deadline=None, derandomize=True, database=None)
    @given(
        action=st.sampled_from(ACTIONS),
        changes=st.dictionaries(st.sampled_from([*valid, "other"]), hostile, max_size=4),
        left_out=st.sets(st.sampled_from([*valid]), max_size=3),
    )
    def every_form_is_answered(action: str, changes: dict[str, str], left_out: set[str]) -> None:
        replaced = left_out | changes.keys()
        kept = {name: value for name, value in valid.items() if name not in replaced}
        pairs = [urlencode(kept | ({} if "action" in replaced else {"action": action}))]
        query = "&".join(pairs + [f"{name}={value}" for name, value in changes.items()])
        for method, body in (("GET", b""), ("POST", f"{token}&{query}".encode())):
            status, _ = request(server, method, f"{path}?{query}", headers, body)
            assert status < 500, (method, query)

    every_form_is_answered()
    assert request(server, "GET", ACCOUNT, headers, b"")[0] == 200, "the session has lasted"


def request(
    server: ServerProcess, method: str, target: str, headers: dict[str, str], body: bytes
) -> tuple[int, str | None]:
    """The status of a response, and the cookie that it sets."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        connection.request(method, target, body, {"Accept": "text/html", **headers})
        response = connection.getresponse()
        response.read()
        return response.status, response.headers.get("Set-Cookie")
    finally:
        connection.close()
