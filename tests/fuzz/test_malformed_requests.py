"""Malformed requests to every endpoint: refused with an errcode, never answered with a 500.

Spec: https://spec.matrix.org/v1.19/client-server-api/#standard-error-response
"""

import http.client
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from homeserver.web.routes import Route
from tests.clients.plain_client import CLIENT, User, register
from tests.fuzz.malformed import bodies, paths, queries
from tests.fuzz.routes import all_routes
from tests.support.process import SHARED_SECRET, ServerProcess, running_server

pytestmark = pytest.mark.interop
ROUTES = all_routes()
EXAMPLES = 60
WITH_BODY = ("POST", "PUT", "DELETE", "PATCH")


@dataclass(frozen=True)
class Response:
    """A response as it was received."""

    status: int
    content_type: str
    body: bytes


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """The server that all requests go to, with what is off by default."""
    provider = {"kind": "cas", "id": "cas", "name": "CAS", "server_url": "http://127.0.0.1:9"}
    overrides = {
        "public_baseurl": "http://localhost",
        "oauth": {"enabled": True},
        "single_sign_on": {"providers": [provider]},
    }
    with running_server(overrides) as process:
        yield process


@pytest.fixture(scope="module")
def names() -> Iterator[int]:
    """Numbers for accounts: each test has its own, since a route may end the session."""
    return itertools.count(1)


def id_of(route: Route) -> str:
    """The name of a route's test."""
    return f"{route.method} {route.path}"


@pytest.mark.parametrize("with_token", [True, False], ids=["with token", "without token"])
@pytest.mark.parametrize("route", ROUTES, ids=id_of)
def test_malformed_requests_are_refused_with_an_errcode(
    server: ServerProcess, names: Iterator[int], route: Route, *, with_token: bool
) -> None:
    """A stranger can neither crash the server nor learn its internals by malformed requests."""
    user = register(server.url, SHARED_SECRET, f"fuzz{next(names)}")
    known = things_of(user)

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(path=paths(route, known), query=queries(route, known), body=bodies(route, known))
    def every_request_is_answered(path: str, query: str, body: bytes) -> None:
        target = f"{path}?{query}" if query else path
        content = body if route.method in WITH_BODY else None
        response = exchange(server, route.method, target, content, user if with_token else None)
        assert_is_matrix_response(response)

    every_request_is_answered()


def test_unknown_paths_are_refused_with_an_errcode(server: ServerProcess) -> None:
    """A client can distinguish a mistyped path from a missing room."""

    @settings(max_examples=200, deadline=None, derandomize=True, database=None)
    @given(path=st.text("abcmr03%/{}.~;:@!$&'()*+,=", max_size=40))
    def every_path_is_answered(path: str) -> None:
        response = exchange(server, "GET", f"/_matrix/client/v3/nothing/{path}", None, None)
        assert_is_matrix_response(response)
        assert response.status >= 400

    every_path_is_answered()


def test_all_endpoints_are_in_the_table() -> None:
    """An incomplete table would silently leave endpoints untested."""
    assert len(ROUTES) > 40


def things_of(user: User) -> dict[str, str]:
    """Values for variable segments of paths that exist, by the names that paths give them."""
    room_id = user.create_room(preset="public_chat")
    event_id = user.send(room_id, "before the storm", "t0")
    alias = f"#{room_id[1:12]}:localhost"
    user.request("PUT", f"{CLIENT}/directory/room/{quote(alias)}", {"room_id": room_id})
    backup = {"algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": {}}
    version = user.request("POST", f"{CLIENT}/room_keys/version", backup)["version"]
    return {
        "room_id": room_id,
        "room_id_or_alias": alias,
        "room_alias": alias,
        "user_id": user.user_id,
        "device_id": user.device_id,
        "event_id": event_id,
        "event_type": "m.room.message",
        "state_key": user.user_id,
        "txn_id": "t1",
        "receipt_type": "m.read",
        "tag": "m.favourite",
        "filter_id": "0",
        "key_name": "displayname",
        "auth_type": "m.login.terms",
        "version": version,
        "session_id": "a session",
    }


def exchange(
    server: ServerProcess, method: str, target: str, body: bytes | None, user: User | None
) -> Response:
    """One request over a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    headers = {"Content-Type": "application/json"}
    if user is not None:
        headers["Authorization"] = f"Bearer {user.token}"
    try:
        connection.request(method, target, body, headers)
        response = connection.getresponse()
        content_type = response.headers.get("Content-Type", "")
        return Response(response.status, content_type, response.read())
    finally:
        connection.close()


def assert_is_matrix_response(response: Response) -> None:
    """The response is no server error, and an error is JSON with an errcode."""
    assert response.status < 500, response
    if response.content_type.startswith("text/html"):
        # A page for users: of a stage that a client cannot do itself, or behind a link in a mail.
        return
    if response.status in (http.client.FOUND, http.client.SEE_OTHER):
        assert response.body == b"", response
        return
    assert response.content_type.startswith("application/json"), response
    body = json.loads(response.body)
    if response.status >= 400 and set(body) == {"error", "error_description"}:
        # Endpoints of OAuth 2.0 have errors of their own, which clients must not take for Matrix's.
        return
    if response.status >= 400:
        # The 401 of user-interactive authentication lists flows, and has an errcode only after a
        # stage that failed.
        asks_for_stages = response.status == 401 and "flows" in body
        assert asks_for_stages or body["errcode"].startswith("M_"), response
