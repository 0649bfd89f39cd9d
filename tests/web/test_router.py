"""The router: the endpoint of a path."""

from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.errors import InvalidParam, Unrecognized
from homeserver.web.router import NoSuchMethod, Router
from homeserver.web.routes import Auth, Route

literals = st.text("abcdefghijklmnopqrstuvwxyz0123456789._~-", min_size=1, max_size=8)
values = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


def handler(**values: str) -> dict[str, str]:
    return values


def route(method: str, path: str) -> Route:
    """A route with a handler that takes exactly the parameters of its path."""
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    namespace: dict[str, Any] = {}
    exec(f"def answer({', '.join(names)}): pass", namespace)
    return Route(method, path, namespace["answer"], Auth.NONE)


def match(router: Router, method: str, path: str) -> tuple[str, list[str]]:
    endpoint, found = router.match(method, path.encode())
    return endpoint.route.path, found


@given(st.lists(st.tuples(st.booleans(), literals, values), min_size=1, max_size=6))
def test_every_path_that_a_pattern_formats_is_matched_by_it(
    parts: list[tuple[bool, str, str]],
) -> None:
    """A client that fills in a path with any values reaches the endpoint with these."""
    pattern = "".join(
        f"/{{p{number}}}" if is_parameter else f"/{literal}"
        for number, (is_parameter, literal, _) in enumerate(parts)
    )
    path = "".join(
        f"/{quote(value, safe='')}" if is_parameter else f"/{literal}"
        for is_parameter, literal, value in parts
    )

    found = match(Router([route("GET", pattern)]), "GET", path)

    assert found == (pattern, [value for is_parameter, _, value in parts if is_parameter])


def test_literal_beats_parameter() -> None:
    """`/rooms/public` is not the room called public."""
    router = Router([route("GET", "/rooms/{room}"), route("GET", "/rooms/public")])

    assert match(router, "GET", "/rooms/public") == ("/rooms/public", [])
    assert match(router, "GET", "/rooms/other") == ("/rooms/{room}", ["other"])


def test_parameter_takes_what_the_literal_cannot_finish() -> None:
    """`/rules/default/x` belongs to the rule set called default where no other route fits."""
    router = Router([route("GET", "/rules/default"), route("GET", "/rules/{set}/{rule}")])

    assert match(router, "GET", "/rules/default/x") == ("/rules/{set}/{rule}", ["default", "x"])


def test_parameter_takes_the_methods_that_the_literal_lacks() -> None:
    """A profile field may have a route of its own for reading only."""
    router = Router([route("GET", "/profile/name"), route("DELETE", "/profile/{field}")])

    assert match(router, "DELETE", "/profile/name") == ("/profile/{field}", ["name"])
    with pytest.raises(NoSuchMethod) as refused:
        match(router, "PUT", "/profile/name")
    assert refused.value.headers() == {"Allow": "DELETE, GET, HEAD, OPTIONS"}


def test_slash_at_the_end_makes_no_difference() -> None:
    """Clients request the state event with the empty state key in both ways."""
    pattern = "/state/{type}"
    router = Router([route("GET", pattern), route("GET", "/state/{type}/{key}")])

    assert match(router, "GET", "/state/m.room.name") == (pattern, ["m.room.name"])
    assert match(router, "GET", "/state/m.room.name/") == (pattern, ["m.room.name"])
    assert match(router, "GET", "/state/m.x/key") == ("/state/{type}/{key}", ["m.x", "key"])


def test_slash_of_the_route_is_part_of_it() -> None:
    """`/rules/` lists them all, `/rules` is nothing, and `/rules/one` stays what it is."""
    router = Router(
        [route("GET", "/rules/"), route("GET", "/rules/all/"), route("GET", "/{any}/{x}")]
    )

    assert match(router, "GET", "/rules/") == ("/rules/", [])
    assert match(router, "GET", "/rules/all/") == ("/rules/all/", [])
    assert match(router, "GET", "/rules/all") == ("/{any}/{x}", ["rules", "all"])
    with pytest.raises(Unrecognized):
        match(router, "GET", "/rules")
    with pytest.raises(Unrecognized):
        match(router, "PUT", "/rules")


def test_parameter_is_never_empty() -> None:
    """An identifier that is missing from the path is not an identifier."""
    router = Router([route("GET", "/rooms/{room}/state")])

    with pytest.raises(Unrecognized):
        match(router, "GET", "/rooms//state")


def test_encoded_literal_is_the_same_path() -> None:
    """Some clients encode more than necessary."""
    assert match(Router([route("GET", "/a.b/c")]), "GET", "/a%2Eb/%63") == ("/a.b/c", [])


@pytest.mark.parametrize("api", ["client", "media"])
def test_r0_is_v3(api: str) -> None:
    """Clients from before 2021 use r0."""
    pattern = f"/_matrix/{api}/v3/things/{{name}}"
    router = Router([route("GET", pattern), route("GET", f"/_matrix/{api}/v1/things")])

    assert match(router, "GET", f"/_matrix/{api}/r0/things/x") == (pattern, ["x"])


@pytest.mark.parametrize("path", ["/a/%ff", "/a/%00", "/a/\udcff".encode("utf-8", "ignore")])
def test_path_that_is_not_text_is_refused(path: str | bytes) -> None:
    """Nothing on the server can have such a name."""
    raw = path if isinstance(path, bytes) else path.encode()
    router = Router([route("GET", "/a/{b}")])

    with pytest.raises((InvalidParam, NoSuchMethod, Unrecognized)):
        router.match("GET", raw)


def test_two_routes_for_one_request_are_a_mistake() -> None:
    """The second would never be reached."""
    with pytest.raises(ValueError, match="two routes"):
        Router([route("GET", "/a/{b}"), route("GET", "/a/{c}")])
