"""Two people who use matrix-rust-sdk, on which Element X is built, by simplified sliding sync."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.clients.conftest import NewUser
from tests.clients.plain_client import password_of
from tests.support.process import ServerProcess

PROGRAM = Path(__file__).parent / "rust/target/debug/sliding-sync-chat"

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(
        not PROGRAM.exists(),
        reason="the program is not built: run `cargo build --locked` in tests/clients/rust,"
        " which takes a quarter of an hour",
    ),
]


def test_two_people_chat(server: ServerProcess, new_user: NewUser, tmp_path: Path) -> None:
    """Encrypted and open rooms, many rooms, receipts, typing, gaps, and a client that restarts."""
    people = [new_user(name).user_id for name in ("alice", "bob")]
    logins = [part for each in people for part in (each, password_of(each[1:].partition(":")[0]))]
    arguments = [server.url, str(tmp_path), *logins]
    done = subprocess.run(
        [str(PROGRAM), *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={**os.environ, "RUST_BACKTRACE": "0"},
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout.endswith("ok all\n")
