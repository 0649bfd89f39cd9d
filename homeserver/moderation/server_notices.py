"""Server notices: messages from the server itself to one user, in a room of their own.

Each user has one such room, identified by its tag in their account data, and created with the first
notice. The user cannot decline the invite, but may leave once they have joined; the next notice
invites them again.

Spec: https://spec.matrix.org/v1.19/client-server-api/#server-notices
"""

from typing import Any

import msgspec
from twisted.internet.defer import DeferredLock

from homeserver.accounts.registration.notices_account import NoticesAccount
from homeserver.accounts.sessions.requester import Requester
from homeserver.accounts.user_data.account_data import AccountData
from homeserver.accounts.user_data.tags import Tags
from homeserver.protocol.errors import NotFound
from homeserver.protocol.event_types import CREATE_KEY, MESSAGE, TAG
from homeserver.rooms.events.event_draft import ClientTransaction, EventDraft
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.lifecycle.creation import RoomCreation
from homeserver.rooms.lifecycle.first_events import RoomRequest
from homeserver.rooms.membership.memberships import Memberships
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.rooms.sending.transaction_ids import Transactions

NOTICE = "m.server_notice"  # the tag, and the type of message
PATH = "send_server_notice"  # of the requests that send one
# Below the levels for sending and inviting: users cannot reply in the room.
READ_ONLY_LEVEL = -10


class ServerNotices:
    """Sends notices. `version` and `name` are those of the created rooms."""

    def __init__(
        self,
        account: NoticesAccount,
        account_data: AccountData,
        rooms: RoomRegistry,
        creation: RoomCreation,
        memberships: Memberships,
        transactions: Transactions,
        *,
        version: str,
        name: str,
    ) -> None:
        self._account = account
        self._account_data = account_data
        self._rooms = rooms
        self._creation = creation
        self._memberships = memberships
        self._transactions = transactions
        self._version = version
        self._name = name
        self._tags = Tags(account_data)
        self._lock = DeferredLock()

    async def send(
        self, caller: Requester, user_id: str, content: dict[str, Any], txn_id: str | None
    ) -> str:
        """Send a notice to a local user for an administrator; returns its event id.

        With a transaction id it is sent once for each id of the administrator's device, regardless
        of the user.

        Raises `NotFound` for an unknown user, or where the server sends no notices,
        `InviteBlocked` where the user accepts no invites.
        """
        sender = await self._account.get()
        if txn_id is None or not caller.transaction_scope:
            return (await self._send(sender, user_id, content, None)).event.event_id
        # The account is the sender, and the device identifies the administrator.
        device = f"{caller.user_id}/{caller.transaction_scope}"
        transaction = ClientTransaction(sender.user_id, device, txn_id, PATH)
        return await self._transactions.once(
            transaction, lambda: self._send(sender, user_id, content, transaction)
        )

    async def _send(
        self,
        sender: Requester,
        user_id: str,
        content: dict[str, Any],
        transaction: ClientTransaction | None,
    ) -> StoredEvent:
        user = await self._account.find(user_id)
        if user is None or user.is_deactivated:
            raise NotFound("No such user")
        await self._lock.acquire()
        try:
            room_id = await self._find_room(sender, user_id)
            if room_id is None:
                room_id = await self._make_room(sender, user_id)
            elif (await self._rooms.get(room_id)).membership(user_id) not in ("join", "invite"):
                await self._memberships.invite(sender, room_id, user_id)
        finally:
            self._lock.release()
        message = {"msgtype": NOTICE, **content}
        draft = EventDraft(MESSAGE, sender.user_id, message)
        async with self._rooms.writing(room_id) as writer:
            return await writer.send(draft, transaction)

    async def _find_room(self, sender: Requester, user_id: str) -> str | None:
        """The room of a user's notices. Other rooms may have the tag, but another creator."""
        for room_id, type_, content in await self._account_data.changed_since(user_id, 0):
            if room_id is None or type_ != TAG or NOTICE not in _tags_in(content):
                continue
            room = await self._rooms.find(room_id)
            if room is not None and await self._is_from(room, sender):
                return room_id
        return None

    async def _is_from(self, room: Room, sender: Requester) -> bool:
        state = await self._rooms.current(room, [CREATE_KEY])
        return state[CREATE_KEY].event.sender == sender.user_id

    async def _make_room(self, sender: Requester, user_id: str) -> str:
        request = RoomRequest(
            version=self._version,
            preset="private_chat",
            name=self._name,
            invite=[user_id],
            power_levels={"users_default": READ_ONLY_LEVEL},
        )
        room_id = await self._creation.create(sender, request)
        await self._tags.put(user_id, room_id, NOTICE, {})
        return room_id


def _tags_in(content: bytes) -> dict[str, Any]:
    tags = msgspec.json.decode(content).get("tags")
    return tags if isinstance(tags, dict) else {}
