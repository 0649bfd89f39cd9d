"""Two bridges in one room: each has its own transactions, and neither sees less for the other."""

import pytest

# Its olm has no wheel for each Python.
pytest.importorskip("olm", reason="mautrix with encryption is not installed")

from tests.clients.bridges.conftest import IrcBridges
from tests.clients.bridges.heisenbridge import IS_INSTALLED
from tests.clients.bridges.irc import NGIRCD, Ngircd
from tests.clients.bridges.irc_chat import chat
from tests.clients.bridges.mautrix_bridge import echo_bridge
from tests.clients.nio_client import ok

pytestmark = [
    pytest.mark.interop,
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("ignore:verify_ssl is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:loop argument is deprecated:DeprecationWarning"),
    pytest.mark.skipif(not IS_INSTALLED, reason="heisenbridge is not installed: make bridge"),
    pytest.mark.skipif(NGIRCD is None, reason="ngircd is not installed: apt install ngircd"),
]


async def test_ghosts_of_two_bridges_talk(bridges: IrcBridges, irc_network: Ngircd) -> None:
    """What a person on IRC says reaches the ghost of another bridge, and its answer IRC."""
    async with (
        chat(bridges, irc_network) as talking,
        echo_bridge(bridges.sites[0], bridges.trusting) as other,
    ):
        alice, ivan = talking.matrix, talking.irc
        invited = [talking.bridge.bot, other.echo]
        room = (await ok(alice.client.room_create(invite=invited))).room_id
        await alice.say(talking.connection, f"PLUMB {room} #plumbed")
        for user_id in invited:
            await alice.sees(user_id, room)
        await ivan.join("#plumbed")
        await ivan.sees(talking.nick, "#plumbed")

        ivan.say("#plumbed", "hello from IRC")
        await alice.hears_of(room, "you said: hello from IRC")
        await alice.say(room, "hello from Matrix")
        await alice.hears_of(room, "you said: hello from Matrix")

        expected = ["you said: hello from IRC", "hello from Matrix", "you said: hello from Matrix"]
        await ivan.until(lambda: len(ivan.said_by(talking.nick)) >= len(expected), "all of it")
        # The bridge puts the sender before each message.
        heard = [text.partition("> ")[2] for text in ivan.said_by(talking.nick)]
        assert heard == expected
