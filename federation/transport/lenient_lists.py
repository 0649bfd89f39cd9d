"""Lists that other servers send: decoded so that one bad element costs no other, a part at a time.

The rules stand in `homeserver/protocol/json_elements.py`.

Spec: https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1sendtxnid
"""

from typing import Annotated, Any, TypeVar

import msgspec

from federation.transport.errors import InvalidResponse
from homeserver.concurrency.clock import Clock
from homeserver.concurrency.cooperative import run_cooperatively
from homeserver.protocol.errors import BadJson, NotJson
from homeserver.protocol.json_elements import NotJsonText, decoding
from homeserver.web.bodies import check_no_nul_in_names, contains_nul

MAX_STATE_EVENTS = 500_000  # of a room, and of what authorises them
MAX_SMALL_LIST = 1_000  # elements of an answer to a question about a part of a room

MAX_NAMES = 100_000  # of servers in a room

StateElements = Annotated[list[msgspec.Raw], msgspec.Meta(max_length=MAX_STATE_EVENTS)]
FewElements = Annotated[list[msgspec.Raw], msgspec.Meta(max_length=MAX_SMALL_LIST)]
NameElements = Annotated[list[msgspec.Raw], msgspec.Meta(max_length=MAX_NAMES)]

SLICE_BYTES = 262_144  # bytes of an answer that are decoded in one turn

T = TypeVar("T")


async def decode_body(clock: Clock, kind: type[T], body: bytes) -> T:
    """The body of a request that holds lists of elements. Raises `NotJson` and `BadJson`."""
    if not body:
        raise NotJson("The request has no body; it needs a JSON object")
    try:
        value: T = await run_cooperatively(clock, decoding(kind, body, is_strict=True))
    except msgspec.ValidationError as error:
        raise BadJson(str(error)) from None
    except NotJsonText as error:
        raise NotJson(f"The body is not JSON: {error}") from None
    if isinstance(value, msgspec.Struct) and contains_nul(body):
        check_no_nul_in_names(value)
    return value


async def decode_response(clock: Clock, server: str, kind: Any, body: bytes) -> Any:
    """The answer of a server. Raises `InvalidResponse`."""
    try:
        return await run_cooperatively(clock, decoding(kind, body, at_once=SLICE_BYTES))
    except (msgspec.ValidationError, NotJsonText) as error:
        raise InvalidResponse(server, f"the answer is not as it should be: {error}") from None
