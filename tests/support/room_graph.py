"""The whole event graph of a room, built by a test: any version, any shape, true or forged.

Events are made and signed as a server of that version would, with the auth events that the rules
select from the state at their place; a test may place them anywhere and choose everything itself.

Spec: https://spec.matrix.org/v1.19/server-server-api/#pdus
"""

import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from homeserver.protocol.authorization.auth_types import auth_types_for
from homeserver.protocol.events import Event, build_event
from homeserver.protocol.room_versions import ROOM_VERSIONS, RoomVersion
from homeserver.protocol.signing.signatures import SigningKey
from homeserver.protocol.state_resolution.resolution import resolve

StateKey = tuple[str, str]
CREATE: StateKey = ("m.room.create", "")


class RoomGraph:
    """The events of one room that a server knows, in the order in which it received them.

    `ends` are the events that no event follows yet; `withheld` are the ids of those that the server
    sends to no other. New events are of `server_name`, signed with `key`.
    """

    def __init__(
        self, version: RoomVersion, room_id: str, server_name: str, key: SigningKey
    ) -> None:
        self.version = version
        self.room_id = room_id
        self.server_name = server_name
        self.key = key
        self.events: dict[str, Event] = {}
        self.ends: list[Event] = []
        self.withheld: set[str] = set()
        self.servers: set[str] = {server_name}
        self._states: dict[str, dict[StateKey, str]] = {}

    @classmethod
    def create(
        cls,
        version: str,
        creator: str,
        server_name: str,
        key: SigningKey,
        *,
        join_rule: str = "public",
        levels: Mapping[str, Any] | None = None,
        content: Mapping[str, Any] | None = None,
    ) -> "RoomGraph":
        """A new room with its creator. `levels` and `content` add to those of the first events."""
        rules = ROOM_VERSIONS[version]
        graph = cls(rules, f"!{secrets.token_hex(8)}:{server_name}", server_name, key)
        first = {"room_version": version, **(content or {})}
        if rules.creator_in_content:
            first["creator"] = creator
        create = graph.add("m.room.create", first, sender=creator, state_key="")
        graph.room_id = create.room_id
        graph.member(creator, "join")
        # The creators of newer rooms outrank all levels, and must not be listed.
        users = {} if rules.creators_outrank_everyone else {creator: 100}
        power = {"users": users, **(levels or {})}
        graph.add("m.room.power_levels", power, sender=creator, state_key="")
        graph.add("m.room.join_rules", {"join_rule": join_rule}, sender=creator, state_key="")
        shared = {"history_visibility": "shared"}
        graph.add("m.room.history_visibility", shared, sender=creator, state_key="")
        return graph

    @classmethod
    def joined(
        cls,
        graph: "RoomGraph",
        state: Iterable[Mapping[str, Any]],
        auth_chain: Iterable[Mapping[str, Any]],
        join: Event,
    ) -> "RoomGraph":
        """Fill an empty graph with the result of a join: all state before the join."""
        before = [Event.from_pdu(graph.version, pdu) for pdu in state]
        for event in (*before, *(Event.from_pdu(graph.version, pdu) for pdu in auth_chain), join):
            graph.events[event.event_id] = event
            graph.servers.add(event.sender_server)
        graph._states[join.event_id] = {
            (event.type, event.state_key or ""): event.event_id for event in (*before, join)
        }
        graph.ends = [join]
        return graph

    def build(
        self,
        event_type: str,
        content: Mapping[str, Any],
        *,
        sender: str,
        state_key: str | None = None,
        after: Sequence[Event] | None = None,
        auth_events: Sequence[Event] | None = None,
        depth: int | None = None,
        ts: int | None = None,
        redacts: str | None = None,
        sticky_ms: int | None = None,
    ) -> Event:
        """An event that no server knows yet. Missing arguments are chosen by the auth rules.

        It follows the events `after`, the ends if none are given; `ts` is in milliseconds. With
        `sticky_ms` it sticks for so long.
        """
        prev = self.ends if after is None else after
        if auth_events is None:
            keys = auth_types_for(self.version, event_type, sender, state_key, content)
            state = self.state_after(prev)
            auth_events = [self.events[state[key]] for key in keys if key in state]
        without_id = event_type == "m.room.create" and self.version.room_id_is_create_hash
        return build_event(
            self.version,
            room_id=None if without_id else self.room_id,
            type=event_type,
            sender=sender,
            content=dict(content),
            state_key=state_key,
            prev_events=prev,
            auth_events=auth_events,
            depth=1 + max((event.depth for event in prev), default=0) if depth is None else depth,
            origin_server_ts=now_ms() if ts is None else ts,
            redacts=redacts,
            members={} if sticky_ms is None else {"msc4354_sticky": {"duration_ms": sticky_ms}},
            server_name=self.server_name,
            key=self.key,
        )

    def add(self, event_type: str, content: Mapping[str, Any], **choices: Any) -> Event:
        """Build an event and put it into the graph; `choices` are those of `build`."""
        return self.put(self.build(event_type, content, **choices))

    def member(
        self, user_id: str, membership: str, *, sender: str | None = None, **choices: Any
    ) -> Event:
        """Add a membership event, of the user's own unless `sender` is given."""
        content = {"membership": membership}
        return self.add(
            "m.room.member", content, sender=sender or user_id, state_key=user_id, **choices
        )

    def say(self, sender: str, text: str, **choices: Any) -> Event:
        """Add a text message."""
        content = {"msgtype": "m.text", "body": text}
        return self.add("m.room.message", content, sender=sender, **choices)

    def crowd(self, number: int) -> list[Event]:
        """Let many users of this server join, `@crowd0:` and so on."""
        return [self.member(f"@crowd{n}:{self.server_name}", "join") for n in range(number)]

    def put(self, event: Event) -> Event:
        """Store an event of any server; it becomes an end of the graph."""
        if event.event_id in self.events:
            return event
        prev = event.prev_event_ids
        # The state is computed on demand instead of copied for each event of a linear history.
        if len(prev) == 1 and prev[0] in self._states and not self._has_followers(prev[0]):
            state = self._states.pop(prev[0])
        else:
            state = dict(self._state_after_ids(prev))
        if event.state_key is not None:
            state[event.type, event.state_key] = event.event_id
        self.events[event.event_id] = event
        self._states[event.event_id] = state
        self.ends = [end for end in self.ends if end.event_id not in prev] + [event]
        self.servers.add(event.sender_server)
        return event

    def state_after(self, events: Sequence[Event]) -> Mapping[StateKey, str]:
        """Event ids of the room's state once these events, known or not, have happened."""
        return self._state_after_ids([event.event_id for event in events])

    def state_before(self, event: Event) -> Mapping[StateKey, str]:
        """Event ids of the state in which an event was sent."""
        return self._state_after_ids(event.prev_event_ids)

    def state_event(self, event_type: str, state_key: str = "") -> Event:
        """A state event at the ends; raises `KeyError`."""
        return self.events[self.state_after(self.ends)[event_type, state_key]]

    def auth_chain(self, event_ids: Iterable[str]) -> list[Event]:
        """The auth events of these events, theirs, and so on to the create event."""
        create = self._create_id()
        found: dict[str, Event] = {}
        waiting = [auth for id_ in event_ids for auth in self._auth_ids(self.events[id_], create)]
        while waiting:
            event_id = waiting.pop()
            if event_id not in found and event_id in self.events:
                found[event_id] = self.events[event_id]
                waiting += self._auth_ids(found[event_id], create)
        return list(found.values())

    def before(
        self, event_ids: Iterable[str], limit: int, *, stop: Iterable[str] = ()
    ) -> list[Event]:
        """Up to `limit` events, the newest first: those named, and those they follow, to `stop`."""
        stopped = {*stop}
        found: dict[str, Event] = {}
        waiting = [id_ for id_ in event_ids if id_ in self.events and id_ not in stopped]
        while waiting and len(found) < limit:
            waiting.sort(key=lambda id_: self.events[id_].depth)
            event_id = waiting.pop()
            if event_id in found:
                continue
            found[event_id] = self.events[event_id]
            waiting += [
                id_
                for id_ in found[event_id].prev_event_ids
                if id_ in self.events and id_ not in stopped and id_ not in found
            ]
        return list(found.values())

    def given(self, events: Iterable[Event]) -> list[Mapping[str, Any]]:
        """The events as they are sent, without those that are withheld."""
        return [event.pdu for event in events if event.event_id not in self.withheld]

    def _state_after_ids(self, event_ids: Sequence[str]) -> Mapping[StateKey, str]:
        known = [event_id for event_id in event_ids if event_id in self.events]
        if not known:
            return {}
        states = [self._state_after(event_id) for event_id in known]
        return states[0] if len(states) == 1 else resolve(self.version, states, self.events)

    def _state_after(self, event_id: str) -> Mapping[StateKey, str]:
        """Computed back along a linear history to a known state, and forward again."""
        line: list[Event] = []
        while event_id not in self._states:
            event = self.events[event_id]
            line.append(event)
            prev = event.prev_event_ids
            if len(prev) != 1 or prev[0] not in self.events:
                state = dict(self._state_after_ids(prev))
                break
            event_id = prev[0]
        else:
            state = dict(self._states[event_id])
        for event in reversed(line):
            if event.state_key is not None:
                state[event.type, event.state_key] = event.event_id
        return state

    def _has_followers(self, event_id: str) -> bool:
        return all(end.event_id != event_id for end in self.ends)

    def _create_id(self) -> str | None:
        return next((id_ for id_, event in self.events.items() if event.type == CREATE[0]), None)

    def _auth_ids(self, event: Event, create_id: str | None) -> list[str]:
        ids = event.auth_event_ids
        # Where the room id implies the create event, it still belongs to the chain.
        if not self.version.create_in_auth_events and create_id and event.event_id != create_id:
            return [*ids, create_id]
        return ids


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return int(time.time() * 1000)
