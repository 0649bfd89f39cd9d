"""Rooms, users and events for tests of the rules: unsigned, and as simple as possible."""

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any

import pytest

from homeserver.protocol.authorization.auth_rules import AuthState, RuleBroken, check_auth
from homeserver.protocol.authorization.rule_broken import rule_number
from homeserver.protocol.events import Event
from homeserver.protocol.room_versions import ROOM_VERSIONS, EventFormat, RoomVersion

ALICE = "@alice:one.example"  # who creates the rooms
BOB = "@bob:one.example"
CAROL = "@carol:two.example"
DAVE = "@dave:three.example"

ALL_VERSIONS = tuple(ROOM_VERSIONS)
NEWEST = "12"


def versions(**columns: Any) -> list[str]:
    """The room versions whose columns have these values."""
    return [
        identifier
        for identifier, version in ROOM_VERSIONS.items()
        if all(getattr(version, column) == value for column, value in columns.items())
    ]


def event(
    event_type: str,
    *,
    by: str,
    version: str = NEWEST,
    content: Mapping[str, Any] | None = None,
    state_key: str | None = None,
    room_id: str = "",
    prev: Iterable[Event] | None = None,
    **fields: Any,
) -> Event:
    """An event by a user. `prev` defaults to some event that does not matter."""
    row = ROOM_VERSIONS[version]
    previous = ["$previous:one.example"] if prev is None else [each.event_id for each in prev]
    pdu: dict[str, Any] = {
        "auth_events": [],
        "content": dict(content or {}),
        "depth": 7,
        "hashes": {"sha256": ""},
        "origin_server_ts": 1_700_000_000_000,
        "prev_events": [_reference(row, event_id) for event_id in previous],
        "sender": by,
        "signatures": {},
        "type": event_type,
        **fields,
    }
    if not (row.room_id_is_create_hash and event_type == "m.room.create"):
        pdu["room_id"] = room_id or room_id_of(version)
    if state_key is not None:
        pdu["state_key"] = state_key
    return Event(row, pdu, b"", _event_id(row, pdu))


def create(version: str = NEWEST, *, by: str = ALICE, **content: Any) -> Event:
    """The create event of a room; `content` is added to what the version requires."""
    required: dict[str, Any] = {"room_version": version}
    if ROOM_VERSIONS[version].creator_in_content:
        required["creator"] = by
    content = required | content
    return event("m.room.create", by=by, version=version, content=content, state_key="", prev=[])


def member(
    target: str, membership: str, *, by: str | None = None, version: str = NEWEST, **content: Any
) -> Event:
    """A membership event; sent by the user themselves if `by` is not given."""
    content = {"membership": membership, **content}
    return event(
        "m.room.member", by=by or target, version=version, content=content, state_key=target
    )


def join(user: str, *, version: str = NEWEST, **content: Any) -> Event:
    return member(user, "join", version=version, **content)


def invite(*, by: str, of: str, version: str = NEWEST, **content: Any) -> Event:
    return member(of, "invite", by=by, version=version, **content)


def leave(user: str, *, version: str = NEWEST) -> Event:
    return member(user, "leave", version=version)


def kick(*, by: str, of: str, version: str = NEWEST) -> Event:
    return member(of, "leave", by=by, version=version)


def ban(*, by: str, of: str, version: str = NEWEST) -> Event:
    return member(of, "ban", by=by, version=version)


def knock(user: str, *, by: str | None = None, version: str = NEWEST) -> Event:
    return member(user, "knock", by=by, version=version)


def message(*, by: str, version: str = NEWEST) -> Event:
    return event("m.room.message", by=by, version=version, content={"body": "hello"})


def power_levels(*, by: str, version: str = NEWEST, **content: Any) -> Event:
    return event("m.room.power_levels", by=by, version=version, content=content, state_key="")


def room(
    version: str = NEWEST,
    *,
    members: Mapping[str, str] | Iterable[str] = (ALICE,),
    users: Mapping[str, Any] | None = None,
    levels: Mapping[str, Any] | None = None,
    join_rule: str | None = "invite",
    creation: Mapping[str, Any] | None = None,
    others: Iterable[Event] = (),
) -> AuthState:
    """A room that ALICE made.

    `members` are joined, or have the membership that they are mapped to. `users` are power levels
    of users and `levels` the rest of that event, which the room lacks if neither is given.
    """
    memberships = members if isinstance(members, Mapping) else dict.fromkeys(members, "join")
    events = [create(version, **(creation or {})), *others]
    events += [member(user, state, version=version) for user, state in memberships.items()]
    if users is not None or levels is not None:
        content = {**(levels or {}), "users": dict(users or {})}
        events.append(power_levels(by=ALICE, version=version, **content))
    if join_rule is not None:
        rule = {"join_rule": join_rule}
        events.append(
            event("m.room.join_rules", by=ALICE, version=version, content=rule, state_key="")
        )
    return AuthState({(each.type, each.state_key or ""): each for each in events})


def assert_refused(event: Event, state: AuthState, *, rule: str) -> None:
    """`rule` is the number in version 12; the error must have that of the event's version."""
    with pytest.raises(RuleBroken) as broken:
        check_auth(event, state)

    assert broken.value.rule == rule_number(event.version, rule)


def room_id_of(version: str) -> str:
    """The id of the rooms made here: where it is a hash, that of the plain create event."""
    if ROOM_VERSIONS[version].room_id_is_create_hash:
        return "!" + create(version).event_id[1:]
    return "!room:one.example"


def _reference(version: RoomVersion, event_id: str) -> Any:
    if version.event_format is EventFormat.V1:
        return [event_id, {"sha256": ""}]
    return event_id


def _event_id(version: RoomVersion, pdu: Mapping[str, Any]) -> str:
    name = sha256(repr(sorted(pdu.items())).encode()).hexdigest()[:43]
    domain = pdu["sender"].partition(":")[2]
    return f"${name}:{domain}" if version.event_id_domain_must_sign else f"${name}"
