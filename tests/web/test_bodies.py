"""Bodies: strings that the database could not store, and bytes that are not text."""

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.concurrency.byte_stream import ByteStream
from homeserver.protocol.errors import BadJson, NotJson
from homeserver.web.arguments import Arguments
from homeserver.web.bodies import check_no_nul, contains_nul, decode_body
from homeserver.web.routes import Route
from tests.federation.receiving.test_malformed_requests import all_routes as federation_routes
from tests.fuzz.routes import all_routes as client_routes

texts = st.text(st.sampled_from('\0\\u0é"'))
documents = st.recursive(texts, lambda inner: st.lists(inner) | st.dictionaries(texts, inner))


@given(documents)
def test_nul_is_found_in_bytes_and_in_values_alike(document: object) -> None:
    """The fast check of the bytes and the slow one of the values always agree."""
    has_nul = contains_nul(msgspec.json.encode(document))

    if has_nul:
        with pytest.raises(BadJson):
            check_no_nul(document)
    else:
        check_no_nul(document)


class Opaque(msgspec.Struct):
    """A body with names, and a member that is stored as bytes."""

    names: dict[str, list[str]]
    data: msgspec.Raw


@pytest.mark.parametrize("names", [{"\0": ["a"]}, {"a": ["b", "\0"]}])
def test_nul_is_found_in_every_name_of_a_body(names: dict[str, list[str]]) -> None:
    """Names become columns of tables, however deep they are in the body."""
    with pytest.raises(BadJson):
        check_no_nul(Opaque(names, msgspec.Raw(b"{}")))


def test_opaque_json_may_have_nul() -> None:
    """Clients encrypt or sign it, and get the same bytes back."""
    check_no_nul(Opaque({"a": ["b"]}, msgspec.Raw(b'{"a":"\\u0000"}')))


class Wanted(msgspec.Struct):
    """A body of which one member is used."""

    used: int = 0


@pytest.mark.parametrize(
    "body", [b'{"other":"\xff"}', b'{"used":1,"other":{"a":["\xed\xa0\x80"]}}', b'{"\xc0\x80":1}']
)
def test_body_that_is_not_utf8_throughout_is_not_json(body: bytes) -> None:
    """Even in a member that is not used."""
    for kind in (Wanted, dict[str, Any], Any):
        with pytest.raises(NotJson):
            decode_body(msgspec.json.Decoder(kind), body)


def reads_body(route: Route) -> bool:
    """Whether the body of a route is decoded for its handler."""
    return route.handler.__annotations__.get("body", bytes) not in (bytes, ByteStream)


@pytest.mark.parametrize(
    "route",
    [route for route in (*client_routes(), *federation_routes()) if reads_body(route)],
    ids=lambda route: f"{route.method} {route.path}",
)
def test_every_endpoint_refuses_bodies_that_are_not_utf8(route: Route) -> None:
    """No endpoint has a decoder of its own that is more lenient."""
    names = [part[1:-1] for part in route.path.split("/") if part.startswith("{")]
    request: Any = SimpleNamespace(body=b'{"x":"\xff"}', parameters={}, origin="x", caller=None)
    arguments = Arguments(route, names)
    # What else a handler wants of the request is not asked for here.
    arguments._query = None

    with pytest.raises(NotJson):
        arguments.fill(["x"] * len(names), None, request)
