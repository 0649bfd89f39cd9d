"""Rooms whose history forks: events under short names, and branches with the state after each."""

from collections.abc import Iterable, Mapping
from typing import Any

from homeserver.protocol.authorization.auth_types import auth_types_for
from homeserver.protocol.events import Event
from homeserver.protocol.room_versions import ROOM_VERSIONS, EventFormat
from homeserver.protocol.state_resolution.auth_checks import AuthChecks, StateKey
from homeserver.protocol.state_resolution.resolution import resolve
from tests.protocol.authorization.auth_builders import ALICE

POWER_LEVELS = ("m.room.power_levels", "")
JOIN_RULES = ("m.room.join_rules", "")
TOPIC = ("m.room.topic", "")


class ForkedRoom:
    """All events of one room by id. An id is `$` and the name that the test gives the event."""

    def __init__(self, version: str) -> None:
        self.version = ROOM_VERSIONS[version]
        self.events: dict[str, Event] = {}
        self.rejected: set[str] = set()
        self.root = Branch(self, {})
        self.root.send("create", "m.room.create", by=ALICE, content={"creator": ALICE})
        self.root.join("alice", ALICE)

    def add(
        self,
        name: str,
        event_type: str,
        *,
        by: str,
        content: Mapping[str, Any],
        state_key: str,
        auth: Iterable[str],
        at: int | None = None,
    ) -> Event:
        """Add an event with the given auth events, whether it is allowed or not."""
        is_v1 = self.version.event_format is EventFormat.V1
        pdu: dict[str, Any] = {
            "auth_events": [[cited, {}] if is_v1 else cited for cited in auth],
            "content": dict(content),
            "depth": len(self.events) + 1,
            "origin_server_ts": len(self.events) if at is None else at,
            "prev_events": [] if event_type == "m.room.create" else [["$x", {}] if is_v1 else "$x"],
            "sender": by,
            "state_key": state_key,
            "type": event_type,
        }
        if not self.version.room_id_is_create_hash:
            pdu["room_id"] = "!create:one.example"
        elif event_type != "m.room.create":
            pdu["room_id"] = "!create"
        event = self.events["$" + name] = Event(self.version, pdu, b"", "$" + name)
        return event

    def resolve(self, *branches: "Branch") -> dict[StateKey, str]:
        """The state after events that follow all of these branches."""
        states = [branch.state for branch in branches]
        return resolve(self.version, states, self.events, self.rejected)

    def is_allowed(self, event: Event, state: Mapping[StateKey, str]) -> bool:
        return AuthChecks(self.version, self.events).is_allowed(event, state)


class Branch:
    """A linear history of events, each sent in the state after the one before."""

    def __init__(self, room: ForkedRoom, state: Mapping[StateKey, str]) -> None:
        self.room = room
        self.state = dict(state)

    def fork(self) -> "Branch":
        return Branch(self.room, self.state)

    def send(
        self,
        name: str,
        event_type: str,
        *,
        by: str,
        content: Mapping[str, Any],
        state_key: str = "",
        at: int | None = None,
    ) -> bool:
        """Send a state event, if it is allowed here; `at` is its time."""
        keys = auth_types_for(self.room.version, event_type, by, state_key, content)
        auth = [self.state[key] for key in keys if key in self.state]
        event = self.room.add(
            name, event_type, by=by, content=content, state_key=state_key, auth=auth, at=at
        )
        if event_type != "m.room.create" and not self.room.is_allowed(event, self.state):
            del self.room.events[event.event_id]
            return False
        self.state[event_type, state_key] = event.event_id
        return True

    def member(
        self,
        name: str,
        target: str,
        membership: str,
        *,
        by: str | None = None,
        at: int | None = None,
    ) -> bool:
        content = {"membership": membership}
        return self.send(
            name, "m.room.member", by=by or target, content=content, state_key=target, at=at
        )

    def join(self, name: str, user: str, *, at: int | None = None) -> bool:
        # The creator joins the room that has nothing but its creation.
        if len(self.state) == 1:
            event = self.room.add(
                name,
                "m.room.member",
                by=user,
                content={"membership": "join"},
                state_key=user,
                auth=[] if self.room.version.room_id_is_create_hash else ["$create"],
            )
            self.state["m.room.member", user] = event.event_id
            return True
        return self.member(name, user, "join", at=at)

    def levels(self, name: str, *, by: str, at: int | None = None, **users: int) -> bool:
        """Set power levels: `bob=50` for @bob:one.example; ALICE has 100, or no limit."""
        content = {"users": {LOCALPARTS[user]: level for user, level in users.items()}}
        if not self.room.version.creators_outrank_everyone:
            content["users"][ALICE] = 100
        return self.send(name, "m.room.power_levels", by=by, content=content, at=at)

    def join_rule(self, name: str, rule: str, *, by: str, at: int | None = None) -> bool:
        return self.send(name, "m.room.join_rules", by=by, content={"join_rule": rule}, at=at)

    def topic(self, name: str, *, by: str, at: int | None = None) -> bool:
        return self.send(name, "m.room.topic", by=by, content={"topic": name}, at=at)


LOCALPARTS = {
    "bob": "@bob:one.example",
    "carol": "@carol:two.example",
    "dave": "@dave:three.example",
}


def public_room(version: str, *members: str, **users: int) -> Branch:
    """A public room, which some users have joined; `users` are power levels as for `levels`."""
    branch = ForkedRoom(version).root
    assert branch.levels("levels", by=ALICE, **users)
    assert branch.join_rule("public", "public", by=ALICE)
    for user in members:
        assert branch.join(user.partition(":")[0][1:], user)
    return branch
