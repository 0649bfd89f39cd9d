"""Encrypted chat with mautrix, whose crypto most bridges have, and with users of matrix-nio."""

import pytest

# Its olm has no wheel for each Python.
pytest.importorskip("olm", reason="mautrix with encryption is not installed")

from mautrix.types import TrustState

from tests.clients.encryption.conftest import Servers
from tests.clients.encryption.mautrix_bots import bots
from tests.clients.encryption.nio_devices import devices, encrypted_room

pytestmark = [
    pytest.mark.interop,
    pytest.mark.timeout(240),
    # The library reads it in messages of clients that still send it.
    pytest.mark.filterwarnings("ignore:The sender_key field:DeprecationWarning"),
]


async def test_bot_reads_and_answers(servers: Servers) -> None:
    """A user of one client talks to a bot with another one's crypto, on two devices."""
    async with devices(servers) as made, bots(servers) as running:
        alice, bot = await made.register("alice"), await running.register(server=1)
        laptop = await made.another(alice)
        room = await encrypted_room(alice, laptop, invited=[bot.client.mxid])
        for device in (alice, laptop):
            await device.until(lambda d=device: bot.client.mxid in d.members(room), "the bot")
            await device.until(lambda d=device: d.active_devices(bot.client.mxid), "its keys")
        await alice.knows(laptop)

        for text in ("hello", "how are you?"):
            await alice.say(room, text)
            for device in (alice, laptop):
                await device.hears(room, text, f"you said: {text}")


async def test_devices_are_trusted_by_their_users_signature(servers: Servers) -> None:
    """Others trust a new device into which its user typed the recovery key."""
    async with bots(servers) as running:
        bot, other = await running.register(server=0), await running.register(server=1)
        recovery_key = await bot.machine.generate_recovery_key()
        second = await running.another(bot)
        name = second.client.mxid, second.client.device_id
        assert await other.trust_in(*name) == TrustState.UNVERIFIED

        await second.machine.verify_with_recovery_key(recovery_key)
        third = await running.register(server=1)

        assert await third.trust_in(*name) == TrustState.CROSS_SIGNED_TOFU
        first = bot.client.mxid, bot.client.device_id
        assert await third.trust_in(*first) == TrustState.CROSS_SIGNED_TOFU
