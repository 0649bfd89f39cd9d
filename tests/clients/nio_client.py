"""Clients made with matrix-nio, with helpers for their most frequent actions."""

import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from nio import (
    AsyncClient,
    AsyncClientConfig,
    ErrorResponse,
    MatrixRoom,
    ReceiptEvent,
    TypingNoticeEvent,
)

from tests.support.process import ServerProcess

WAIT_SECONDS = 15.0
NAMES = itertools.count(1)


@asynccontextmanager
async def account(server: ServerProcess, name: str) -> AsyncIterator[AsyncClient]:
    """A client that has just registered."""
    localpart = f"{name}{next(NAMES)}"
    config = AsyncClientConfig(encryption_enabled=False)
    client = AsyncClient(server.url, localpart, config=config)
    try:
        await ok(client.register(localpart, f"password of {localpart}"))
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def another_device(server: ServerProcess, first: AsyncClient) -> AsyncIterator[AsyncClient]:
    """A second client of an account."""
    config = AsyncClientConfig(encryption_enabled=False)
    client = AsyncClient(server.url, first.user_id, config=config)
    try:
        await ok(client.login(password_of(first.user_id), device_name="another"))
        yield client
    finally:
        await client.close()


def password_of(user_id: str) -> str:
    """The password that `account` gave a user."""
    return f"password of {user_id[1:].partition(':')[0]}"


async def ok(call: Awaitable[Any]) -> Any:
    """The response of a call; fails if it is an error."""
    response = await call
    assert not isinstance(response, ErrorResponse), response
    return response


async def direct_room(one: AsyncClient, other: AsyncClient) -> str:
    """A room that both are in."""
    room: str = (await ok(one.room_create(is_direct=True, invite=[other.user_id]))).room_id
    await ok(other.join(room))
    return room


async def say(client: AsyncClient, room: str, text: str) -> str:
    """Send a text message; gives the event id."""
    content = {"msgtype": "m.text", "body": text}
    event_id: str = (await ok(client.room_send(room, "m.room.message", content))).event_id
    return event_id


async def hear(client: AsyncClient) -> None:
    """Bring a client up to date."""
    await ok(client.sync(timeout=0, full_state=client.next_batch is None or not client.next_batch))


def collect(client: AsyncClient, kind: type[Any]) -> list[tuple[MatrixRoom, Any]]:
    """A list that grows with each event of a kind that the client receives from now on."""
    found: list[tuple[MatrixRoom, Any]] = []

    async def note(room: MatrixRoom, event: Any) -> None:
        found.append((room, event))

    if kind in (TypingNoticeEvent, ReceiptEvent):
        client.add_ephemeral_callback(note, kind)
    else:
        client.add_event_callback(note, kind)
    return found


async def until(client: AsyncClient, seen: Callable[[], bool]) -> None:
    """Sync until something was seen; fails after `WAIT_SECONDS`."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not seen():
        assert time.monotonic() < deadline, f"{client.user_id} waited in vain"
        await ok(client.sync(timeout=1000))
