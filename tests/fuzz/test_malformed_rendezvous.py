"""Malformed requests to a rendezvous session: refused, or stored as they are, but never half of it.

Its id is needed, and its bodies and conditions are no JSON, so the test of all endpoints does not
reach this.

Spec: https://github.com/matrix-org/matrix-spec-proposals/pull/4388
"""

import http.client
import json
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homeserver.accounts.rendezvous.rendezvous_sessions import MAX_PAYLOAD
from homeserver.protocol.proposals.unstable_names import ENTITY_TAG_RENDEZVOUS, RENDEZVOUS
from tests.fuzz.malformed import any_json
from tests.support.process import ServerProcess, running_server

pytestmark = pytest.mark.interop
TEXT = "text/plain"
KNOWN = "the latest"  # stands for the tag of the payload
bodies = st.one_of(
    st.binary(max_size=50),
    st.text(max_size=50).map(str.encode),
    st.integers(MAX_PAYLOAD - 2, MAX_PAYLOAD + 2).map(lambda size: b"x" * size),
    st.sampled_from([b"", b"\0", b"\xed\xa0\x80", b"x" * 70_000]),
)
header_values = st.text(st.characters(max_codepoint=255, blacklist_categories=("Cc",)), max_size=40)
types = st.one_of(st.none(), st.sampled_from([TEXT, "TEXT/PLAIN; charset=x", "a/b"]), header_values)
conditions = st.one_of(
    st.none(), st.sampled_from([KNOWN, f'W/"{KNOWN}"', "*", f"{KNOWN}, {KNOWN}"]), header_values
)
Answer = tuple[int, dict[str, str], bytes]


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """A server with the API."""
    overrides = {"public_baseurl": "http://localhost", "oauth": {"enabled": True}}
    with running_server(overrides) as process:
        yield process


def test_a_payload_is_stored_as_it_is_or_not_at_all(server: ServerProcess) -> None:
    """A device reads what the other one has written, whatever strangers send in between."""

    @settings(max_examples=300, deadline=None, derandomize=True, database=None)
    @given(body=bodies, content_type=types, condition=conditions)
    def every_write_is_answered(
        body: bytes, content_type: str | None, condition: str | None
    ) -> None:
        path = new_session(server)
        _, read, before = send(server, "GET", path)
        given_headers = {"Content-Type": content_type, "If-Match": condition}
        headers = {
            name: value.replace(KNOWN, read["etag"].strip('"'))
            for name, value in given_headers.items()
            if value is not None
        }
        status, _, answer = send(server, "PUT", path, body, headers)
        _, _, after = send(server, "GET", path)
        send(server, "DELETE", path)
        if status == 202:
            assert after == body
        else:
            assert json.loads(answer)["errcode"].startswith("M_")
            assert (after, 400 <= status < 500) == (before, True)

    every_write_is_answered()


def test_json_is_stored_as_it_is_or_not_at_all(server: ServerProcess) -> None:
    """The same for the form that has the payload in JSON."""

    @settings(max_examples=200, deadline=None, derandomize=True, database=None)
    @given(data=any_json, token=st.one_of(st.just(KNOWN), any_json))
    def every_write_is_answered(data: object, token: object) -> None:
        path = new_session(server).replace(ENTITY_TAG_RENDEZVOUS, RENDEZVOUS)
        before = json.loads(send(server, "GET", path)[2])
        sent = before["sequence_token"] if token == KNOWN else token
        body = json.dumps({"sequence_token": sent, "data": data})
        status, _, _ = send(server, "PUT", path, body.encode("utf-8", "surrogatepass"))
        after = json.loads(send(server, "GET", path)[2])
        send(server, "DELETE", path)
        assert after["data"] == (data if status == 200 else before["data"])

    every_write_is_answered()


def new_session(server: ServerProcess) -> str:
    """The path of a new session."""
    status, _, answer = send(
        server, "POST", ENTITY_TAG_RENDEZVOUS, b"before", {"Content-Type": TEXT}
    )
    assert status == 201, answer
    return str(json.loads(answer)["url"]).removeprefix("http://localhost")


def send(
    server: ServerProcess,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> Answer:
    """A response, which is never an error of the server."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    encoded = {name: value.encode("latin-1") for name, value in (headers or {}).items()}
    try:
        connection.request(method, path, body, encoded)
        response = connection.getresponse()
        content = response.read()
        assert response.status < 500, (response.status, content)
        found = {name.lower(): value for name, value in response.headers.items()}
        return response.status, found, content
    finally:
        connection.close()
