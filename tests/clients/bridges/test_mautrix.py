"""A bridge made with mautrix: ghosts, what is not stored, and end-to-bridge encryption."""

import asyncio
from collections.abc import Iterator

import aiohttp
import pytest

# Its olm has no wheel for each Python.
pytest.importorskip("olm", reason="mautrix with encryption is not installed")

from mautrix.types import EventType

from tests.clients.bridges.mautrix_bridge import echo_bridge
from tests.clients.bridges.people import people
from tests.clients.encryption.conftest import Servers
from tests.clients.encryption.nio_devices import devices, encrypted_room
from tests.support.sites import LOCAL, Sites

pytestmark = [
    pytest.mark.interop,
    pytest.mark.timeout(240),
    # The library reads it in messages of clients that still send it.
    pytest.mark.filterwarnings("ignore:verify_ssl is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:loop argument is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The sender_key field:DeprecationWarning"),
]


@pytest.fixture
def servers(sites: Sites) -> Iterator[Servers]:
    """Two servers that federate, which must not have complained afterwards."""
    authority = sites.authority
    pair = sites.pair(LOCAL, LOCAL)
    yield Servers(*pair, authority.client_context(), authority.path)
    assert [line for site in pair for line in site.program.new_errors()] == []


@pytest.mark.parametrize("person_at", [0, 1], ids=["same server", "other server"])
async def test_ghost_talks(servers: Servers, person_at: int) -> None:
    """It reads, types and answers, and the bridge notices what people do."""
    async with (
        echo_bridge(servers.first, servers.trusting) as bridge,
        people(servers.trusting) as made,
    ):
        alice = await made.register("alice", servers.urls[person_at])
        room = await alice.chat_with(bridge.echo)
        said = await alice.say(room, "hello")
        echo = bridge.echo[1:].partition(":")[0]

        await alice.hears(room, echo, "you said: hello")

        await alice.until(lambda: bridge.echo in alice.typed[room], "typing")
        await alice.until(lambda: (bridge.echo, said) in alice.read[room], "a receipt")
        await alice.until(lambda: alice.presence.get(bridge.echo) == "online", "presence")
        await alice.client.room_typing(room, timeout=10_000)
        await alice.client.room_read_markers(room, said, said)
        kinds = {EventType.TYPING, EventType.RECEIPT, EventType.PRESENCE}
        await alice.until(
            lambda: kinds <= {event.type for event in bridge.ephemeral}, "ephemeral events"
        )


@pytest.mark.parametrize("with_login", [True, False], ids=["login", "no login"])
@pytest.mark.parametrize("person_at", [0, 1], ids=["same server", "other server"])
async def test_bot_encrypts(servers: Servers, person_at: int, *, with_login: bool) -> None:
    """The bridge's bot reads and writes in an encrypted room, without ever syncing."""
    connector = aiohttp.TCPConnector(ssl=servers.trusting, limit=0)
    async with (
        echo_bridge(servers.first, servers.trusting) as bridge,
        aiohttp.ClientSession(connector=connector) as session,
        devices(servers) as made,
    ):
        await bridge.encrypt(session, with_login=with_login)
        alice = await made.register("alice", person_at)
        room = await encrypted_room(alice, invited=[bridge.bot])
        await alice.until(lambda: bridge.bot in alice.members(room), "the bot")
        await alice.until(lambda: alice.active_devices(bridge.bot), "its keys")

        for text in ("hello", "how are you?"):
            await alice.say(room, text)
            await alice.hears(room, text, f"you said: {text}")

        # Its answers are for new devices of hers, too. These cannot read what was before them.
        laptop = await made.another(alice)
        await alice.knows(laptop)
        await alice.say(room, "who else is here?")
        answer = "you said: who else is here?"
        await laptop.until(lambda: answer in laptop.heard[room], answer)
    # Connections with TLS end a moment after they were closed.
    await asyncio.sleep(0.25)
