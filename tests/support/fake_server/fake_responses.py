"""The responses of a well-behaved server, from the rooms that it holds.

Spec: https://spec.matrix.org/v1.19/server-server-api/
"""

from collections.abc import Mapping
from secrets import token_bytes
from typing import Any

from homeserver.protocol.authorization.auth_types import auth_types_for
from homeserver.protocol.events import Event
from homeserver.protocol.room_versions import ROOM_VERSIONS
from homeserver.protocol.signing.signatures import SigningKey, sign_json
from tests.support.fake_server.fake_http import NOT_FOUND, Answer, Handler, Received, always
from tests.support.room_graph import RoomGraph, now_ms

VALID_MS = 24 * 60 * 60 * 1000


class Holdings:
    """The data of a scripted server. `name` is set when it starts.

    `pdus` and `edus` are those received in transactions, `invites` the accepted events, by room;
    `aliases` and `profiles` are what it responds about its rooms and users. With `omits_members` a
    joining server that allows it gets no members.
    """

    omits_members = False

    def __init__(self) -> None:
        self.name = ""
        self.key = SigningKey.from_seed("fake", token_bytes(32))
        self.rooms: dict[str, RoomGraph] = {}
        self.aliases: dict[str, str] = {}
        self.profiles: dict[str, dict[str, Any]] = {}
        self.pdus: list[Mapping[str, Any]] = []
        self.edus: list[Mapping[str, Any]] = []
        self.invites: dict[str, Event] = {}


class DefaultResponses:
    """The responses of a well-behaved server, from the rooms that it holds."""

    def __init__(self, holdings: Holdings) -> None:
        self._held = holdings

    def get_server_key(self, request: Received) -> Answer:
        """Publish the key, signed with itself."""
        held = self._held
        response = {
            "server_name": held.name,
            "valid_until_ts": now_ms() + VALID_MS,
            "verify_keys": {held.key.key_id: {"key": held.key.verify_key}},
            "old_verify_keys": {},
        }
        return Answer(200, sign_json(response, held.name, held.key))

    def get_version(self, request: Received) -> Answer:
        return Answer(200, {"server": {"name": "scripted", "version": "1"}})

    def send_transaction(self, request: Received) -> Answer:
        """Store all events of known rooms, without any check."""
        results = {}
        for pdu in request.body.get("pdus", []):
            self._held.pdus.append(pdu)
            graph = self._held.rooms.get(pdu.get("room_id", ""))
            if graph is not None:
                results[graph.put(Event.from_pdu(graph.version, pdu)).event_id] = {}
        self._held.edus += request.body.get("edus", [])
        return Answer(200, {"pdus": results})

    def make_join(self, request: Received) -> Answer:
        return self._template(request, "join")

    def make_leave(self, request: Received) -> Answer:
        return self._template(request, "leave")

    def make_knock(self, request: Received) -> Answer:
        return self._template(request, "knock")

    def send_join_v2(self, request: Received) -> Answer:
        graph, event = self._sent(request)
        state = [graph.events[id_] for id_ in graph.state_before(event).values()]
        omits = self._held.omits_members and request.first("omit_members") == "true"
        if omits:
            state = [one for one in state if one.type != "m.room.member"]
        body = {
            "origin": self._held.name,
            "members_omitted": omits,
            "state": graph.given(state),
            "auth_chain": graph.given(
                graph.auth_chain([*(one.event_id for one in state), event.event_id])
            ),
            "event": event.pdu,
            "servers_in_room": sorted(graph.servers),
        }
        return Answer(200, body)

    def send_leave_v2(self, request: Received) -> Answer:
        self._sent(request)
        return Answer(200, {})

    def send_knock(self, request: Received) -> Answer:
        graph, _ = self._sent(request)
        stripped = [graph.state_event(name) for name in ("m.room.create", "m.room.join_rules")]
        return Answer(200, {"knock_room_state": graph.given(stripped)})

    def send_invite_v2(self, request: Received) -> Answer:
        """Accept the invite with this server's signature."""
        version = ROOM_VERSIONS[request.body["room_version"]]
        event = Event.from_pdu(version, request.body["event"])
        key = self._held.key
        signed = event.with_signature(self._held.name, key.key_id, key.sign(event.signing_bytes()))
        self._held.invites[event.room_id] = signed
        return Answer(200, {"event": signed.pdu})

    def get_event(self, request: Received) -> Answer:
        event_id = request.path["event_id"]
        for graph in self._held.rooms.values():
            if event_id in graph.events and event_id not in graph.withheld:
                return self._pdus([graph.events[event_id].pdu])
        return NOT_FOUND

    def get_room_state(self, request: Received) -> Answer:
        graph, state, chain = self._state(request)
        return Answer(200, {"pdus": graph.given(state), "auth_chain": graph.given(chain)})

    def get_room_state_ids(self, request: Received) -> Answer:
        _, state, chain = self._state(request)
        body = {
            "pdu_ids": [event.event_id for event in state],
            "auth_chain_ids": [event.event_id for event in chain],
        }
        return Answer(200, body)

    def get_event_auth(self, request: Received) -> Answer:
        graph = self._room(request)
        chain = graph.auth_chain([request.path["event_id"]])
        return Answer(200, {"auth_chain": graph.given(chain)})

    def backfill_room(self, request: Received) -> Answer:
        graph = self._room(request)
        events = graph.before(request.query["v"], int(request.first("limit", "10")))
        return self._pdus(graph.given(events))

    def get_missing_previous_events(self, request: Received) -> Answer:
        graph, body = self._room(request), request.body
        latest, earliest = body["latest_events"], body["earliest_events"]
        limit = body.get("limit", 10) + len(latest)
        events = [
            event
            for event in graph.before(latest, limit, stop=earliest)
            if event.event_id not in latest and event.depth >= body.get("min_depth", 0)
        ]
        return Answer(200, {"events": graph.given(reversed(events))})

    def get_event_by_timestamp(self, request: Received) -> Answer:
        """The closest event of all, without a check of its visibility."""
        wanted, events = int(request.first("ts")), self._room(request).events.values()
        if request.first("dir") == "b":
            there = [event for event in events if event.origin_server_ts <= wanted]
            there.sort(key=lambda event: event.origin_server_ts, reverse=True)
        else:
            there = [event for event in events if event.origin_server_ts >= wanted]
            there.sort(key=lambda event: event.origin_server_ts)
        if not there:
            return NOT_FOUND
        found = there[0]
        body = {"event_id": found.event_id, "origin_server_ts": found.origin_server_ts}
        return Answer(200, body)

    def query_room_directory(self, request: Received) -> Answer:
        room_id = self._held.aliases.get(request.first("room_alias"))
        if room_id is None:
            return NOT_FOUND
        return Answer(200, {"room_id": room_id, "servers": [self._held.name]})

    def query_profile(self, request: Received) -> Answer:
        profile = self._held.profiles.get(request.first("user_id"))
        return NOT_FOUND if profile is None else Answer(200, profile)

    def get_media(self, request: Received) -> Answer:
        """It has no files."""
        return NOT_FOUND

    def get_old_media(self, request: Received) -> Answer:
        """Nor had it any."""
        return NOT_FOUND

    def get_user_devices(self, request: Received) -> Answer:
        body = {"user_id": request.path["user_id"], "stream_id": 1, "devices": []}
        return Answer(200, body)

    def query_user_encryption_keys(self, request: Received) -> Answer:
        return Answer(200, {"device_keys": {}})

    def __getattr__(self, operation: str) -> Handler:
        """Operations without a method above are not supported."""
        unknown = {"errcode": "M_UNRECOGNIZED", "error": f"{operation} is not offered"}
        return always(Answer(404, unknown))

    def _room(self, request: Received) -> RoomGraph:
        return self._held.rooms[request.path["room_id"]]

    def _template(self, request: Received, membership: str) -> Answer:
        graph, user_id = self._held.rooms.get(request.path["room_id"]), request.path["user_id"]
        if graph is None:
            return NOT_FOUND
        version, content = graph.version, {"membership": membership}
        if membership != "leave" and version.identifier not in request.query.get("ver", ["1"]):
            error = {"errcode": "M_INCOMPATIBLE_ROOM_VERSION", "error": "you do not know it"}
            return Answer(400, {**error, "room_version": version.identifier})
        state = graph.state_after(graph.ends)
        keys = auth_types_for(version, "m.room.member", user_id, user_id, content)
        event = {
            "type": "m.room.member",
            "room_id": graph.room_id,
            "sender": user_id,
            "state_key": user_id,
            "content": content,
            "depth": 1 + max(end.depth for end in graph.ends),
            "origin": self._held.name,
            "origin_server_ts": graph.ends[-1].origin_server_ts,
            "prev_events": [end.reference for end in graph.ends],
            "auth_events": [graph.events[state[key]].reference for key in keys if key in state],
        }
        return Answer(200, {"room_version": version.identifier, "event": event})

    def _sent(self, request: Received) -> tuple[RoomGraph, Event]:
        graph = self._room(request)
        return graph, graph.put(Event.from_pdu(graph.version, request.body))

    def _state(self, request: Received) -> tuple[RoomGraph, list[Event], list[Event]]:
        graph = self._room(request)
        at = graph.events[request.first("event_id")]
        state = [graph.events[id_] for id_ in graph.state_before(at).values()]
        return graph, state, graph.auth_chain(event.event_id for event in state)

    def _pdus(self, pdus: list[Mapping[str, Any]]) -> Answer:
        body = {"origin": self._held.name, "origin_server_ts": 0, "pdus": pdus}
        return Answer(200, body)
