"""Sending: messages, state and redactions, from local users into a room.

Spec: https://spec.matrix.org/v1.19/client-server-api/#sending-events-to-a-room
"""

from typing import Any

from homeserver.accounts.sessions.requester import Requester
from homeserver.accounts.sessions.suspension import check_not_suspended
from homeserver.protocol.errors import BadJson, Forbidden, InvalidParam
from homeserver.protocol.event_types import CANONICAL_ALIAS_KEY, CREATE, MEMBER, REDACTION
from homeserver.rooms.discovery.aliases import Aliases
from homeserver.rooms.events.event_draft import (
    ClientTransaction,
    EventDraft,
    Stickiness,
    redaction_path,
    sending_path,
)
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.membership.membership_state_events import MembershipStateEvents
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.writer import RoomWriter
from homeserver.rooms.sending.relation_checks import RelationChecks
from homeserver.rooms.sending.transaction_ids import Transactions
from homeserver.rooms.sticky.sticky_events import StickyEvents


class Sending:
    """Sends events of local users into rooms."""

    def __init__(
        self,
        rooms: RoomRegistry,
        transactions: Transactions,
        aliases: Aliases,
        relations: RelationChecks,
        membership_changes: MembershipStateEvents,
        sticky_events: StickyEvents,
    ) -> None:
        self._sticky_events = sticky_events
        self._membership_changes = membership_changes
        self._rooms = rooms
        self._transactions = transactions
        self._aliases = aliases
        self._relations = relations

    async def send_message(
        self,
        caller: Requester,
        room_id: str,
        event_type: str,
        content: dict[str, Any],
        txn_id: str | None,
        sticky: Stickiness | None = None,
    ) -> str:
        """Send a message event, once for each transaction id of its scope; returns its id.

        Without transaction id each request makes an event. Raises `LimitExceeded` if too many
        events of the user stick in the room.
        """
        redacts = content.get("redacts") if event_type == REDACTION else None
        if isinstance(redacts, str):
            content = {key: value for key, value in content.items() if key != "redacts"}
            path = sending_path(room_id, event_type)
            return await self._redact(caller, room_id, redacts, content, path, txn_id, sticky)
        check_not_suspended(caller)
        draft = EventDraft(
            event_type, caller.user_id, content, origin_server_ts=caller.event_ts, sticky=sticky
        )
        path = sending_path(room_id, event_type)
        return await self._once(caller, room_id, draft, path, txn_id)

    async def redact(
        self,
        caller: Requester,
        room_id: str,
        event_id: str,
        content: dict[str, Any],
        txn_id: str | None,
    ) -> str:
        """Redact an event, once for each transaction id of its scope; returns the redaction's.

        While this server does not have the event, its clients do not see the redaction. Raises
        `InvalidParam` for an event that this server knows to be in another room.
        """
        path = redaction_path(room_id, event_id)
        return await self._redact(caller, room_id, event_id, content, path, txn_id)

    async def _redact(
        self,
        caller: Requester,
        room_id: str,
        event_id: str,
        content: dict[str, Any],
        path: str,
        txn_id: str | None,
        sticky: Stickiness | None = None,
    ) -> str:
        room = await self._rooms.get(room_id)
        target = await self._rooms.find_event(room, event_id)
        if target is None and await self._rooms.rooms_with_event(event_id):
            raise InvalidParam("The event is not in this room")
        if target is None or target.event.sender != caller.user_id:
            check_not_suspended(caller)
        draft = EventDraft(
            REDACTION,
            caller.user_id,
            content,
            origin_server_ts=caller.event_ts,
            redacts=event_id,
            target=target,
            sticky=sticky,
        )
        return await self._once(caller, room_id, draft, path, txn_id)

    async def set_state(
        self,
        caller: Requester,
        room_id: str,
        event_type: str,
        state_key: str,
        content: dict[str, Any],
        txn_id: str | None = None,
        sticky: Stickiness | None = None,
    ) -> str:
        """Set a state event; returns its event id, or that of the current one with the same
        content, unless the new one is sticky. Once for each transaction id, if there is one and it
        is no membership.
        """
        if event_type == MEMBER:
            if sticky is not None:
                raise InvalidParam("A membership is no sticky event")
            changes = self._membership_changes
            changed = await changes.apply(caller, room_id, state_key, content)
            return changed.event.event_id
        check_not_suspended(caller)
        room = await self._rooms.get(room_id)
        if (event_type, state_key) == CANONICAL_ALIAS_KEY:
            await self._check_canonical_alias(room, content)
        if event_type == CREATE:
            raise Forbidden("The room exists already")
        draft = EventDraft(
            event_type,
            caller.user_id,
            content,
            state_key=state_key,
            origin_server_ts=caller.event_ts,
            sticky=sticky,
        )
        return await self._once(caller, room_id, draft, sending_path(room_id, event_type), txn_id)

    async def _once(
        self, caller: Requester, room_id: str, draft: EventDraft, path: str, txn_id: str | None
    ) -> str:
        async with self._rooms.writing(room_id) as writer:
            scope = caller.transaction_scope
            if not scope or txn_id is None:
                return (await self._send(writer, draft)).event.event_id
            transaction = ClientTransaction(caller.user_id, scope, txn_id, path)

            async def send() -> StoredEvent:
                return await self._send(writer, draft, transaction)

            return await self._transactions.once(transaction, send)

    async def _send(
        self, writer: RoomWriter, draft: EventDraft, transaction: ClientTransaction | None = None
    ) -> StoredEvent:
        if draft.sticky is not None and draft.sticky.duration_ms:
            self._sticky_events.check_may_send(writer.room.room_nid, draft.sender)
        if not self._relations.has_relation(draft):
            return await writer.send(draft, transaction)
        async with self._relations.permit(writer.room, draft):
            return await writer.send(draft, transaction)

    async def _check_canonical_alias(self, room: Room, content: dict[str, Any]) -> None:
        """Check that new aliases of a canonical alias event point to the room.

        Spec: https://spec.matrix.org/v1.19/client-server-api/#room-aliases
        """
        current = (await self._rooms.current(room, [CANONICAL_ALIAS_KEY])).get(CANONICAL_ALIAS_KEY)
        known = set() if current is None else set(_aliases_in(current.event.content))
        for alias in _aliases_in(content):
            if not isinstance(alias, str):
                raise BadJson("An alias is a string")
            if alias not in known:
                await self._aliases.check_points_to(alias, room)


def _aliases_in(content: dict[str, Any]) -> list[Any]:
    alias, others = content.get("alias"), content.get("alt_aliases")
    found = [] if alias is None or alias == "" else [alias]
    return found + (others if isinstance(others, list) else [])
