"""Encrypted chat from a page in Chromium: cross-origin requests, WebAssembly, keys in IndexedDB."""

import os

import pytest

from tests.clients.encryption.browser import CHROMIUM, ESBUILD, open_page
from tests.clients.encryption.conftest import Servers
from tests.clients.encryption.nio_devices import devices, join
from tests.clients.node import NEEDS_NODE

pytestmark = [
    pytest.mark.interop,
    pytest.mark.timeout(240),
    *NEEDS_NODE,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
    pytest.mark.skipif(not ESBUILD.exists(), reason="run `npm ci` in tests/clients/js"),
]


async def test_page_talks_and_continues_after_a_reload(servers: Servers) -> None:
    """A user of a web client reads old messages and writes new ones after reloading the page."""
    async with devices(servers) as made:
        bob = await made.register("bob", 1)
        name = f"browser-{os.getpid()}-{bob.client.device_id.lower()}"
        query = {"server": servers.urls[0], "name": name, "other": bob.client.user_id}
        with open_page("browser/page.mjs", **query) as page:
            await bob.until(lambda: bob.client.invited_rooms, "an invite")
            (room,) = bob.client.invited_rooms
            await join(bob, room)
            await bob.hears(room, "from the browser")
            carol = f"@{name}:{servers.first.name}"
            await bob.until(lambda: bob.active_devices(carol), "the keys of the browser")
            await bob.say(room, "to the browser")
            result = await page.result(seconds=100)
        said = ["from the browser", "to the browser", "after a reload"]
        await bob.hears(room, *said)

    assert result["texts"] == said
