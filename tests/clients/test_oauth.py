"""The OAuth 2.0 API with matrix-js-sdk, the library of Element Web, and a user at a real browser.

The client is `js/oauth_flows.mjs`; devices meet by a QR code in `js/browser/rendezvous.mjs`.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.clients.devtools import Tab, open_browser
from tests.clients.encryption.browser import CHROMIUM, ESBUILD, open_page
from tests.clients.node import FOLDER, NEEDS_NODE
from tests.clients.plain_client import password_of, register
from tests.support.process import SHARED_SECRET, ServerProcess

pytestmark = [
    pytest.mark.interop,
    *NEEDS_NODE,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]
LINE_SECONDS = 30.0
SCREENS = {"desktop": (1280, 900), "phone": (360, 740)}


class Client:
    """The program, which says line by line what its user has to open."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def line(self) -> str:
        """The next line; fails with what the program says if it has ended."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        async with asyncio.timeout(LINE_SECONDS):
            line = await self._process.stdout.readline()
            assert line, (await self._process.stderr.read()).decode()
        return line.decode().strip()


@asynccontextmanager
async def open_client(server: ServerProcess) -> AsyncIterator[Client]:
    """The program, which ends with the block."""
    process = await asyncio.create_subprocess_exec(
        "node",
        "oauth_flows.mjs",
        server.url,
        cwd=FOLDER,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Client(process)
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
        await process.wait()


async def reads(tab: Tab, text: str, name: str) -> None:
    """The page has a text; a screenshot is saved in the folder `SCREENSHOTS`, if it is set."""
    shown = await tab.text()
    assert text in shown, shown
    if folder := os.environ.get("SCREENSHOTS"):
        (Path(folder) / f"{name}.png").write_bytes(await tab.screenshot())


@pytest.mark.parametrize("screen", SCREENS)
async def test_user_signs_in_to_a_client(oauth_server: ServerProcess, screen: str) -> None:
    """By a code in the browser, and by a code on another device; messages, refreshing, the end."""
    user_id = register(oauth_server.url, SHARED_SECRET, f"{screen}user").user_id
    async with open_browser() as tab, open_client(oauth_server) as client:
        await tab.resize(*SCREENS[screen])

        await tab.open(await client.line())
        await tab.fill(user=user_id, password=password_of(f"{screen}user"))
        await tab.press("Sign in")
        await reads(tab, "Sign in to Messages for desktops?", f"{screen}-consent")
        assert user_id in await tab.text()
        await tab.press("Continue")
        assert "You are signed in to Messages" in await tab.text()

        await tab.open(await client.line())
        await reads(tab, "on another device?", f"{screen}-link")
        await tab.press("Continue")
        await reads(tab, "The other device is being signed in", f"{screen}-link-done")
        assert await client.line() == "ok"
        assert tab.problems == []


@pytest.mark.skipif(not ESBUILD.exists(), reason="run `npm ci` in tests/clients/js")
async def test_devices_meet_in_a_page_of_another_origin(oauth_server: ServerProcess) -> None:
    """The page may send conditions and read tags; the browser does not open a payload as a page."""
    with open_page("browser/rendezvous.mjs", server=oauth_server.url) as page:
        shown = await page.result(seconds=60)

    left = shown.pop("left", "")
    assert shown == {
        "sameCheckCode": True,
        "heard": ["message 0", "message 1", "message 2"],
        "late": [412, "M_CONCURRENT_WRITE"],
        "ended": True,
    }
    async with open_browser() as tab:
        await tab.open(left)
        assert "M_FORBIDDEN" in await tab.text()
        assert "Sign in" not in await tab.text()
    assert oauth_server.new_errors() == []
