"""Creating a room: its first events, made and written together or not at all.

Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3createroom
"""

import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from twisted.logger import Logger

from homeserver.accounts.sessions.requester import Requester
from homeserver.accounts.sessions.suspension import check_not_suspended
from homeserver.accounts.user_data.invite_permission import InvitePermission
from homeserver.concurrency.cooperative import TimeSlice
from homeserver.protocol.authorization.auth_types import is_user_id
from homeserver.protocol.errors import (
    BadJson,
    Forbidden,
    InvalidParam,
    InvalidRoomState,
    MatrixError,
    TooLarge,
    UnsupportedRoomVersion,
)
from homeserver.protocol.event_types import (
    AVATAR,
    CANONICAL_ALIAS,
    CREATE,
    ENCRYPTION,
    GUEST_ACCESS,
    HISTORY_VISIBILITY,
    JOIN_RULES,
    MEMBER,
    NAME,
    NAME_KEY,
    POWER_LEVELS,
    SERVER_ACL,
    TOMBSTONE,
    TOPIC,
)
from homeserver.protocol.events import Event
from homeserver.protocol.identifiers import is_valid_user_id
from homeserver.protocol.room_versions import ROOM_VERSIONS, RoomVersion
from homeserver.rooms.discovery.aliases import Aliases
from homeserver.rooms.events.event_draft import EventDraft, member_draft
from homeserver.rooms.events.local_server import LocalServer
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.membership.member_profiles import MemberProfiles
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.rooms.state.node_codec import EMPTY
from homeserver.storage.database.batch import Row
from homeserver.storage.rooms.names import Names
from homeserver.storage.rooms.room_aliases import INSERT_ALIAS
from homeserver.streams.log import Log

Preset = Literal["private_chat", "public_chat", "trusted_private_chat"]

PRESETS: dict[str, dict[str, dict[str, str]]] = {
    preset: {
        JOIN_RULES: {"join_rule": join_rule},
        HISTORY_VISIBILITY: {"history_visibility": "shared"},
        **guest_access,
    }
    for preset, join_rule, guest_access in (
        ("private_chat", "invite", {GUEST_ACCESS: {"guest_access": "can_join"}}),
        ("trusted_private_chat", "invite", {GUEST_ACCESS: {"guest_access": "can_join"}}),
        # A room without the event is forbidden to guests, which is what this preset wants.
        ("public_chat", "public", {}),
    )
}
MAX_INVITES = 100
MAX_INITIAL_STATE = 250
MAX_CREATORS = 1_000
log = Logger()


class InviteUser(Protocol):
    """Invites a user of any server to a room that is there: `Memberships.invite`."""

    async def __call__(
        self, caller: Requester, room_id: str, user_id: str, *, is_direct: bool
    ) -> object: ...


@dataclass(frozen=True, slots=True)
class StateDraft:
    """A state event that the new room is to start with."""

    type: str
    content: dict[str, Any]
    state_key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomRequest:
    """What a user wants the new room to be like."""

    version: str
    preset: Preset
    published: bool = False
    alias_name: str | None = None
    name: str | None = None
    topic: str | None = None
    invite: Sequence[str] = ()
    is_direct: bool = False
    creation_content: dict[str, Any] = field(default_factory=dict)
    initial_state: Sequence[StateDraft] = ()
    power_levels: dict[str, Any] = field(default_factory=dict)


class RoomCreation:
    """Makes rooms."""

    def __init__(
        self,
        log: Log,
        names: Names,
        rooms: RoomRegistry,
        origin: LocalServer,
        aliases: Aliases,
        profiles: MemberProfiles,
        permission: InvitePermission,
        invite_remote: InviteUser,
    ) -> None:
        self._permission = permission
        self._log = log
        self._names = names
        self._invite_remote = invite_remote
        self._rooms = rooms
        self._origin = origin
        self._aliases = aliases
        self._profiles = profiles
        self._last_created_ms = 0

    async def create(self, caller: Requester, request: RoomRequest) -> str:
        """Create a room and return its id.

        Raises `UnsupportedRoomVersion`, `RoomInUse`, `InvalidRoomState` where the auth rules refuse
        one of the events, `InvalidParam` and `BadJson`.
        """
        check_not_suspended(caller)
        version = ROOM_VERSIONS.get(request.version)
        if version is None:
            raise UnsupportedRoomVersion(f"This server has no room version {request.version!r}")
        _check_sizes(request)
        self._check_invites(request.invite)
        _check_initial_state(request.initial_state)
        for user_id in request.invite:
            await self._permission.check(user_id)
        alias = None
        if request.alias_name is not None:
            alias = f"#{request.alias_name}:{self._origin.server_name}"
            self._aliases.check_local(alias)
        member = {"membership": "join", **await self._profiles.member_fields(caller.user_id)}
        drafts = first_events(caller.user_id, version, request, alias, member)
        ours = [user_id for user_id in request.invite if self._origin.is_local(user_id)]
        invites = [await self._invite(caller, user_id, request) for user_id in ours]
        room_id = await self._make(caller, version, request, alias, [*drafts, *invites])
        for user_id in request.invite:
            if user_id not in ours:
                await self._needs_remote_signature(caller, room_id, user_id, request)
        return room_id

    async def _needs_remote_signature(
        self, caller: Requester, room_id: str, user_id: str, request: RoomRequest
    ) -> None:
        """Invite a user of another server. The room is there, and remains if that fails."""
        try:
            await self._invite_remote(caller, room_id, user_id, is_direct=request.is_direct)
        except MatrixError as error:
            log.info(
                "{user} was not invited to {room}: {error}",
                user=user_id,
                room=room_id,
                error=error,
            )

    async def _make(
        self,
        caller: Requester,
        version: RoomVersion,
        request: RoomRequest,
        alias: str | None,
        drafts: Sequence[EventDraft],
    ) -> str:
        names = self._names
        create = EventDraft(
            CREATE,
            caller.user_id,
            create_content(caller, version, request),
            state_key="",
            origin_server_ts=self._next_ms(),
        )
        room_id = None
        if not version.room_id_is_create_hash:
            room_id = f"!{secrets.token_urlsafe(18)}:{self._origin.server_name}"
        event = self._origin.sign_event(version, create, room_id=room_id)
        wanted = {event.room_id, create.type, caller.user_id, ""}
        for draft in drafts:
            wanted |= {draft.type, draft.state_key or ""}
        if any("\x00" in name for name in wanted):
            raise BadJson("type and state_key may not contain a NUL character")
        numbers = await names.nids(wanted)
        room = Room(numbers[event.room_id], event.room_id, version, EMPTY)
        room.published = request.published
        async with self._aliases.reserved(alias):
            # The room's writer must have every name at hand, whatever went on meanwhile.
            await names.nids(wanted)
            rows: list[Row] = []
            if alias is not None:
                creator = numbers[caller.user_id]
                rows = [INSERT_ALIAS.row(alias, room.room_nid, creator, self._origin.now_ms())]
            await self._append(room, event, drafts, rows, wanted)
        return room.room_id

    async def _append(
        self,
        room: Room,
        create: Event,
        drafts: Sequence[EventDraft],
        rows: Sequence[Row],
        names: Collection[str],
    ) -> None:
        """Make the events a few at a time, and queue them all at once: nobody sees half a room."""
        writer = self._rooms.add_new(room)
        position = self._log.next_position()
        first = StoredEvent(create, position, position, EMPTY, EMPTY)
        arrivals, turn = [], TimeSlice(self._origin.clock)
        writer.pin()
        try:
            for arrival, _ in writer.prepare(drafts, create=first, more_rows=rows):
                arrivals.append(arrival)
                if turn.is_over:
                    await turn.next()
                    await self._names.nids(names)
            done = writer.admit(*arrivals)
        except Forbidden as error:
            self._rooms.drop(room)
            raise InvalidRoomState(str(error)) from error
        except BaseException:
            self._rooms.drop(room)
            raise
        finally:
            writer.unpin()
        await done

    def _next_ms(self) -> int:
        """The time, later than that of any room made before.

        Where the room id is a hash of the create event, two rooms that one user makes alike in the
        same millisecond would be one.
        """
        self._last_created_ms = max(self._origin.now_ms(), self._last_created_ms + 1)
        return self._last_created_ms

    def _check_invites(self, invites: Sequence[str]) -> None:
        if len(invites) > MAX_INVITES:
            raise InvalidParam(f"At most {MAX_INVITES} users can be invited at once")
        for user_id in invites:
            if not is_valid_user_id(user_id):
                raise InvalidParam(f"{user_id!r} is not a user id")

    async def _invite(self, caller: Requester, user_id: str, request: RoomRequest) -> EventDraft:
        content: dict[str, Any] = {
            "membership": "invite",
            **await self._profiles.member_fields(user_id),
        }
        if request.is_direct:
            content["is_direct"] = True
        return member_draft(caller.user_id, user_id, content)


def _check_initial_state(initial_state: Sequence[StateDraft]) -> None:
    """Memberships are none of the state that a client may begin with.

    The text leaves that open. Nobody can be made to join, and an invite is asked of the invited
    user's settings and server, for which there is `invite`; a ban can follow.
    """
    if any(state.type == MEMBER for state in initial_state):
        raise BadJson("initial_state may not hold memberships; there is `invite` for invites")


def _check_sizes(request: RoomRequest) -> None:
    """Raise `TooLarge` for more than a room may begin with, before any work is done for it."""
    named = request.creation_content.get("additional_creators")
    if len(request.initial_state) > MAX_INITIAL_STATE:
        raise TooLarge(f"A room begins with at most {MAX_INITIAL_STATE} events of initial_state")
    if isinstance(named, list) and len(named) > MAX_CREATORS:
        raise TooLarge(f"A room has at most {MAX_CREATORS} creators")


def create_content(caller: Requester, version: RoomVersion, request: RoomRequest) -> dict[str, Any]:
    """Content of the create event: the request's, and what the room version wants.

    Raises `BadJson` and `InvalidParam`.
    """
    content = {**request.creation_content, "room_version": version.identifier}
    content.pop("creator", None)
    if version.creator_in_content:
        content["creator"] = caller.user_id
    for name, kind in (("m.federate", bool), ("type", str), ("predecessor", dict)):
        if name in content and not isinstance(content[name], kind):
            raise BadJson(f"creation_content: {name} has the wrong type")
    if version.creators_outrank_everyone:
        named = _checked_creators(content.get("additional_creators", []))
        if request.preset == "trusted_private_chat":
            creators = dict.fromkeys([*named, *request.invite])
            creators.pop(caller.user_id, None)
            named = list(creators)
        if named or "additional_creators" in content:
            content["additional_creators"] = named
    return content


def _checked_creators(named: object) -> list[str]:
    """The additional creators that a client wants. Raises `BadJson` and `InvalidParam`."""
    if not isinstance(named, list):
        raise BadJson("additional_creators is not a list")
    for user_id in named:
        if not is_user_id(user_id):
            raise InvalidParam(f"additional_creators: {user_id!r} is not a user id")
    return named


def first_events(
    creator: str,
    version: RoomVersion,
    request: RoomRequest,
    alias: str | None,
    member: dict[str, Any],
) -> list[EventDraft]:
    """The events between the create event and the invites, in the order that the text demands."""
    given = {(state.type, state.state_key) for state in request.initial_state}
    if request.name is not None:
        given.discard(NAME_KEY)
    drafts: list[EventDraft] = [
        member_draft(creator, creator, member),
        _state(creator, POWER_LEVELS, power_levels_content(creator, version, request)),
    ]
    if alias is not None:
        drafts.append(_state(creator, CANONICAL_ALIAS, {"alias": alias}))
    for event_type, content in PRESETS[request.preset].items():
        if (event_type, "") not in given:
            drafts.append(_state(creator, event_type, content))
    drafts += [
        EventDraft(state.type, creator, state.content, state_key=state.state_key)
        for state in request.initial_state
    ]
    if request.name is not None:
        drafts.append(_state(creator, NAME, {"name": request.name}))
    if request.topic is not None:
        drafts.append(_state(creator, TOPIC, topic_content(request.topic)))
    return drafts


def topic_content(topic: str) -> dict[str, Any]:
    """A topic in plain text, in the old and in the extensible form.

    Spec: https://spec.matrix.org/v1.19/client-server-api/#mroomtopic
    """
    return {"topic": topic, "m.topic": {"m.text": [{"body": topic}]}}


def power_levels_content(
    creator: str, version: RoomVersion, request: RoomRequest
) -> dict[str, Any]:
    """The default power levels, with the request's laid over them, key by key."""
    users: dict[str, int] = {}
    if not version.creators_outrank_everyone:
        users[creator] = 100
        if request.preset == "trusted_private_chat":
            users |= dict.fromkeys(request.invite, 100)
    content: dict[str, Any] = {
        "users": users,
        "users_default": 0,
        "events": {
            NAME: 50,
            AVATAR: 50,
            CANONICAL_ALIAS: 50,
            POWER_LEVELS: 100,
            HISTORY_VISIBILITY: 100,
            ENCRYPTION: 100,
            SERVER_ACL: 100,
            TOMBSTONE: 150 if version.creators_outrank_everyone else 100,
        },
        "events_default": 0,
        "state_default": 50,
        "ban": 50,
        "kick": 50,
        "redact": 50,
        "invite": 50 if request.preset == "public_chat" else 0,
    }
    return content | request.power_levels


def _state(sender: str, event_type: str, content: dict[str, Any]) -> EventDraft:
    return EventDraft(event_type, sender, content, state_key="")
