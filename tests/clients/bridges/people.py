"""People on Matrix who use bridges: clients made with matrix-nio, which sync by themselves."""

import asyncio
import contextlib
import itertools
import os
import ssl
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

from nio import (
    AsyncClient,
    AsyncClientConfig,
    MatrixRoom,
    PresenceEvent,
    ReceiptEvent,
    RoomMessageFormatted,
    SyncResponse,
    TypingNoticeEvent,
)

from tests.clients.nio_client import ok

WAIT_SECONDS = 30.0
POLL_MS = 10_000
FILTER = {"room": {"timeline": {"limit": 200}}}  # a shorter timeline may have gaps
NUMBERS = itertools.count(1)


class Message(NamedTuple):
    """A message in a room, with the localpart of its sender."""

    sender: str
    body: str


class Person:
    """A running client of one user; `heard` are the messages of each room, without their own.

    `typed` are all who ever typed in a room, and `read` the users and events of its receipts.
    """

    def __init__(self, client: AsyncClient) -> None:
        self.client = client
        self.heard: dict[str, list[Message]] = defaultdict(list)
        self.typed: dict[str, set[str]] = defaultdict(set)
        self.read: dict[str, set[tuple[str, str]]] = defaultdict(set)
        self.presence: dict[str, str] = {}
        self._news = asyncio.Event()
        client.add_ephemeral_callback(self._see_ephemeral, (TypingNoticeEvent, ReceiptEvent))
        client.add_presence_callback(self._see_presence, PresenceEvent)
        client.add_event_callback(self._hear, RoomMessageFormatted)
        client.add_response_callback(self._synced, SyncResponse)
        syncing = client.sync_forever(timeout=POLL_MS, sync_filter=FILTER)
        self._syncing = asyncio.create_task(syncing)

    @property
    def user_id(self) -> str:
        """Their user id."""
        return str(self.client.user_id)

    @property
    def localpart(self) -> str:
        """Their user id without the server."""
        return self.user_id[1:].partition(":")[0]

    async def stop(self) -> None:
        """Go offline."""
        self._syncing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._syncing
        await self.client.close()

    async def chat_with(self, bot: str) -> str:
        """A direct chat with a bridge, which has joined it."""
        room: str = (await ok(self.client.room_create(is_direct=True, invite=[bot]))).room_id
        await self.sees(bot, room)
        return room

    async def join_next(self) -> str:
        """Accept the next invite."""
        await self.until(lambda: bool(self.client.invited_rooms), "an invite")
        room = next(iter(self.client.invited_rooms))
        await ok(self.client.join(room))
        await self.until(lambda: room in self.client.rooms, f"a room, {room}")
        return room

    async def sees(self, user_id: str, room: str) -> None:
        """Wait until somebody has joined a room."""
        await self.until(lambda: user_id in self._joined(room), f"{user_id} in {room}")

    async def say(self, room: str, text: str) -> str:
        """Send a message, again until the server has it; gives the event id."""
        content = {"msgtype": "m.text", "body": text}
        sent = await ok(self.client.room_send(room, "m.room.message", content))
        return str(sent.event_id)

    async def hears(self, room: str, sender: str, *bodies: str) -> None:
        """Wait until somebody has said exactly this in a room, since the beginning."""
        await self.until(
            lambda: len(self.said_by(room, sender)) >= len(bodies), f"{bodies} of {sender}"
        )
        assert self.said_by(room, sender) == list(bodies)

    async def hears_of(self, room: str, part: str) -> None:
        """Wait until some message in a room has this in it."""
        await self.until(lambda: any(part in each.body for each in self.heard[room]), part)

    def said_by(self, room: str, sender: str) -> list[str]:
        """The messages of somebody in a room, in their order."""
        return [each.body for each in self.heard[room] if each.sender == sender]

    async def until(self, seen: Callable[[], bool], what: str) -> None:
        """Wait until something was seen."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not seen():
            assert not self._syncing.done(), self._syncing
            left = deadline - time.monotonic()
            heard = dict(self.heard)
            assert left > 0, f"{self.user_id} waited in vain for {what}; heard {heard}"
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), left)

    def _joined(self, room: str) -> set[str]:
        known = self.client.rooms.get(room)
        return set() if known is None else known.users.keys() - known.invited_users.keys()

    async def _hear(self, room: MatrixRoom, event: RoomMessageFormatted) -> None:
        if event.sender != self.client.user_id:
            localpart = event.sender[1:].partition(":")[0]
            self.heard[room.room_id].append(Message(localpart, event.body))

    async def _see_ephemeral(self, room: MatrixRoom, event: Any) -> None:
        if isinstance(event, ReceiptEvent):
            self.read[room.room_id] |= {(each.user_id, each.event_id) for each in event.receipts}
        else:
            self.typed[room.room_id] |= {*event.users}

    async def _see_presence(self, event: PresenceEvent) -> None:
        self.presence[event.user_id] = event.presence

    async def _synced(self, _: Any) -> None:
        self._news.set()


class People:
    """All people of a test."""

    def __init__(self, trusting: ssl.SSLContext, stack: AsyncExitStack) -> None:
        self._trusting = trusting
        self._stack = stack

    async def register(self, name: str, url: str) -> Person:
        """A new user of the server at this URL."""
        localpart = f"{name}{os.getpid()}n{next(NUMBERS)}"
        config = AsyncClientConfig(encryption_enabled=False)
        client = AsyncClient(url, localpart, config=config, ssl=self._trusting)
        await ok(client.register(localpart, f"password of {localpart}"))
        person = Person(client)
        self._stack.push_async_callback(person.stop)
        return person


@asynccontextmanager
async def people(trusting: ssl.SSLContext) -> AsyncIterator[People]:
    """Registers people, and ends their clients."""
    async with AsyncExitStack() as stack:
        yield People(trusting, stack)
    # Connections with TLS end a moment after they were closed.
    await asyncio.sleep(0.25)
