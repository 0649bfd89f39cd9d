"""Bots that encrypt, made with mautrix, the library of most bridges.

They join where they are invited, and repeat each message that they can read.
"""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from mautrix.api import Method, Path
from mautrix.client import Client
from mautrix.client.state_store import MemoryStateStore
from mautrix.crypto import MemoryCryptoStore, OlmMachine
from mautrix.types import EventType, Membership, MessageType, TextMessageEventContent

from tests.clients.encryption.conftest import Servers

NUMBERS = itertools.count(1)
WAIT_SECONDS = 60.0


class _Rooms(MemoryStateStore):
    """The rooms of a bot, as its olm machine asks for them."""

    async def find_shared_rooms(self, user_id: str) -> list[str]:
        joined = (Membership.JOIN, Membership.INVITE)
        return [
            room
            for room, members in self.members.items()
            if user_id in members and members[user_id].membership in joined
        ]


class Bot:
    """One running device of a bot."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._rooms = client.state_store
        client.add_event_handler(EventType.ROOM_MEMBER, self._accept)
        client.add_event_handler(EventType.ROOM_MESSAGE, self._repeat)

    @property
    def machine(self) -> OlmMachine:
        """Its keys."""
        return self.client.crypto

    async def start(self) -> None:
        """Upload its keys, and sync from now on."""
        await self.machine.load()
        await self.machine.share_keys()
        self.client.start(None)

    async def trust_in(self, user_id: str, device_id: str) -> Any:
        """How far it trusts a device, which it looks up."""
        device = await self.machine.get_or_fetch_device(user_id, device_id)
        return await self.machine.resolve_trust(device)

    async def _accept(self, event: Any) -> None:
        is_own = event.state_key == self.client.mxid
        if is_own and event.content.membership == Membership.INVITE:
            await self.client.join_room(event.room_id)

    async def _repeat(self, event: Any) -> None:
        if event.sender == self.client.mxid or not await self._rooms.is_encrypted(event.room_id):
            return
        content = TextMessageEventContent(
            msgtype=MessageType.NOTICE, body=f"you said: {event.content.body}"
        )
        await self.client.send_message_event(event.room_id, EventType.ROOM_MESSAGE, content)


class Bots:
    """All bots of a test."""

    def __init__(self, servers: Servers, session: aiohttp.ClientSession) -> None:
        self._servers = servers
        self._session = session
        self.running: list[Bot] = []

    async def register(self, server: int) -> Bot:
        """A new bot on the first server, or on the second (1)."""
        name = f"bot-{os.getpid()}-{next(NUMBERS)}"
        client = self._client(self._servers.urls[server])
        body = {"username": name, "password": name, "auth": {"type": "m.login.dummy"}}
        account = await client.api.request(Method.POST, Path.v3.register, body)
        client.mxid, client.device_id = account["user_id"], account["device_id"]
        client.api.token = account["access_token"]
        return await self._started(client)

    async def another(self, bot: Bot) -> Bot:
        """A further device of a bot."""
        client = self._client(str(bot.client.api.base_url))
        name = bot.client.mxid[1:].partition(":")[0]
        client.mxid = bot.client.mxid
        await client.login(name, password=name)
        return await self._started(client)

    def _client(self, url: str) -> Client:
        return Client(base_url=url, client_session=self._session, state_store=_Rooms())

    async def _started(self, client: Client) -> Bot:
        keys = MemoryCryptoStore(client.mxid, "pickle")
        client.crypto = OlmMachine(client, keys, client.state_store)
        bot = Bot(client)
        await bot.start()
        self.running.append(bot)
        return bot


@asynccontextmanager
async def bots(servers: Servers) -> AsyncIterator[Bots]:
    """Makes bots, and ends them all."""
    connector = aiohttp.TCPConnector(ssl=servers.trusting, limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        made = Bots(servers, session)
        try:
            yield made
        finally:
            for bot in made.running:
                bot.client.stop()
    # Connections with TLS end a moment after they were closed.
    await asyncio.sleep(0.25)
