"""A bridge to a network of one user, Echo, made with mautrix, the library of most bridges.

Echo joins where it is invited, reads each message, and repeats it after a moment in which it types.
In encrypted rooms the bridge's bot does so: it has the keys, as in end-to-bridge encryption.
"""

import asyncio
import itertools
import secrets
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from mautrix.appservice import AppService, ASStateStore, IntentAPI
from mautrix.client import Client
from mautrix.client.state_store import MemoryStateStore
from mautrix.crypto import MemoryCryptoStore, OlmMachine
from mautrix.errors import SessionNotFound
from mautrix.types import (
    EventType,
    LoginType,
    Membership,
    MessageType,
    PresenceState,
    TextMessageEventContent,
)

from tests.clients.bridges.registrations import register, unregister
from tests.support.program import free_port
from tests.support.sites import Site

NUMBERS = itertools.count(1)
KEY_SECONDS = 10


class _Rooms(ASStateStore, MemoryStateStore):
    """The rooms of a bridge."""

    def __init__(self) -> None:
        ASStateStore.__init__(self)
        MemoryStateStore.__init__(self)

    async def find_shared_rooms(self, user_id: str) -> list[str]:
        joined = (Membership.JOIN, Membership.INVITE)
        return [
            room
            for room, members in self.members.items()
            if user_id in members and members[user_id].membership in joined
        ]


class EchoBridge:
    """The running bridge; `ephemeral` is what it received of typing, receipts and presence."""

    def __init__(self, site: Site, trusting: ssl.SSLContext) -> None:
        name = f"echo{next(NUMBERS)}"
        self._trusting = trusting
        self._port = free_port()
        self._rooms = _Rooms()
        self.registration: dict[str, Any] = {
            "id": name,
            "url": f"http://127.0.0.1:{self._port}",
            "as_token": secrets.token_hex(32),
            "hs_token": secrets.token_hex(32),
            "sender_localpart": f"{name}_bot",
            "rate_limited": False,
            "namespaces": {"users": [{"regex": f"@{name}_.*", "exclusive": True}]},
            "de.sorunome.msc2409.push_ephemeral": True,
            "org.matrix.msc3202": True,
            "io.element.msc4190": True,
        }
        self.service = AppService(
            site.program.url,
            site.name,
            self.registration["as_token"],
            self.registration["hs_token"],
            self.registration["sender_localpart"],
            name,
            verify_ssl=False,  # it would trust the authorities of the system
            state_store=self._rooms,
            ephemeral_events=True,
            encryption_events=True,
        )
        self.echo = f"@{name}_echo:{site.name}"
        self.ephemeral: list[Any] = []
        self._keys: OlmMachine | None = None

    @property
    def bot(self) -> str:
        """The user id of the bridge itself."""
        return str(self.service.bot_mxid)

    @property
    def ghost(self) -> IntentAPI:
        """Acts as Echo."""
        return self.service.intent.user(self.echo)

    async def start(self) -> None:
        """Listen, and see that the server reaches it."""
        self.service.matrix_event_handler(self._receive)
        await self.service.start(port=self._port)
        await self.service.intent.ensure_registered()
        await self.ghost.ensure_registered()
        await self.service.ping_self()

    async def encrypt(self, session: aiohttp.ClientSession, *, with_login: bool) -> None:
        """Give the bot a device, by logging in or without, and upload its keys."""
        client = Client(
            mxid=self.bot,
            base_url=self.service.server,
            token=self.service.as_token,
            client_session=session,
            state_store=self._rooms,
        )
        if with_login:
            await client.login(login_type=LoginType.APPSERVICE, update_hs_url=False)
        else:
            await client.create_device_msc4190(secrets.token_hex(5), "bridge")
        machine = OlmMachine(client, MemoryCryptoStore(self.bot, "pickle"), self._rooms)
        self.service.otk_handler = machine.handle_as_otk_counts
        self.service.device_list_handler = machine.handle_as_device_lists
        self.service.to_device_handler = machine.handle_as_to_device_event
        await machine.load()
        await machine.share_keys()
        self._keys = machine

    async def _receive(self, event: Any) -> None:
        if event.type in (EventType.TYPING, EventType.RECEIPT, EventType.PRESENCE):
            self.ephemeral.append(event)
        elif event.type == EventType.ROOM_MEMBER:
            await self._receive_member(event)
        elif event.type == EventType.ROOM_ENCRYPTED and event.sender != self.bot:
            await self._repeat_encrypted(event)
        elif event.type == EventType.ROOM_MESSAGE and event.sender not in (self.echo, self.bot):
            await self._repeat(event)

    async def _receive_member(self, event: Any) -> None:
        if self._keys is not None:
            await self._keys.handle_member_event(event)
        if event.content.membership == Membership.INVITE and event.state_key in (
            self.echo,
            self.bot,
        ):
            intent = self.service.intent.user(event.state_key)
            if event.state_key == self.bot:
                intent = self.service.intent
            await intent.join_room_by_id(event.room_id)

    async def _repeat(self, event: Any) -> None:
        await self.ghost.set_presence(PresenceState.ONLINE)
        await self.ghost.mark_read(event.room_id, event.event_id)
        await self.ghost.set_typing(event.room_id, timeout=10_000)
        await asyncio.sleep(0.3)
        await self.ghost.send_text(event.room_id, f"you said: {event.content.body}")

    async def _repeat_encrypted(self, event: Any) -> None:
        assert self._keys is not None
        try:
            message = await self._keys.decrypt_megolm_event(event)
        except SessionNotFound as missing:
            await self._keys.wait_for_session(
                event.room_id, missing.session_id, timeout=KEY_SECONDS
            )
            message = await self._keys.decrypt_megolm_event(event)
        content = TextMessageEventContent(
            msgtype=MessageType.TEXT, body=f"you said: {message.content.body}"
        )
        await self.service.intent.get_room_members(event.room_id)
        members = await self._rooms.get_members(event.room_id)
        if await self._keys.crypto_store.get_outbound_group_session(event.room_id) is None:
            await self._keys.share_group_session(event.room_id, members)
        encrypted = await self._keys.encrypt_megolm_event(
            event.room_id, EventType.ROOM_MESSAGE, content
        )
        await self.service.intent.send_message_event(
            event.room_id, EventType.ROOM_ENCRYPTED, encrypted
        )


@asynccontextmanager
async def echo_bridge(site: Site, trusting: ssl.SSLContext) -> AsyncIterator[EchoBridge]:
    """A running bridge of a server, which forgets it afterwards."""
    bridge = EchoBridge(site, trusting)
    await asyncio.to_thread(register, site, bridge.registration)
    try:
        await bridge.start()
        yield bridge
    finally:
        await asyncio.to_thread(unregister, site, bridge.registration)
        await bridge.service.stop()
