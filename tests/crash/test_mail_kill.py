"""Kill -9 of the server around the sending of mails: none is lost, and in doubt one comes twice.

A mail that comes twice has the same Message-ID and text both times, by which mailboxes know it.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clients.plain_client import CLIENT, User, password_of, register
from tests.support.process import CHECKOUT, SHARED_SECRET, ServerProcess, running_server

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]
ALICE = "alice@example.com"
DELAY = 0.5  # seconds
WAIT_SECONDS = 60.0
QUIET_SECONDS = 4 * DELAY
CRASHES = 4


class Mailbox:
    """The mail server, in a process of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        command = [sys.executable, "-m", "tests.crash.mail_process", str(directory)]
        self._process = subprocess.Popen(command, cwd=CHECKOUT)
        wait((directory / "port").exists)
        self.port = int((directory / "port").read_text())

    @property
    def mails(self) -> list[tuple[str, str, str]]:
        """The Message-ID, subject and text of each mail."""
        lines = (self._directory / "mails").read_text().splitlines(keepends=True)
        return [tuple(json.loads(line)) for line in lines if line.endswith("\n")]

    @property
    def connections(self) -> int:
        """How many there were."""
        return int((self._directory / "connections").read_text() or 0)

    def set(self, name: str, on: bool) -> None:
        """Set `down` or `mute`; it takes a moment."""
        path = self._directory / name
        if on:
            path.touch()
        else:
            path.unlink()
        time.sleep(0.1)

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


class Scene:
    """Alice has mails sent to her, and Bob makes rooms with her."""

    def __init__(self, server: ServerProcess, mailbox: Mailbox) -> None:
        self.server = server
        self.mailbox = mailbox
        self.alice, self.bob = [
            register(server.url, SHARED_SECRET, each) for each in ("alice", "bob")
        ]
        add_address(self.alice, mailbox)
        pusher = {
            "kind": "email",
            "app_id": "m.email",
            "pushkey": ALICE,
            "app_display_name": "Mails",
            "device_display_name": ALICE,
            "lang": "en",
            "data": {},
        }
        self.alice.request("POST", f"{CLIENT}/pushers/set", pusher)
        self.seen = len(mailbox.mails)
        self.said: list[str] = []

    def make_room(self) -> str:
        """A room with both: the first message of a room waits for no pause."""
        room = self.bob.create_room(preset="public_chat")
        self.alice.join(room)
        return room

    def say(self, room: str) -> None:
        """A message that no other contains."""
        self.said.append(f"<message {len(self.said)}>")
        self.bob.send(room, self.said[-1], f"{len(self.said)}")

    def kill(self) -> None:
        """Kill the server."""
        self.server.kill()
        self.bob.close()

    @property
    def mails(self) -> list[tuple[str, str, str]]:
        """The mails about messages."""
        return self.mailbox.mails[self.seen :]

    def wait_for(self, count: int) -> None:
        """Wait until so many mails have come."""
        wait(lambda: len(self.mails) >= count)

    def check(self, most_doubles: int) -> None:
        """Each message is in one mail, and few of these came twice, without a change."""
        wait(lambda: all(any(said in text for _, _, text in self.mails) for said in self.said))
        time.sleep(QUIET_SECONDS)
        mails = self.mails
        different = {mail_id: (subject, text) for mail_id, subject, text in mails}
        assert all(different[mail_id] == (subject, text) for mail_id, subject, text in mails)
        for said in self.said:
            assert sum(said in text for _, text in different.values()) == 1
        assert len(mails) - len(different) <= most_doubles


def wait(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def add_address(user: User, mailbox: Mailbox) -> None:
    """Add the address to the account, by the link in a mail."""
    body = {"client_secret": "secret", "email": ALICE, "send_attempt": 1}
    sid = user.request("POST", f"{CLIENT}/account/3pid/email/requestToken", body)["sid"]
    wait(lambda: len(mailbox.mails) == 1)
    link = re.search(r"http\S+", mailbox.mails[0][2])
    assert link is not None
    urllib.request.urlopen(urllib.request.Request(link[0], method="POST"), timeout=20).close()
    auth = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": user.user_id},
        "password": password_of("alice"),
    }
    named = {"client_secret": "secret", "sid": sid, "auth": auth}
    user.request("POST", f"{CLIENT}/account/3pid/add", named)


@pytest.fixture
def scene() -> Iterator[Scene]:
    """A fresh server and mailbox."""
    with tempfile.TemporaryDirectory() as directory:
        mailbox = Mailbox(Path(directory))
        try:
            with running_server() as server:
                settings = {
                    "public_baseurl": server.url,
                    "email": {
                        "smtp_host": "127.0.0.1",
                        "smtp_port": mailbox.port,
                        "from": "noreply@example.org",
                        "tls": "off",
                        "notification_delay": DELAY,
                    },
                }
                server.kill()
                server.configure(settings)
                server.start()
                yield Scene(server, mailbox)
        finally:
            mailbox.stop()


def test_killed_while_messages_wait(scene: Scene) -> None:
    """What was acknowledged is mailed, and once: nothing had been sent."""
    rooms = [scene.make_room() for _ in range(CRASHES)]
    for room in rooms:
        scene.say(room)
        scene.kill()
        scene.server.start()
    scene.check(CRASHES)


def test_killed_between_storing_and_sending(scene: Scene) -> None:
    """It was stored that the mail is being sent, and the mail server has not had it."""
    room = scene.make_room()
    scene.mailbox.set("down", True)
    tried = scene.mailbox.connections
    scene.say(room)
    wait(lambda: scene.mailbox.connections > tried)
    scene.kill()
    scene.mailbox.set("down", False)
    scene.server.start()

    scene.wait_for(1)

    scene.check(0)
    assert len(scene.mails) == 1


def test_killed_after_sending(scene: Scene) -> None:
    """The mail server has the mail, and the server has not lived to hear it."""
    room, other = scene.make_room(), scene.make_room()
    scene.mailbox.set("mute", True)
    scene.say(room)
    scene.wait_for(1)
    scene.kill()
    scene.mailbox.set("mute", False)
    scene.server.start()
    scene.say(other)

    scene.wait_for(3)

    scene.check(1)
    first, again, _ = scene.mails
    assert first == again


def test_killed_after_recording(scene: Scene) -> None:
    """What was sent and recorded is not sent again."""
    room = scene.make_room()
    scene.say(room)
    scene.wait_for(1)
    time.sleep(QUIET_SECONDS)
    scene.kill()
    scene.server.start()

    scene.check(0)
