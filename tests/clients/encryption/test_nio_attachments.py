"""Files in encrypted rooms with matrix-nio: servers keep and pass on what they cannot read."""

from io import BytesIO

import pytest
from nio import RoomEncryptedAudio, RoomEncryptedFile, RoomEncryptedImage, RoomEncryptedMedia
from nio.crypto.attachments import decrypt_attachment

from tests.clients.encryption.conftest import Servers
from tests.clients.encryption.nio_devices import Device, devices, encrypted_room
from tests.clients.nio_client import collect, ok

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]
KINDS = {
    "m.image": RoomEncryptedImage,
    "m.file": RoomEncryptedFile,
    "m.audio": RoomEncryptedAudio,
}


async def test_files_are_opened_by_the_others(servers: Servers) -> None:
    """A picture, a file and a voice message arrive whole, on the other user's server too."""
    async with devices(servers) as made:
        alice, bob = await made.register("alice"), await made.register("bob", 1)
        room = await encrypted_room(alice, bob)
        await alice.knows(bob)
        received = {msgtype: collect(bob.client, kind) for msgtype, kind in KINDS.items()}
        contents = {msgtype: msgtype.encode() * 100_000 for msgtype in KINDS}

        for msgtype, content in contents.items():
            await send(alice, room, msgtype, content)
        await bob.until(lambda: all(received.values()), "the files")

        for msgtype, content in contents.items():
            ((_, event),) = received[msgtype]
            assert await opened(bob, event) == content


async def send(device: Device, room: str, msgtype: str, content: bytes) -> None:
    """Encrypt a file, upload it, and send a message with its key."""
    response, file = await device.client.upload(
        BytesIO(content),
        content_type="application/octet-stream",
        encrypt=True,
        filesize=len(content),
    )
    message = {"msgtype": msgtype, "body": "x", "file": file | {"url": response.content_uri}}
    await ok(
        device.client.room_send(room, "m.room.message", message, ignore_unverified_devices=True)
    )


async def opened(device: Device, event: RoomEncryptedMedia) -> bytes:
    """The file of a message, downloaded and decrypted; fails if its hash is another one."""
    response = await ok(device.client.download(event.url))
    content: bytes = decrypt_attachment(
        response.body, event.key["k"], event.hashes["sha256"], event.iv
    )
    return content
