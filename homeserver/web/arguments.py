"""Arguments: a handler's parameters, analysed once and filled for each request.

The rules are in `routes.py`. A signature that cannot be filled is a programming error, so it is
found when the route is registered, not when the first request arrives.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from copy import copy
from functools import lru_cache
from typing import Any, Protocol, get_origin, get_type_hints

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.concurrency.byte_stream import ByteStream
from homeserver.concurrency.lru_cache import LruCache
from homeserver.protocol.errors import InvalidParam, MissingParam, NotJson
from homeserver.web.bodies import (
    check_no_nul,
    check_no_nul_in_names,
    contains_nul,
    decode_body,
)
from homeserver.web.query import parse_query
from homeserver.web.routes import Auth, Route

MAX_REMEMBERED = 1_000  # queries of a route
MAX_REMEMBERED_BYTES = 512

# Nothing in it is encoded, so that a name is found as it is.
_PLAIN_QUERY = re.compile(rb"[-.~\w=&]*", re.ASCII)
_SPECIAL = ("caller", "origin", "body", "query", "request")

_Signature = tuple[Mapping[str, inspect.Parameter], Mapping[str, Any]]  # parameters and types


class RequestContent(Protocol):
    """The parts of a request from which arguments are made."""

    @property
    def body(self) -> bytes:
        """The body of the request."""

    @property
    def stream(self) -> ByteStream | None:
        """The body while it arrives, if the handler asked for it."""

    @property
    def query(self) -> bytes:
        """The query string."""

    @property
    def parameters(self) -> dict[str, list[str]]:
        """The query parameters."""

    @property
    def origin(self) -> str | None:
        """The server that signed the request, if its route requires a signature."""


class Arguments:
    """The arguments of one handler.

    `path_names` are the names in braces of the route's path; `is_body_streamed` says that the
    handler reads the body while it arrives. Raises `TypeError` if the handler has a parameter that
    cannot be filled, or lacks one of the path.
    """

    def __init__(self, route: Route, path_names: list[str]) -> None:
        parameters, hints = _signature_of(route.handler)
        for name, parameter in parameters.items():
            known = name in _SPECIAL or name in path_names
            if not known and parameter.default is parameter.empty:
                raise TypeError(f"{_named(route)}: nothing to fill `{name}` with")
        for name in path_names:
            if name not in parameters:
                raise TypeError(f"{_named(route)}: the handler has no parameter `{name}`")
        if "caller" in parameters and route.auth in (Auth.NONE, Auth.SERVER):
            raise TypeError(f"{_named(route)}: a route without access tokens has no caller")
        if "origin" in parameters and route.auth is not Auth.SERVER:
            raise TypeError(f"{_named(route)}: only requests from servers have an origin")
        self._path_names = path_names
        self._caller = "caller" in parameters
        self._origin = "origin" in parameters
        self._request = "request" in parameters
        self.is_body_streamed = hints.get("body") is ByteStream
        self._body = None
        if not self.is_body_streamed:
            self._body = _body_reader(route, parameters.get("body"), hints.get("body"))
        self._query: Callable[[RequestContent], Any] | None = None
        if "query" in parameters:
            read = _query_reader(hints["query"])
            self._query = lambda request: read(request.parameters)
            if route.varies is not None:
                self._query = RepeatedQueries(read, route.varies).read

    def fill(
        self, path_values: list[str], caller: Requester | None, request: RequestContent
    ) -> dict[str, Any]:
        """The keyword arguments for one request.

        Raises `NotJson`, `BadJson`, `InvalidParam` or `MissingParam`.
        """
        arguments: dict[str, Any] = {}
        if path_values:
            arguments = dict(zip(self._path_names, path_values, strict=True))
        if self._caller:
            arguments["caller"] = caller
        if self._origin:
            arguments["origin"] = request.origin
        if self._query is not None:
            arguments["query"] = self._query(request)
        if self._body is not None:
            arguments["body"] = self._body(request.body)
        elif self.is_body_streamed:
            arguments["body"] = request.stream
        if self._request:
            arguments["request"] = request
        return arguments


class RepeatedQueries:
    """Reads the query parameters of requests that clients repeat with one of them changed.

    The others are the same in nearly all of them, so what they were converted to is remembered by
    their bytes. `varies` is the one that changes, a `str | None`.
    """

    def __init__(self, read: Callable[[dict[str, list[str]]], Any], varies: str) -> None:
        self._read = read
        self._varies = varies
        self._name = varies.encode()
        self._prefix = self._name + b"="
        self._known: LruCache[bytes, Any] = LruCache("", MAX_REMEMBERED)

    def read(self, request: RequestContent) -> Any:
        """The parameters of a request. Raises `InvalidParam` or `MissingParam`."""
        query = request.query
        at = query.find(self._prefix)
        is_usual = at == 0 or (at > 0 and query[at - 1 : at] == b"&")
        if not is_usual or len(query) > MAX_REMEMBERED_BYTES or not _PLAIN_QUERY.fullmatch(query):
            return self._read(request.parameters)
        value, _, after = query[at + len(self._prefix) :].partition(b"&")
        others = query[:at] + after
        if self._name in others or b"access_token" in others:
            return self._read(request.parameters)
        known = self._known.get(others)
        if known is None:
            known = self._known.put(others, self._read(parse_query(others)))
        found = copy(known)
        setattr(found, self._varies, value.decode() or None)
        return found


def _signature_of(handler: Callable[..., Any]) -> _Signature:
    """The parameters of a handler, and the types of their annotations."""
    if not inspect.ismethod(handler):
        return inspect.signature(handler).parameters, get_type_hints(handler)
    # The function is known again at the next server of a process; its object must not be held.
    parameters, hints = _signature_of_function(handler.__func__)
    return dict([*parameters.items()][1:]), hints


@lru_cache(maxsize=1_000)
def _signature_of_function(function: Callable[..., Any]) -> _Signature:
    return inspect.signature(function).parameters, get_type_hints(function)


def _body_reader(
    route: Route, parameter: inspect.Parameter | None, annotation: Any
) -> Callable[[bytes], Any] | None:
    if parameter is None:
        return None
    if annotation is bytes:
        return lambda body: body
    decoder = _decoder_of(annotation)
    # Clients leave out the body if every member is optional, although the specification requires
    # `{}`.
    has_default = parameter.default is not parameter.empty
    may_be_empty = isinstance(annotation, type) and _accepts_empty_object(annotation)
    # Free-form content becomes event content, which is stored as bytes and may contain any string.
    typed = _is_struct(annotation)

    def read(body: bytes) -> Any:
        if not body:
            if has_default:
                return parameter.default
            if not may_be_empty:
                raise NotJson("The request has no body; it needs a JSON object")
            body = b"{}"
        value = decode_body(decoder, body)
        if typed and contains_nul(body):
            if route.auth is not Auth.SERVER:
                check_no_nul(value)
            else:
                # Other users or servers wrote what a server passes on.
                check_no_nul_in_names(value)
        return value

    return read


@lru_cache(maxsize=1_000)
def _decoder_of(annotation: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(annotation)


@lru_cache(maxsize=1_000)
def _query_reader(annotation: Any) -> Callable[[dict[str, list[str]]], Any]:
    if not _is_struct(annotation):
        return lambda parameters: parameters  # unconverted: `dict[str, list[str]]`
    fields = msgspec.structs.fields(annotation)
    lists = {field.encode_name for field in fields if get_origin(field.type) in (list, tuple)}
    names = {field.encode_name for field in fields}
    required = [field.encode_name for field in fields if field.required]
    # Clients that have no value yet send an empty one: libQuotient `from=` after a join.
    may_be_empty = {field.encode_name for field in fields if field.default is None}

    def read(parameters: dict[str, list[str]]) -> Any:
        for name in required:
            if name not in parameters:
                raise MissingParam(f"The query parameter `{name}` is missing")
        values = {
            name: values if name in lists else values[0]
            for name, values in parameters.items()
            if name in names and not (name in may_be_empty and values[0] == "")
        }
        try:
            return msgspec.convert(values, annotation, strict=False)
        except msgspec.ValidationError as error:
            raise InvalidParam(f"Query parameter: {error}") from None

    return read


def _is_struct(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, msgspec.Struct)


@lru_cache(maxsize=1_000)
def _accepts_empty_object(annotation: type) -> bool:
    return _is_struct(annotation) and not any(
        field.required for field in msgspec.structs.fields(annotation)
    )


def _named(route: Route) -> str:
    return f"{route.method} {route.path}"
