"""Creating a room: its first events, made and stored together or not at all.

Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3createroom
"""

import secrets
from collections.abc import Collection, Sequence
from typing import Any

from homeserver.accounts.sessions.requester import Requester
from homeserver.accounts.sessions.suspension import check_not_suspended
from homeserver.accounts.user_data.invite_permission import InvitePermission
from homeserver.concurrency.cooperative import TimeSlice
from homeserver.protocol.errors import (
    BadJson,
    Forbidden,
    InvalidParam,
    InvalidRoomState,
    TooLarge,
    UnsupportedRoomVersion,
)
from homeserver.protocol.event_types import (
    CREATE,
    MEMBER,
)
from homeserver.protocol.events import Event
from homeserver.protocol.identifiers import is_valid_user_id
from homeserver.protocol.room_versions import ROOM_VERSIONS, RoomVersion
from homeserver.rooms.discovery.aliases import Aliases
from homeserver.rooms.events.event_draft import EventDraft, member_draft
from homeserver.rooms.events.local_server import LocalServer
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.lifecycle.first_events import (
    MAX_CREATORS,
    RoomRequest,
    StateDraft,
    create_content,
    first_events,
)
from homeserver.rooms.lifecycle.remote_invites import RemoteInvites
from homeserver.rooms.membership.member_profiles import MemberProfiles
from homeserver.rooms.room.changes import RoomAliasChanged
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.rooms.state.node_codec import EMPTY
from homeserver.storage.database.batch import Row
from homeserver.storage.rooms.names import Names
from homeserver.storage.rooms.room_aliases import INSERT_ALIAS
from homeserver.streams.log import Log

MAX_INVITES = 100
MAX_INITIAL_STATE = 250


class RoomCreation:
    """Creates rooms."""

    def __init__(
        self,
        log: Log,
        names: Names,
        rooms: RoomRegistry,
        origin: LocalServer,
        aliases: Aliases,
        profiles: MemberProfiles,
        permission: InvitePermission,
        remote_invites: RemoteInvites,
    ) -> None:
        self._permission = permission
        self._log = log
        self._names = names
        self._remote_invites = remote_invites
        self._rooms = rooms
        self._origin = origin
        self._aliases = aliases
        self._profiles = profiles
        self._last_created_ms = 0

    async def create(self, caller: Requester, request: RoomRequest) -> str:
        """Create a room and return its id.

        Raises `UnsupportedRoomVersion`, `RoomInUse`, `InvalidRoomState` if the auth rules do not
        allow one of the events, `InvalidParam` and `BadJson`.
        """
        check_not_suspended(caller)
        version = ROOM_VERSIONS.get(request.version)
        if version is None:
            raise UnsupportedRoomVersion(
                f"This server does not support room version {request.version!r}"
            )
        _check_sizes(request)
        self._check_invites(request.invite)
        _check_initial_state(request.initial_state)
        for user_id in request.invite:
            await self._permission.check(user_id, caller.user_id, caller)
        alias = None
        if request.alias_name is not None:
            alias = f"#{request.alias_name}:{self._origin.server_name}"
            self._aliases.check_may_create(caller, alias)
        member = {"membership": "join", **await self._profiles.member_fields(caller.user_id)}
        drafts = first_events(caller.user_id, version, request, alias, member)
        local = [user_id for user_id in request.invite if self._origin.is_local(user_id)]
        invites = [await self._invite(caller, user_id, request) for user_id in local]
        remote = [user_id for user_id in request.invite if user_id not in local]
        return await self._make(caller, version, request, alias, [*drafts, *invites], remote)

    async def _make(
        self,
        caller: Requester,
        version: RoomVersion,
        request: RoomRequest,
        alias: str | None,
        drafts: Sequence[EventDraft],
        remote: Sequence[str],
    ) -> str:
        """Make the room, and then invite the remote users and the addresses."""
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
        required_names = {event.room_id, create.type, caller.user_id, ""}
        for draft in drafts:
            required_names |= {draft.type, draft.state_key or ""}
        if any("\x00" in name for name in required_names):
            raise BadJson("type and state_key may not contain a NUL character")
        nids = await names.nids(required_names)
        room = Room(nids[event.room_id], event.room_id, version, EMPTY)
        unsent = self._remote_invites.of_request(caller, room.room_nid, request, remote)
        async with self._aliases.reserved(alias):
            # The room's writer needs every name in memory, whatever was evicted meanwhile.
            await names.nids(required_names)
            rows = self._remote_invites.rows(unsent)
            if alias is not None:
                creator = nids[caller.user_id]
                rows.append(INSERT_ALIAS.row(alias, room.room_nid, creator, self._origin.now_ms()))
            await self._append(
                room, event, drafts, rows, required_names, published=request.published
            )
            if alias is not None:
                await self._log.append(
                    RoomAliasChanged(self._log.next_position(), alias, room.room_nid)
                )
        await self._remote_invites.send(caller, room, unsent)
        return room.room_id

    async def _append(
        self,
        room: Room,
        create: Event,
        drafts: Sequence[EventDraft],
        rows: Sequence[Row],
        names: Collection[str],
        *,
        published: bool,
    ) -> None:
        """Make the events in time slices, and append them all at once: no client sees a partial
        room. The directory lists it from the same commit on, if it is `published`.
        """
        writer = self._rooms.add_new(room)
        number, position = self._log.next_event_number(), self._log.next_position()
        first = StoredEvent(create, number, position, EMPTY, EMPTY, stored_at=position)
        admitted, time_slice = [], TimeSlice(self._origin.clock)
        writer.pin()
        try:
            for event, _ in writer.prepare(drafts, create=first, more_rows=rows):
                admitted.append(event)
                if time_slice.is_over:
                    await time_slice.next()
                    await self._names.nids(names)
            done = writer.admit(*admitted)
            if published:
                done = writer.set_published(published=True)
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
        """The current time, later than that of any room created before.

        Where the room id is a hash of the create event, two rooms that one user creates alike in
        the same millisecond would be one.
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
    """Raise `BadJson` for memberships in the initial state.

    The specification leaves that open. No user can be made to join, and an invite needs the
    settings and the server of the invited user, for which there is `invite`; a ban can follow.
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
