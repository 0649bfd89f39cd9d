"""Routes: which coroutine answers which method and path, and what it may answer.

An API module lists its routes; the router matches requests against them, and `arguments.py` fills
the parameters of the handler by their names:

- a name that stands in braces in the path: that segment, percent-decoded, as `str`;
- `caller`: the `Requester` behind the access token (`Caller | None` with `Auth.OPTIONAL`);
- `origin`: with `Auth.SERVER`, the name of the server that signed the request;
- `body`: the JSON body, decoded and checked by the parameter's annotation; `bytes` gets it as it
  came. An empty body is the parameter's default, or `{}` for a struct whose members are optional;
- `query`: the query parameters, converted by the annotation: a `msgspec.Struct`, or
  `dict[str, list[str]]` for whatever was sent;
- `request`: the `Request`, for the few that need its address, its headers or its connection.

What a handler returns becomes the answer: `None` is `{}`, `msgspec.Raw` is JSON bytes as they are,
an `Response` chooses its own status and headers, an `Upgrade` (`websocket.py`) turns the connection
into a WebSocket, and anything else is encoded as JSON with status 200. Errors are raised
(`homeserver/protocol/errors.py`), never returned.

Spec: https://spec.matrix.org/v1.19/client-server-api/#api-standards
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Auth(Enum):
    """Who may call a route."""

    NONE = "anybody; a token is not looked at"
    OPTIONAL = "anybody; the caller is known if there is a token, which must then be valid"
    GUEST = "users and guests"
    USER = "users, not guests"
    ADMIN = "administrators of this server"
    SERVER = "other servers, by their signature"


@dataclass(frozen=True, slots=True)
class Response:
    """An answer with its own status or headers.

    A `body` of type `bytes` is sent as it is, and then `headers` should name a `Content-Type`;
    anything else is encoded as JSON. Header names and values are ASCII.
    """

    status: int = 200
    body: object = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path.

    `path` names its variable segments in braces: `/_matrix/client/v3/rooms/{room_id}/leave`.
    A handler may stand behind several paths: what a path does not name takes its default.
    `handler` may be a coroutine function or a plain function; plain ones cost a little less.
    `limit` names the rate limit that each call is counted against, before the body is decoded.
    `max_body` (bytes) replaces the listener's limit for the request body.
    `cancellable`: the handler only waits and reads, so it is cancelled when the client goes away or
    the server stops. All others run to their end, because half a write helps nobody.
    `page`: people open it in a browser, where errors are pages too (`html.py`).
    `websocket`: requests that do not ask for a WebSocket are refused with 426.
    """

    method: str
    path: str
    handler: Callable[..., Any]
    auth: Auth = Auth.USER
    limit: str | None = None
    max_body: int | None = None
    cancellable: bool = False
    page: bool = False
    websocket: bool = False
