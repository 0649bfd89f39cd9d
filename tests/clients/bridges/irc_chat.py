"""A person on IRC and one on Matrix in a channel, which heisenbridge connects."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from tests.clients.bridges.conftest import IrcBridges
from tests.clients.bridges.heisenbridge import Heisenbridge
from tests.clients.bridges.irc import IrcUser, Ngircd
from tests.clients.bridges.people import People, Person, people

NETWORK = "local"
NUMBERS = itertools.count(1)


@dataclass
class Chat:
    """A channel on IRC, and its room, in which there is one Matrix user.

    In the room `connection` the user gives commands.
    """

    bridge: Heisenbridge
    matrix: Person
    irc: IrcUser
    channel: str
    room: str
    connection: str

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
        yield Chat(bridge, matrix, irc, channel, room, connection)


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
            "ADDMASK @* --admin",
        ),
        start=1,
    ):
        await owner.say(control, command)
        await owner.until(lambda n=number: len(owner.heard[control]) > n, command)
    bridges.configured.add(at)
