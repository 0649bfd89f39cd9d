"""Routes: the handler of each method and path, its parameters and its results.

An API module lists its routes; the router matches requests against them, and `arguments.py` fills
the parameters of the handler by their names:

- a name that is in braces in the path: that segment, percent-decoded, as `str`;
- `caller`: the `Requester` behind the access token (`Caller | None` with `Auth.OPTIONAL`);
- `origin`: with `Auth.SERVER`, the name of the server that signed the request;
- `body`: the JSON body, decoded and checked by the parameter's annotation; `bytes` gets it
  undecoded, and a `ByteStream` gets it while it arrives. An empty body is the parameter's default,
  or `{}` for a struct of optional members;
- `query`: the query parameters, converted by the annotation: a `msgspec.Struct`, or
  `dict[str, list[str]]` for all parameters. In a struct, an empty one whose default is `None` is
  `None`;
- `request`: the `Request`, for the few that need its address, its headers or its connection.

The result of a handler becomes the response: `None` is `{}`, `msgspec.Raw` is JSON bytes as they
are, a `Response` has its own status and headers, a `Streamed` is sent while it is being made, an
`Upgrade` (`websocket.py`) turns the connection into a WebSocket, and anything else is encoded as
JSON with status 200. Errors are raised (`homeserver/protocol/errors.py`), never returned.

Spec: https://spec.matrix.org/v1.19/client-server-api/#api-standards
"""

from collections.abc import AsyncGenerator, Callable, Mapping
from enum import Enum
from typing import Any

import msgspec

OTHER_PATHS = "*"
"""The path of a route for all paths that no other route of the listener has."""


class Auth(Enum):
    """The callers that may use a route."""

    NONE = "any client; a token is ignored"
    OPTIONAL = "any client; the caller is known if there is a token, which must be valid"
    GUEST = "users and guests"
    USER = "users, not guests"
    ADMIN = "administrators of this server"
    SERVER = "other servers, by their signature"


class Response(msgspec.Struct, frozen=True):
    """A response with its own status or headers.

    A `body` of type `bytes` is sent unchanged, and then `headers` should have a `Content-Type`;
    anything else is encoded as JSON. Header names and values are ASCII.
    """

    status: int = 200
    body: object = None
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)


class Streamed(msgspec.Struct, frozen=True):
    """A response that is sent part by part, as fast as the client reads (`Request.send_parts`).

    `parts` are JSON together, unless the `headers` have another `Content-Type`; `size` is the
    number of their bytes, if it is known. An error before the first one is an ordinary error
    response; a later one ends the connection, so that the client does not take what it has for the
    whole.
    """

    parts: AsyncGenerator[bytes, None]
    status: int = 200
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    size: int | None = None


class Route(msgspec.Struct, frozen=True):
    """One method of one path.

    `path` names its variable segments in braces: `/_matrix/client/v3/rooms/{room_id}/leave`. A
    handler may serve several paths: parameters that are not in a path get their defaults. `handler`
    may be a coroutine function or a plain function; plain ones cost a little less. `limit` names
    the rate limit that each call is counted against, before the body is decoded. `max_body` (bytes)
    replaces the listener's limit for the request body. `cancellable`: the handler only waits and
    reads, so it is cancelled when the client disconnects or the server stops. All others run to
    their end, so that no write is left half done. `page`: users open it in a browser, where errors
    are pages too (`html.py`). `websocket`: requests that do not ask for a WebSocket are refused
    with 426. `hides_path`: the path has a secret, so the log has the pattern in its place. `varies`
    is the query parameter, a text, that changes when a client repeats the request.
    `request_headers` are those that web clients of any origin may send besides the usual ones.
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
    hides_path: bool = False
    varies: str | None = None
    request_headers: tuple[str, ...] = ()
