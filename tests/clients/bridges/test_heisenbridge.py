"""People on IRC and on Matrix talk through heisenbridge, by HTTP and from behind NAT."""

import asyncio

import pytest

from tests.clients.bridges.conftest import IrcBridges
from tests.clients.bridges.heisenbridge import IS_INSTALLED
from tests.clients.bridges.irc import NGIRCD, Ngircd
from tests.clients.bridges.irc_chat import chat

pytestmark = [
    pytest.mark.interop,
    pytest.mark.timeout(240),
    pytest.mark.skipif(not IS_INSTALLED, reason="heisenbridge is not installed: make bridge"),
    pytest.mark.skipif(NGIRCD is None, reason="ngircd is not installed: apt install ngircd"),
]


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
