"""The fallback page of log-in, run by Node as a browser would."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.clients.conftest import NewUser
from tests.clients.plain_client import User, password_of
from tests.support.process import ServerProcess

FOLDER = Path(__file__).parent / "js"
pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed"),
]


def test_page_logs_in_and_notifies_the_client(server: ServerProcess, new_user: NewUser) -> None:
    """A client without a log-in form logs its user in, with the device id that it chose."""
    alice = new_user("alice")

    session = json.loads(
        submit(server.url, alice, password_of(alice.user_id[1:].partition(":")[0]))
    )

    assert (session["user_id"], session["device_id"]) == (alice.user_id, "FALLBACK")
    assert "refresh_token" in session


def test_page_says_what_is_wrong(server: ServerProcess, new_user: NewUser) -> None:
    """A user who mistypes the password may try again."""
    shown = submit(server.url, new_user("alice"), "wrong")

    assert "password" in shown.lower()


def submit(url: str, user: User, password: str) -> str:
    """The result of filling in the form."""
    finished = subprocess.run(
        ["node", "login_page.mjs", url, user.user_id, password],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return finished.stdout
