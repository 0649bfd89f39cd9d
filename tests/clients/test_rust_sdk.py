"""People who use matrix-rust-sdk, on which Element X is built.

Two chat by simplified sliding sync, one signs in by the OAuth 2.0 API, and one signs in new devices
by QR codes.
"""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.clients.conftest import NewUser
from tests.clients.devtools import open_browser
from tests.clients.encryption.browser import CHROMIUM
from tests.clients.plain_client import password_of, register
from tests.support.process import SHARED_SECRET, ServerProcess

PROGRAMS = Path(__file__).parent / "rust/target/debug"
CHAT, SIGN_IN, QR_LOGIN = (
    PROGRAMS / name for name in ("sliding-sync-chat", "oauth-login", "qr-login")
)
LINE_SECONDS = 60.0

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(
        not all(each.exists() for each in (CHAT, SIGN_IN, QR_LOGIN)),
        reason="the programs are not built: run `cargo build --locked` in tests/clients/rust,"
        " which takes a quarter of an hour",
    ),
]


def test_two_people_chat(server: ServerProcess, new_user: NewUser, tmp_path: Path) -> None:
    """Encrypted and open rooms, many rooms, receipts, typing, gaps, and a client that restarts."""
    people = [new_user(name).user_id for name in ("alice", "bob")]
    logins = [part for each in people for part in (each, password_of(each[1:].partition(":")[0]))]
    arguments = [server.url, str(tmp_path), *logins]
    done = subprocess.run(
        [str(CHAT), *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={**os.environ, "RUST_BACKTRACE": "0"},
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout.endswith("ok all\n")


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
async def test_user_signs_in_by_oauth(oauth_server: ServerProcess, tmp_path: Path) -> None:
    """With a browser; the session is refreshed, and survives a restart of the client."""
    user_id = register(oauth_server.url, SHARED_SECRET, "rust").user_id
    async with (
        started(SIGN_IN, oauth_server.url, tmp_path) as client,
        open_browser() as tab,
        asyncio.timeout(LINE_SECONDS),
    ):
        await tab.open(await client.line())
        await tab.fill(user=user_id, password=password_of("rust"))
        await tab.press("Sign in")
        assert "Sign in to Messages for phones?" in await tab.text()
        await tab.press("Continue")
        assert "You are signed in to Messages" in await tab.text()
        await tab.open(await client.line())
        assert "Messages for phones" in await tab.text()
        assert await client.line() == "ok"


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
async def test_user_signs_in_new_devices_by_qr_codes(
    oauth_server: ServerProcess, tmp_path: Path
) -> None:
    """One device scans the code of the old one, another shows its own; both get the user's keys."""
    user_id = register(oauth_server.url, SHARED_SECRET, "collector").user_id
    password = password_of("collector")
    async with (
        started(QR_LOGIN, oauth_server.url, tmp_path, user_id, password) as client,
        open_browser() as tab,
        asyncio.timeout(2 * LINE_SECONDS),
    ):
        await tab.open(await client.line())
        await tab.fill(user=user_id, password=password)
        await tab.press("Sign in")
        for is_last in (False, True):
            assert "Sign in to Messages for phones on another device?" in await tab.text()
            await tab.press("Continue")
            assert "The other device is being signed in" in await tab.text()
            if not is_last:
                await tab.open(await client.line())
        assert await client.line() == "ok"


class Program:
    """A running program, which says line by line what its user has to do."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def line(self) -> str:
        """The next line; fails with what the program says if it has ended."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        line = await self._process.stdout.readline()
        assert line, (await self._process.stderr.read()).decode()
        return line.decode().strip()


@asynccontextmanager
async def started(path: Path, *arguments: str | Path) -> AsyncIterator[Program]:
    """A program, which ends with the block."""
    process = await asyncio.create_subprocess_exec(
        str(path),
        *map(str, arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "RUST_BACKTRACE": "0"},
    )
    try:
        yield Program(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
