"""Devices that encrypt, made with matrix-nio: they sync, and manage their keys, by themselves."""

import asyncio
import contextlib
import itertools
import os
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from nio import (
    AsyncClient,
    AsyncClientConfig,
    EncryptionError,
    KeyVerificationKey,
    KeyVerificationStart,
    LocalProtocolError,
    MatrixRoom,
    MegolmEvent,
    RoomMessageNotice,
    RoomMessageText,
    SyncResponse,
)
from nio.store import SqliteMemoryStore

from tests.clients.encryption.conftest import Servers
from tests.clients.nio_client import ok, password_of

WAIT_SECONDS = 60.0  # a busy machine is slow; only failures wait that long
POLL_MS = 10_000
FILTER = {"room": {"timeline": {"limit": 200}}}  # a shorter timeline may have gaps
NUMBERS = itertools.count(1)
ENCRYPTION = {
    "type": "m.room.encryption",
    "state_key": "",
    "content": {"algorithm": "m.megolm.v1.aes-sha2"},
}


class Device:
    """A running client of one user.

    `heard` has the bodies of the messages of each room, in the order in which it could read them,
    and `unreadable` the event ids of the others, which it tries again when it has synced.
    """

    def __init__(self, client: AsyncClient) -> None:
        self.client = client
        self.heard: dict[str, list[str]] = defaultdict(list)
        self._missed: list[MegolmEvent] = []
        self.emoji: list[tuple[str, str]] = []
        self._news = asyncio.Event()
        self._syncing: asyncio.Task[None] | None = None
        client.add_event_callback(self._hear, (RoomMessageText, RoomMessageNotice))
        client.add_event_callback(self._miss, MegolmEvent)
        client.add_to_device_callback(self._verify, (KeyVerificationStart, KeyVerificationKey))
        client.add_response_callback(self._tell, SyncResponse)

    @property
    def name(self) -> tuple[str, str]:
        """User id and device id."""
        return self.client.user_id, self.client.device_id

    def unreadable(self, room: str) -> list[str]:
        """The event ids of the messages of a room that it cannot read."""
        return [event.event_id for event in self._missed if event.room_id == room]

    def start(self) -> None:
        """Sync in the background from now on."""
        syncing = self.client.sync_forever(timeout=POLL_MS, sync_filter=FILTER)
        self._syncing = asyncio.create_task(syncing)

    async def stop(self) -> None:
        """Go offline."""
        if self._syncing is not None:
            self._syncing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._syncing
            self._syncing = None

    async def until(self, seen: Callable[[], Any], what: str = "") -> None:
        """Wait until something was seen; fails after `WAIT_SECONDS`."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not seen():
            assert self._syncing is None or not self._syncing.done(), self._syncing
            left = deadline - time.monotonic()
            assert left > 0, f"{self.name} waited in vain for {what}; it has {self._summary()}"
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                # What it waits for may come from a request beside the sync.
                await asyncio.wait_for(self._news.wait(), min(left, 0.1))

    async def hears(self, room: str, *bodies: str) -> None:
        """Wait until the last messages of a room are these, and it could read all of them."""
        await self.until(
            lambda: self.heard[room][-len(bodies) :] == list(bodies), f"{bodies} in {room}"
        )
        assert not self.unreadable(room), self._summary()

    async def hears_all(self, room: str, bodies: list[str]) -> None:
        """Wait until it has read these messages of a room, in any order, each once."""
        await self.until(lambda: len(self.heard[room]) >= len(bodies), f"{bodies} in {room}")
        assert sorted(self.heard[room]) == sorted(bodies)

    async def knows(self, *others: "Device") -> None:
        """Wait until it has the keys of all these devices."""
        for other in others:
            await self.until(lambda other=other: self.has(other), f"the keys of {other.name}")

    def has(self, other: "Device") -> bool:
        """Whether it has the keys of a device, which is not deleted."""
        user_id, device_id = other.name
        return any(each.id == device_id for each in self.active_devices(user_id))

    def active_devices(self, user_id: str) -> list[Any]:
        """The devices of a user as it knows them."""
        return list(self.client.device_store.active_user_devices(user_id))

    async def sees_members(self, room: str, *others: "Device") -> None:
        """Wait until all these are in an encrypted room, as far as it knows."""
        users = {other.client.user_id for other in others}
        await self.until(lambda: users <= self.members(room), f"{users} in {room}")

    def members(self, room: str) -> set[str]:
        """The users who are in an encrypted room, as far as it knows; else nobody."""
        known = self.client.rooms.get(room)
        if known is None or not known.encrypted:
            return set()
        return known.users.keys() - known.invited_users.keys()

    async def say(self, room: str, body: str) -> str:
        """Send an encrypted message, to unverified devices too; gives the event id."""
        content = {"msgtype": "m.text", "body": body}
        response = await ok(
            self.client.room_send(room, "m.room.message", content, ignore_unverified_devices=True)
        )
        event_id: str = response.event_id
        return event_id

    def readers(self, room: str) -> set[tuple[str, str]]:
        """The devices that it gave the key of its last message in a room."""
        shared: set[tuple[str, str]] = self.client.olm.outbound_group_sessions[
            room
        ].users_shared_with
        return shared

    async def _hear(self, room: MatrixRoom, event: RoomMessageText | RoomMessageNotice) -> None:
        assert event.decrypted, event
        self.heard[room.room_id].append(event.body)

    async def _miss(self, room: MatrixRoom, event: MegolmEvent) -> None:
        self._missed.append(event)

    async def _verify(self, event: Any) -> None:
        # What a user does, but for comparing the emoji.
        transaction = event.transaction_id
        if isinstance(event, KeyVerificationStart):
            await ok(self.client.accept_key_verification(transaction))
        else:
            sas = self.client.key_verifications[transaction]
            await ok(self.client.to_device(sas.share_key())) if not sas.we_started_it else None
            self.emoji = sas.get_emoji()
            await ok(self.client.confirm_short_auth_string(transaction))

    async def _tell(self, _: SyncResponse) -> None:
        for event in list(self._missed):
            with contextlib.suppress(EncryptionError):
                self.heard[event.room_id].append(self.client.decrypt_event(event).body)
                self._missed.remove(event)
        self._news.set()

    def _summary(self) -> str:
        members = {room: sorted(self.members(room)) for room in self.client.rooms}
        missed = [event.event_id for event in self._missed]
        return f"heard {dict(self.heard)}, not read {missed}, members {members}"


class Devices:
    """All devices of a scenario."""

    def __init__(self, servers: Servers, stack: AsyncExitStack) -> None:
        self._servers = servers
        self._stack = stack

    async def register(self, name: str, server: int = 0) -> Device:
        """The first device of a new user of the first server, or of the second (1)."""
        localpart = f"{name}-{os.getpid()}-{next(NUMBERS)}"
        client = await self._client(self._servers.urls[server], localpart)
        await ok(client.register(localpart, f"password of {localpart}"))
        return await self._started(client)

    async def another(self, first: Device) -> Device:
        """A further device of the same user."""
        user_id = first.client.user_id
        client = await self._client(first.client.homeserver, user_id)
        await ok(client.login(password_of(user_id), device_name="another"))
        return await self._started(client)

    async def _client(self, url: str, user: str) -> AsyncClient:
        config = AsyncClientConfig(store=SqliteMemoryStore)
        client = AsyncClient(url, user, config=config, ssl=self._servers.trusting)
        self._stack.push_async_callback(client.close)
        return client

    async def _started(self, client: AsyncClient) -> Device:
        device = Device(client)
        self._stack.push_async_callback(device.stop)
        device.start()
        await device.until(lambda: client.olm_account_shared, "its keys to be uploaded")
        return device


@asynccontextmanager
async def devices(servers: Servers) -> AsyncIterator[Devices]:
    """Makes devices, and ends them all."""
    async with AsyncExitStack() as stack:
        yield Devices(servers, stack)
    # Connections with TLS end a moment after they were closed.
    await asyncio.sleep(0.25)


async def encrypted_room(owner: Device, *others: Device, invited: Sequence[str] = ()) -> str:
    """A private encrypted room of these users, as all these devices see; more are `invited`."""
    firsts = {each.client.user_id: each for each in reversed((owner, *others))}
    del firsts[owner.client.user_id]
    created = owner.client.room_create(invite=[*firsts, *invited], initial_state=[ENCRYPTION])
    room: str = (await ok(created)).room_id
    for other in firsts.values():
        await join(other, room)
    for device in (owner, *others):
        await device.sees_members(room, owner, *others)
    return room


async def join(device: Device, room: str) -> None:
    """Accept an invite once it has arrived."""
    await device.until(lambda: room in device.client.invited_rooms, f"the invite to {room}")
    await ok(device.client.join(room))


async def verify(one: Device, other: Device) -> None:
    """Compare emoji, as two users do who meet; fails if they differ."""
    await one.knows(other)
    await other.knows(one)
    device = one.client.device_store[other.client.user_id][other.client.device_id]
    await ok(one.client.start_key_verification(device))
    for asking, asked in ((one, other), (other, one)):
        await asking.until(lambda a=asking, b=asked: trusts(a, b), f"trust in {asked.name}")
    assert one.emoji == other.emoji
    assert len(one.emoji) == 7


def trusts(one: Device, other: Device) -> bool:
    """Whether a device has verified another one."""
    with contextlib.suppress(KeyError, LocalProtocolError):
        device = one.client.device_store[other.client.user_id][other.client.device_id]
        return bool(one.client.olm.is_device_verified(device))
    return False
