"""Files with matrix-nio, the Python client library that most bots are made of."""

from io import BytesIO
from typing import Any

import pytest
from nio import DownloadError, ResizingMethod

from tests.clients.nio_client import account, direct_room, ok
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
        server_name, media_id = uploaded.removeprefix("mxc://").split("/")

        whole = await ok(bob.download(uploaded))
        small = await ok(bob.thumbnail(server_name, media_id, 320, 240, ResizingMethod.scale))

    assert (whole.body, whole.content_type, whole.filename) == (content, "image/jpeg", "sunset.jpg")
    assert decode(small.body).size == (320, 160)


async def test_an_avatar(server: ServerProcess) -> None:
    """Users see each other's faces."""
    async with account(server, "alice") as alice, account(server, "bob") as bob:
        uploaded = await upload(alice, encode(halves(500, 500)), "image/png", "me.png")
        await ok(alice.set_avatar(uploaded))

        url = (await ok(bob.get_avatar(alice.user_id))).avatar_url
        server_name, media_id = url.removeprefix("mxc://").split("/")
        small = await ok(bob.thumbnail(server_name, media_id, 96, 96, ResizingMethod.crop))

    assert decode(small.body).size == (96, 96)


async def test_the_limit_and_a_missing_file(server: ServerProcess) -> None:
    """A bot learns what it can upload, and that a file is missing."""
    async with account(server, "alice") as alice:
        config = await ok(alice.content_repository_config())
        missing = await alice.download("mxc://localhost/nothing")

    assert config.upload_size == 100 * 1_048_576
    assert isinstance(missing, DownloadError)
    assert missing.status_code == "M_NOT_FOUND"


async def upload(client: Any, content: bytes, content_type: str, name: str) -> str:
    """Upload a file; its URI."""
    response, _ = await client.upload(
        BytesIO(content), content_type=content_type, filename=name, filesize=len(content)
    )
    uri: str = response.content_uri
    return uri
