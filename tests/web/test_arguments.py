"""Arguments: the values for the parameters of handlers."""

from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.errors import BadJson, InvalidParam, MissingParam, NotJson
from homeserver.web.arguments import Arguments
from homeserver.web.routes import Auth, Route


@dataclass
class Content:
    """A request, as far as arguments need it."""

    body: bytes = b""
    parameters: dict[str, list[str]] = field(default_factory=dict)


class Optional(msgspec.Struct):
    reason: str | None = None


class Search(msgspec.Struct):
    q: str
    limit: int = 10
    exact: bool = False
    server: list[str] = []
    from_: str | None = msgspec.field(name="from", default=None)


def fill(handler: Any, request: Content | None = None, **path: str) -> dict[str, Any]:
    arguments = Arguments(Route("POST", "/", handler, Auth.OPTIONAL), list(path))
    return arguments.fill(list(path.values()), None, request or Content())


class TestBody:
    def test_empty_body_is_read_as_an_object_where_all_is_optional(self) -> None:
        """Clients join rooms with no body at all."""

        def join(body: Optional) -> None: ...

        assert fill(join) == {"body": Optional()}

    def test_empty_body_is_the_default_where_there_is_one(self) -> None:
        """A handler may distinguish it from `{}`."""

        def logout(body: dict[str, Any] | None = None) -> None: ...

        assert fill(logout) == {"body": None}
        assert fill(logout, Content(b'{"a": 1}')) == {"body": {"a": 1}}

    def test_missing_body_is_refused_where_it_is_needed(self) -> None:
        """An event without content is an error of the client."""

        def send(body: dict[str, Any]) -> None: ...

        with pytest.raises(NotJson):
            fill(send)

    def test_free_form_content_may_hold_any_string(self) -> None:
        """Event content is stored as bytes, and the specification forbids no character in it."""

        def send(body: dict[str, Any]) -> None: ...

        assert fill(send, Content(b'{"body": "\\u0000"}')) == {"body": {"body": "\0"}}

    def test_raw_body_is_checked_but_kept(self) -> None:
        """Content that only passes through is not decoded twice."""

        def send(body: msgspec.Raw) -> None: ...

        assert bytes(fill(send, Content(b'{"b":1, "a":2}'))["body"]) == b'{"b":1, "a":2}'
        with pytest.raises(NotJson):
            fill(send, Content(b'{"b":'))

    @pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 100_000, b'{"n": 1' + b"0" * 9000])
    def test_hostile_json_is_refused_and_not_fatal(self, body: bytes) -> None:
        """Nesting and huge numbers are the usual attacks on parsers."""

        def send(body: dict[str, Any]) -> None: ...

        with pytest.raises((NotJson, BadJson)):
            fill(send, Content(body))


class TestQuery:
    def test_values_are_converted_and_unknown_names_passed_over(self) -> None:
        """Clients add parameters of extensions that this server does not have."""

        def search(query: Search) -> None: ...

        query = {"q": ["a", "b"], "limit": ["5"], "exact": ["true"], "server": ["x", "y"]}
        filled = fill(search, Content(parameters={**query, "from": ["t"], "other": ["1"]}))

        assert filled == {"query": Search("a", 5, True, ["x", "y"], "t")}

    def test_missing_and_wrong_parameters_have_errcodes_of_their_own(self) -> None:
        """`M_MISSING_PARAM` and `M_INVALID_PARAM` are specified."""

        def search(query: Search) -> None: ...

        with pytest.raises(MissingParam, match="`q`"):
            fill(search)
        with pytest.raises(InvalidParam, match="limit"):
            fill(search, Content(parameters={"q": ["a"], "limit": ["few"]}))

    def test_free_query_comes_as_it_is(self) -> None:
        """Third-party look-ups have parameters that each bridge chooses."""

        def look_up(query: dict[str, list[str]]) -> None: ...

        query = {"nick": ["a", "b"]}
        assert fill(look_up, Content(parameters=query)) == {"query": query}


class TestSignature:
    def test_path_parameter_that_is_not_in_the_path_takes_its_default(self) -> None:
        """One handler serves state with and without a state key."""

        def state(event_type: str, state_key: str = "") -> None: ...

        assert fill(state, event_type="m.x") == {"event_type": "m.x"}

    def test_signature_that_cannot_be_filled_is_found_at_registration(self) -> None:
        """A typing error must not wait for the first request."""

        def unknown(rooom_id: str) -> None: ...
        def deaf() -> None: ...
        def stranger(caller: Requester) -> None: ...

        with pytest.raises(TypeError, match="rooom_id"):
            fill(unknown)
        with pytest.raises(TypeError, match="room_id"):
            fill(deaf, room_id="!a")
        with pytest.raises(TypeError, match="no caller"):
            Arguments(Route("GET", "/", stranger, Auth.NONE), [])
