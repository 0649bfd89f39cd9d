"""People who use matrix-rust-sdk, on which Element X is built.

Two chat by simplified sliding sync, and one signs in by the OAuth 2.0 API.
"""

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from tests.clients.conftest import NewUser
from tests.clients.devtools import open_browser
from tests.clients.encryption.browser import CHROMIUM
from tests.clients.plain_client import password_of, register
from tests.support.process import SHARED_SECRET, ServerProcess

PROGRAMS = Path(__file__).parent / "rust/target/debug"
CHAT, SIGN_IN = PROGRAMS / "sliding-sync-chat", PROGRAMS / "oauth-login"
LINE_SECONDS = 60.0

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(
        not (CHAT.exists() and SIGN_IN.exists()),
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
    client = await asyncio.create_subprocess_exec(
        str(SIGN_IN),
        oauth_server.url,
        str(tmp_path),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "RUST_BACKTRACE": "0"},
    )
    assert client.stdout is not None
    assert client.stderr is not None
    try:
        async with open_browser() as tab, asyncio.timeout(LINE_SECONDS):
            await tab.open((await client.stdout.readline()).decode().strip())
            await tab.fill(user=user_id, password=password_of("rust"))
            await tab.press("Sign in")
            assert "Sign in to Messages for phones?" in await tab.text()
            await tab.press("Continue")
            assert "You are signed in to Messages" in await tab.text()
            await tab.open((await client.stdout.readline()).decode().strip())
            assert "Messages for phones" in await tab.text()
            last = await client.stdout.readline()
            assert last == b"ok\n", (await client.stderr.read()).decode()
    finally:
        if client.returncode is None:
            client.kill()
        await client.wait()
