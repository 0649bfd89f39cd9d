"""A bridge made with matrix-appservice-bridge, whose users and rooms come into being on request."""

import asyncio
import json
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.clients.bridges.people import people
from tests.clients.bridges.registrations import register, unregister
from tests.clients.nio_client import ok
from tests.clients.node import FOLDER
from tests.support.program import free_port
from tests.support.sites import LOCAL, Site, Sites

BRIDGES = FOLDER / "bridges"
WAIT_SECONDS = 30.0
pytestmark = [
    pytest.mark.interop,
    pytest.mark.timeout(240),
    pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed"),
    pytest.mark.skipif(
        not (BRIDGES / "node_modules").exists(),
        reason="the bridge is not installed: run `npm ci` in tests/clients/js/bridges",
    ),
]


class LineNetwork:
    """A network of one TCP server; `lines` is what the bridge wrote to it."""

    def __init__(self) -> None:
        self.lines: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        self._bridge: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()

    async def start(self) -> int:
        """Listen; gives the port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def say(self, nick: str, text: str) -> None:
        """Somebody on the network says something."""
        writer = await asyncio.wait_for(self._bridge.get(), WAIT_SECONDS)
        writer.write(json.dumps({"nick": nick, "text": text}).encode() + b"\n")
        self._bridge.put_nowait(writer)

    async def next_line(self) -> dict[str, str]:
        """The next message for the network."""
        return await asyncio.wait_for(self.lines.get(), WAIT_SECONDS)

    async def stop(self) -> None:
        """Close the connection of the bridge, which then ends."""
        self._server.close()
        while not self._bridge.empty():
            self._bridge.get_nowait().close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._bridge.put_nowait(writer)
        while line := await reader.readline():
            self.lines.put_nowait(json.loads(line))


@asynccontextmanager
async def relay(site: Site, authority: Path, folder: Path) -> AsyncIterator[LineNetwork]:
    """A running bridge of a server, with its network."""
    network, port = LineNetwork(), free_port()
    registration = {
        "id": "tcp",
        "url": f"http://127.0.0.1:{port}",
        "as_token": secrets.token_hex(32),
        "hs_token": secrets.token_hex(32),
        "sender_localpart": "_tcp_bot",
        "rate_limited": False,
        "namespaces": {
            "users": [{"regex": "@_tcp_.*", "exclusive": True}],
            "aliases": [{"regex": "#_tcp_.*", "exclusive": True}],
            "rooms": [],
        },
    }
    configuration = folder / "relay.json"
    configuration.write_text(
        json.dumps(
            {
                "url": site.program.url,
                "domain": site.name,
                "port": port,
                "networkPort": await network.start(),
                "registration": registration,
            }
        )
    )
    await asyncio.to_thread(register, site, registration)
    process = await asyncio.create_subprocess_exec(
        "node",
        "relay.mjs",
        str(configuration),
        cwd=BRIDGES,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "NODE_EXTRA_CA_CERTS": str(authority)},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        listening = await asyncio.wait_for(process.stdout.readline(), WAIT_SECONDS)
        assert listening == b"listening\n"
        yield network
    finally:
        await asyncio.to_thread(unregister, site, registration)
        await network.stop()
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.mark.parametrize("person_at", [0, 1], ids=["same server", "other server"])
async def test_rooms_and_users_on_request(sites: Sites, tmp_path: Path, person_at: int) -> None:
    """A person enters a room of the network that nobody has made, and invites somebody there."""
    pair = sites.pair(LOCAL, LOCAL)
    trusting = sites.authority.client_context()
    async with (
        relay(pair[0], sites.authority.path, tmp_path) as network,
        people(trusting) as made,
    ):
        alice = await made.register("alice", pair[person_at].program.url)
        alias = f"#_tcp_lobby{person_at}:{pair[0].name}"
        room = (await ok(alice.client.join(alias))).room_id
        await alice.say(room, "hello from Matrix")
        assert await network.next_line() == {"nick": alice.user_id, "text": "hello from Matrix"}

        await network.say("trudy", "hello from TCP")
        await alice.hears(room, "_tcp_trudy", "hello from TCP")

        newcomer = f"@_tcp_newcomer{person_at}:{pair[0].name}"
        await ok(alice.client.room_invite(room, newcomer))
        await alice.sees(newcomer, room)
        profile = await ok(alice.client.get_profile(newcomer))
        assert profile.displayname == f"newcomer{person_at} (TCP)"
    assert [line for site in pair for line in site.program.new_errors()] == []
