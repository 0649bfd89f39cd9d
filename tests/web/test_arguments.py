"""Arguments: the values for the parameters of handlers."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.errors import (
    BadJson,
    InvalidParam,
    MatrixError,
    MissingParam,
    NotJson,
)
from homeserver.web import arguments as arguments_module
from homeserver.web.arguments import Arguments, RepeatedQueries
from homeserver.web.query import parse_query
from homeserver.web.routes import Auth, Route


@dataclass
class Content:
    """A request, as far as arguments need it."""

    body: bytes = b""
    query: bytes = b""
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

    def test_an_empty_parameter_that_may_be_left_out_is_none(self) -> None:
        """A client that has no token yet sends an empty one."""

        def search(query: Search) -> None: ...

        assert fill(search, Content(parameters={"q": [""], "from": [""]})) == {"query": Search("")}
        with pytest.raises(InvalidParam, match="limit"):
            fill(search, Content(parameters={"q": ["a"], "limit": [""]}))

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


class Polling(msgspec.Struct):
    since: str | None = None
    timeout: int = 0
    filter: list[str] = []


PAIRS = st.lists(
    st.sampled_from(
        [b"since=s1", b"since=s2", b"since=", b"since", b"since=s%31", b"xsince=s3", b"%73ince=s4",
         b"timeout=1", b"timeout=x", b"filter=a", b"filter=since=s5", b"filter=b+c", b"", b"a=\xff",
         b"since=s6=7", b"access_token=secret"]
    ),
    max_size=5,
)  # fmt: skip


class TestRepeatedQueries:
    @given(st.lists(PAIRS, max_size=6))
    def test_parameters_are_the_same_as_without_memory(self, queries: list[list[bytes]]) -> None:
        """What another client has asked before changes nothing."""

        def outcome(read: Callable[[], Any]) -> Any:
            try:
                return msgspec.to_builtins(read())
            except MatrixError as error:
                return str(error)

        repeated = RepeatedQueries(arguments_module._query_reader(Polling), "since")
        for pairs in queries:
            query = b"&".join(pairs)
            for _ in range(2):
                found = outcome(partial(repeated.read, _Asked(query)))
                expected = outcome(partial(_ordinary, query))
                assert found == expected, query

    def test_others_than_the_one_that_varies_are_converted_once(self) -> None:
        """Millions of polls have the same parameters but for the token."""
        converted: list[Any] = []

        def convert(parameters: dict[str, list[str]]) -> Polling:
            converted.append(parameters)
            return Polling(timeout=int(parameters["timeout"][0]))

        repeated = RepeatedQueries(convert, "since")
        found = [
            repeated.read(_Asked(b"since=s%d&timeout=%d" % (number, number % 2)))
            for number in range(10)
        ]

        assert [(each.since, each.timeout) for each in found[:2]] == [("s0", 0), ("s1", 1)]
        assert len(converted) == 2

    def test_result_belongs_to_one_request(self) -> None:
        """Two clients do not get the same object."""
        repeated = RepeatedQueries(lambda _: Polling(), "since")

        first, second = (repeated.read(_Asked(b"since=s%d" % number)) for number in (1, 2))

        assert (first.since, second.since) == ("s1", "s2")


def _ordinary(query: bytes) -> Any:
    return arguments_module._query_reader(Polling)(parse_query(query))


class _Asked(Content):
    """A request with a query."""

    def __init__(self, query: bytes) -> None:
        self.query = query

    @property
    def parameters(self) -> dict[str, list[str]]:  # type: ignore[override]
        return parse_query(self.query)
