"""HTTP below the scripted server: finds the operation of a request, and verifies its signature.

Spec: https://spec.matrix.org/v1.19/server-server-api/#request-authentication
"""

import re
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import unquote

import msgspec
from twisted.internet.defer import Deferred
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from homeserver.protocol.signing.signatures import BadSignature, verify_signed_json
from tests.support.fake_server.fake_http import Answer, Received

FEDERATION = "/_matrix/federation"
OPERATIONS = [
    ("GET", "/_matrix/key/v2/server", "get_server_key"),
    ("GET", "/.well-known/matrix/server", "get_well_known"),
    ("GET", f"{FEDERATION}/v1/version", "get_version"),
    ("PUT", f"{FEDERATION}/v1/send/{{txn_id}}", "send_transaction"),
    ("GET", f"{FEDERATION}/v1/make_join/{{room_id}}/{{user_id}}", "make_join"),
    ("PUT", f"{FEDERATION}/v2/send_join/{{room_id}}/{{event_id}}", "send_join_v2"),
    ("GET", f"{FEDERATION}/v1/make_leave/{{room_id}}/{{user_id}}", "make_leave"),
    ("PUT", f"{FEDERATION}/v2/send_leave/{{room_id}}/{{event_id}}", "send_leave_v2"),
    ("GET", f"{FEDERATION}/v1/make_knock/{{room_id}}/{{user_id}}", "make_knock"),
    ("PUT", f"{FEDERATION}/v1/send_knock/{{room_id}}/{{event_id}}", "send_knock"),
    ("PUT", f"{FEDERATION}/v2/invite/{{room_id}}/{{event_id}}", "send_invite_v2"),
    ("PUT", f"{FEDERATION}/v1/invite/{{room_id}}/{{event_id}}", "send_invite_v1"),
    ("GET", f"{FEDERATION}/v1/event/{{event_id}}", "get_event"),
    ("GET", f"{FEDERATION}/v1/state/{{room_id}}", "get_room_state"),
    ("GET", f"{FEDERATION}/v1/state_ids/{{room_id}}", "get_room_state_ids"),
    ("GET", f"{FEDERATION}/v1/event_auth/{{room_id}}/{{event_id}}", "get_event_auth"),
    ("GET", f"{FEDERATION}/v1/backfill/{{room_id}}", "backfill_room"),
    ("POST", f"{FEDERATION}/v1/get_missing_events/{{room_id}}", "get_missing_previous_events"),
    ("GET", f"{FEDERATION}/v1/timestamp_to_event/{{room_id}}", "get_event_by_timestamp"),
    ("GET", f"{FEDERATION}/v1/query/directory", "query_room_directory"),
    ("GET", f"{FEDERATION}/v1/query/profile", "query_profile"),
    ("GET", f"{FEDERATION}/v1/publicRooms", "get_public_rooms"),
    ("POST", f"{FEDERATION}/v1/publicRooms", "query_public_rooms"),
    ("GET", f"{FEDERATION}/v1/hierarchy/{{room_id}}", "get_space_hierarchy"),
    ("GET", f"{FEDERATION}/v1/user/devices/{{user_id}}", "get_user_devices"),
    ("POST", f"{FEDERATION}/v1/user/keys/query", "query_user_encryption_keys"),
    ("POST", f"{FEDERATION}/v1/user/keys/claim", "claim_user_encryption_keys"),
    ("GET", f"{FEDERATION}/v1/media/download/{{media_id}}", "get_media"),
    ("GET", "/_matrix/media/v3/download/{server_name}/{media_id}", "get_old_media"),
    ("POST", "/_matrix/policy/v1/sign", "ask_policy_server_to_sign"),
]
UNSIGNED = {"get_server_key", "get_well_known", "get_version", "get_old_media"}
ROUTES = [
    (method, re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path)), operation)
    for method, path, operation in OPERATIONS
]
PARAMETER = re.compile(r'(\w+)=(?:"([^"]*)"|([^,]*))')


class Host(Protocol):
    """The server behind the paths."""

    name: str

    def respond(self, request: Received) -> Answer: ...

    async def keys_of(self, server_name: str) -> Mapping[str, str]: ...


class FakeResource(Resource):
    """All paths. A request without a valid signature is refused, as real servers do."""

    isLeaf = True

    def __init__(self, host: Host) -> None:
        super().__init__()
        self._host = host

    def render(self, request: Request) -> int:
        done = Deferred.fromCoroutine(self._answer(request))
        done.addErrback(self._failed, request)
        return NOT_DONE_YET

    async def _answer(self, request: Request) -> None:
        uri = request.uri.decode()
        content = request.content.read()
        body = msgspec.json.decode(content) if content else None
        found = _find(request.method.decode(), uri.partition("?")[0])
        if found is None:
            Answer(404, {"errcode": "M_UNRECOGNIZED", "error": "no such endpoint"}).write(request)
            return
        operation, path = found
        query = {
            name.decode(): [value.decode() for value in values]
            for name, values in request.args.items()
        }
        received = Received(operation, path, query, body)
        if operation not in UNSIGNED:
            try:
                received.origin = await self._origin(request, uri, body)
            except (BadSignature, KeyError) as error:
                Answer(401, {"errcode": "M_UNAUTHORIZED", "error": repr(error)}).write(request)
                return
        self._host.respond(received).write(request)

    async def _origin(self, request: Request, uri: str, body: Any) -> str:
        header = request.getHeader("authorization") or ""
        scheme, _, text = header.partition(" ")
        if scheme != "X-Matrix":
            raise BadSignature("no signature")
        given = {name: quoted or plain for name, quoted, plain in PARAMETER.findall(text)}
        origin, key_id = given["origin"], given["key"]
        if given.get("destination", self._host.name) != self._host.name:
            raise BadSignature("for another server")
        signed = {
            "method": request.method.decode(),
            "uri": uri,
            "origin": origin,
            "destination": self._host.name,
            "signatures": {origin: {key_id: given["sig"]}},
        }
        if body is not None:
            signed["content"] = body
        keys = await self._host.keys_of(origin)
        verify_signed_json(signed, origin, key_id, keys[key_id])
        return origin

    def _failed(self, failure: Any, request: Request) -> None:
        # Shown to the developer; a fault of the test, not of the server.
        Answer(500, {"errcode": "M_UNKNOWN", "error": failure.getTraceback()}).write(request)


def _find(method: str, path: str) -> tuple[str, dict[str, str]] | None:
    for route_method, pattern, operation in ROUTES:
        if method == route_method and (match := pattern.fullmatch(path)):
            return operation, {name: unquote(part) for name, part in match.groupdict().items()}
    return None
