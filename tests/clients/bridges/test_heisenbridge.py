"""People on IRC and on Matrix talk through heisenbridge, by HTTP and from behind NAT."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest

from tests.clients.bridges.conftest import IrcBridges
from tests.clients.bridges.heisenbridge import IS_INSTALLED, Heisenbridge
from tests.clients.bridges.irc import NGIRCD, IrcUser, Ngircd
from tests.clients.bridges.people import People, Person, people

pytestmark = [
    pytest.mark.interop,
    pytest.mark.timeout(240),
    pytest.mark.skipif(not IS_INSTALLED, reason="heisenbridge is not installed: make bridge"),
    pytest.mark.skipif(NGIRCD is None, reason="ngircd is not installed: apt install ngircd"),
]


NETWORK = "local"
NUMBERS = itertools.count(1)


@dataclass
class Chat:
    """A channel on IRC, and its room, in which there is one Matrix user."""

    bridge: Heisenbridge
    matrix: Person
    irc: IrcUser
    channel: str
    room: str

    @property
    def nick(self) -> str:
        """The nickname of the Matrix user on IRC."""
        return self.matrix.localpart

    @property
    def ghost(self) -> str:
        """The localpart of the IRC user on Matrix."""
        return f"irc_{NETWORK}_{self.irc.nick}"

    async def both_ways(self) -> None:
        """Each of them says something that the other one hears once."""
        await self.matrix.say(self.room, "hello from Matrix")
        await self.irc.hears(self.nick, "hello from Matrix")
        self.irc.say(self.channel, "hello from IRC")
        await self.matrix.hears(self.room, self.ghost, "hello from IRC")

    async def said(self, *texts: str) -> None:
        """The Matrix user says this, in this order."""
        for text in texts:
            await self.matrix.say(self.room, text)


@asynccontextmanager
async def chat(
    bridges: IrcBridges, network: Ngircd, *, at: int = 0, person_at: int = 0
) -> AsyncIterator[Chat]:
    """A channel with its room, by the bridge of one server, with a user of that one or another."""
    bridge = await asyncio.to_thread(bridges.get, at)
    number = next(NUMBERS)
    irc, channel = IrcUser(f"ivan{number}"), f"#chat{number}"
    async with people(bridges.trusting) as made, AsyncExitStack() as stack:
        await irc.connect(network.port)
        stack.push_async_callback(irc.close)
        await irc.join(channel)
        await allow_everybody(bridges, made, network, at)
        matrix = await made.register("alice", bridges.sites[person_at].program.url)
        control = await matrix.chat_with(bridge.bot)
        await matrix.say(control, f"OPEN {NETWORK}")
        connection = await matrix.join_next()
        await matrix.say(connection, "CONNECT")
        await matrix.hears_of(connection, "End of MOTD")
        await matrix.say(connection, f"JOIN {channel}")
        room = await matrix.join_next()
        await irc.sees(matrix.localpart, channel)
        yield Chat(bridge, matrix, irc, channel, room)


async def allow_everybody(bridges: IrcBridges, made: People, network: Ngircd, at: int) -> None:
    """The first user of a bridge is its owner, who configures it."""
    if at in bridges.configured:
        return
    bridge = bridges.get(at)
    owner = await made.register("owner", bridges.sites[at].program.url)
    control = await owner.chat_with(bridge.bot)
    for number, command in enumerate(
        (
            f"ADDNETWORK {NETWORK}",
            f"ADDSERVER {NETWORK} 127.0.0.1 {network.port}",
            "ADDMASK @*",
        ),
        start=1,
    ):
        await owner.say(control, command)
        await owner.until(lambda n=number: len(owner.heard[control]) > n, command)
    bridges.configured.add(at)


@pytest.mark.parametrize("person_at", [0, 1], ids=["same server", "other server"])
@pytest.mark.parametrize("at", [0, 1], ids=["http", "websocket"])
async def test_people_talk(
    bridges: IrcBridges, irc_network: Ngircd, at: int, person_at: int
) -> None:
    """A person on IRC and one on Matrix hear each other."""
    async with chat(bridges, irc_network, at=at, person_at=abs(at - person_at)) as talking:
        await talking.both_ways()


async def test_bridge_that_was_killed(bridges: IrcBridges, irc_network: Ngircd) -> None:
    """What people say meanwhile waits for it, and nobody hears anything twice."""
    async with chat(bridges, irc_network) as talking:
        bridge, irc = talking.bridge, talking.irc
        await talking.said("one", "two")
        await irc.hears(talking.nick, "one", "two")
        await asyncio.to_thread(bridge.kill)
        await irc.loses(talking.nick, talking.channel)
        await talking.said("three", "four")
        # It drops what it receives before it is on IRC again.
        bridge.close_way()
        await asyncio.to_thread(bridge.start)
        await irc.sees(talking.nick, talking.channel)
        await talking.said("five")
        bridge.open_way()

        await irc.hears(talking.nick, "one", "two", "three", "four", "five")
        irc.say(talking.channel, "hello from IRC")
        await talking.matrix.hears(talking.room, talking.ghost, "hello from IRC")
        assert irc.said_by(talking.nick) == ["one", "two", "three", "four", "five"]


@pytest.mark.parametrize("at", [0, 1], ids=["http", "websocket"])
async def test_server_that_was_killed(bridges: IrcBridges, irc_network: Ngircd, at: int) -> None:
    """A Matrix user goes on talking, and each message arrives on IRC once."""
    async with chat(bridges, irc_network, at=at) as talking:
        program = bridges.sites[at].program
        texts = [str(number) for number in range(10)]  # with more, the bridge protects IRC
        await talking.said(*texts[:4])
        saying = asyncio.create_task(talking.said(*texts[4:]))
        await talking.irc.until(lambda: bool(talking.irc.heard), "a message")
        await asyncio.to_thread(program.kill)
        await asyncio.to_thread(program.start)
        await saying

        await talking.irc.until(lambda: texts[-1] in talking.irc.said_by(talking.nick), "the rest")
        talking.irc.say(talking.channel, "hello from IRC")
        await talking.matrix.hears(talking.room, talking.ghost, "hello from IRC")
        heard = talking.irc.said_by(talking.nick)
        # On a WebSocket, this bridge does not look at the ids of transactions, by which it would
        # know the one whose acknowledgement was lost with the server.
        assert (heard if at == 0 else list(dict.fromkeys(heard))) == texts
