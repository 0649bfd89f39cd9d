"""Files with matrix-nio, the Python client library that most bots are made of."""

from io import BytesIO
from typing import Any

import pytest
from nio import DownloadError, ResizingMethod

from tests.clients.nio_client import account, direct_room, hear, ok
from tests.media.pictures import decode, encode, halves
from tests.support.process import ServerProcess

pytestmark = pytest.mark.interop


async def test_a_picture_is_sent_and_seen(server: ServerProcess) -> None:
    """A bot posts a picture, of which the other user sees a thumbnail, and then the whole."""
    content = encode(halves(1_000, 500), "JPEG")
    async with account(server, "alice") as alice, account(server, "bob") as bob:
        room = await direct_room(alice, bob)
        uploaded = await upload(alice, content, "image/jpeg", "sunset.jpg")
        event = {"msgtype": "m.image", "body": "sunset.jpg", "url": uploaded}
        await ok(alice.room_send(room, "m.room.message", event))

        whole = await ok(bob.download(uploaded))
        small = await ok(bob.thumbnail(*parts_of(uploaded), 320, 240, ResizingMethod.scale))

    assert (whole.body, whole.content_type, whole.filename) == (content, "image/jpeg", "sunset.jpg")
    assert decode(small.body).size == (320, 160)


async def test_an_avatar(server: ServerProcess) -> None:
    """Users see each other's faces."""
    async with account(server, "alice") as alice, account(server, "bob") as bob:
        uploaded = await upload(alice, encode(halves(500, 500)), "image/png", "me.png")
        await ok(alice.set_avatar(uploaded))

        url = (await ok(bob.get_avatar(alice.user_id))).avatar_url
        small = await ok(bob.thumbnail(*parts_of(url), 96, 96, ResizingMethod.crop))

    assert decode(small.body).size == (96, 96)


async def test_a_picture_of_a_room(server: ServerProcess) -> None:
    """A bot gives a room a picture, which the others see when they sync."""
    async with account(server, "alice") as alice, account(server, "bob") as bob:
        room = await direct_room(alice, bob)
        uploaded = await upload(alice, encode(halves(64, 64)), "image/png", "room.png")
        await ok(alice.room_put_state(room, "m.room.avatar", {"url": uploaded}))

        await hear(bob)
        small = await ok(bob.thumbnail(*parts_of(uploaded), 32, 32, ResizingMethod.crop))

    assert bob.rooms[room].room_avatar_url == uploaded
    assert decode(small.body).size == (32, 32)


async def test_the_limit_and_a_missing_file(server: ServerProcess) -> None:
    """A bot learns what it can upload, and that a file is missing."""
    async with account(server, "alice") as alice:
        config = await ok(alice.content_repository_config())
        missing = await alice.download("mxc://localhost/nothing")

    assert config.upload_size == 100 * 1_048_576
    assert isinstance(missing, DownloadError)
    assert missing.status_code == "M_NOT_FOUND"


def parts_of(uri: str) -> tuple[str, str]:
    """Server name and media id."""
    server_name, media_id = uri.removeprefix("mxc://").split("/")
    return server_name, media_id


async def upload(client: Any, content: bytes, content_type: str, name: str) -> str:
    """Upload a file; its URI."""
    response, _ = await client.upload(
        BytesIO(content), content_type=content_type, filename=name, filesize=len(content)
    )
    uri: str = response.content_uri
    return uri
